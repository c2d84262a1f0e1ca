//! The reasons for which a gateway can't be built.

use crate::fleet::FleetError;
use crate::http_client::ClientSetupError;

/// A gateway can't be built.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// TLS for an issuer's key server or the trace collector can't be used.
    #[error(transparent)]
    Client(#[from] ClientSetupError),
    /// The fleet can't be joined.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}
