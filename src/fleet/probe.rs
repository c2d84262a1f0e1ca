//! One look at the fleet's server, for `postern check --online`.

use tokio::time::timeout;

use super::connect::{ConnectError, Connector};
use crate::clock::Clock;
use crate::config::FleetConfig;
use crate::http_client::ClientSetupError;

/// The fleet's server can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] ClientSetupError),
    /// The server can't be reached, refuses, or can't serve a fleet.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not answer PING.
    #[error("PING: {0}")]
    Ping(String),
}

/// The server's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// The version of Redis or Valkey.
    pub version: String,
}

/// Connects to the fleet's server, logs in, checks version and role, loads the scripts and sends PING. Joins no fleet.
///
/// # Errors
/// If one of these steps fails or takes too long.
pub async fn probe(config: &FleetConfig) -> Result<ServerReport, ProbeError> {
    let connected = Connector::new(config, Clock::system())?.connect().await?;
    let mut connection = connected.connection.clone();
    let ping = redis::cmd("PING");
    let ping = ping.query_async::<String>(&mut connection);
    match timeout(config.command_timeout, ping).await {
        Ok(Ok(_)) => Ok(ServerReport { version: connected.version }),
        Ok(Err(error)) => Err(ProbeError::Ping(error.to_string())),
        Err(_) => Err(ProbeError::Ping("no answer within command_timeout".to_owned())),
    }
}
