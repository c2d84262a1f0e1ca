//! `postern serve`: the gateway as a configuration file says, until a signal ends it.

use std::io;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::server::Server;

pub(super) fn run(config: &Path) -> Result<(), Failure> {
    super::start_logging();
    let config = Config::load(config, &Environment::from_process())?;
    let server = Server::start(config, Clock::system())?;
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    wait_for_end()?;
    tracing::info!("draining");
    server.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Returns at SIGTERM or SIGINT.
pub(super) fn wait_for_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
