//! `postern serve`: the gateway as a configuration file says, until a signal ends it.

use std::path::Path;

use super::Failure;
use super::signals::Signals;
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::server::Server;

pub(super) fn run(config: &Path) -> Result<(), Failure> {
    let _writing = super::start_logging()?;
    let signals = Signals::catch()?;
    let config = Config::load(config, &Environment::from_process())?;
    let server = Server::start(config, Clock::system())?;
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    signals.wait();
    tracing::info!("draining");
    server.stop();
    tracing::info!("stopped");
    Ok(())
}
