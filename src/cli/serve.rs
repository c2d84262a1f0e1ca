//! `postern serve`: the gateway as a configuration file says, until a signal ends it. SIGHUP, or a change of the file or of
//! one that it names, has it read anew.

use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;

use super::Failure;
use super::signals::{Signals, Told};
use crate::clock::Clock;
use crate::config::{Environment, WatchedConfig};
use crate::server::{Inherited, Server};

/// How often it is looked whether a file has changed.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn run(config: &Path) -> Result<(), Failure> {
    // Before anything has a thread: it changes the environment.
    let inherited = Inherited::from_environment()?;
    let _writing = super::start_logging()?;
    let mut signals = Signals::catch()?.with_hang_up()?;
    let mut source = WatchedConfig::new(config, Environment::from_process());
    let server = Server::start_with(source.load()?, Clock::system(), inherited)?;
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = server.admin_address() {
        tracing::info!(%address, "admin_listening");
    }
    tell(&[NotifyState::Ready]);
    loop {
        match signals.next(LOOK) {
            Told::End => break,
            Told::Reload => reload(&mut source, &server),
            Told::Nothing if source.has_changed() => reload(&mut source, &server),
            Told::Nothing => {}
        }
    }
    tell(&[NotifyState::Stopping]);
    tracing::info!("draining");
    server.stop();
    tracing::info!("stopped");
    Ok(())
}

fn reload(source: &mut WatchedConfig, server: &Server) {
    // A reload counts from this moment (systemd's `Type=notify-reload`).
    let begun = NotifyState::monotonic_usec_now();
    tell(&[vec![NotifyState::Reloading], begun.into_iter().collect()].concat());
    match source.load() {
        // What is wrong is logged, and what was served is served on.
        Ok(config) => drop(server.reload(config)),
        Err(error) => server.refuse_reload(&error),
    }
    tell(&[NotifyState::Ready]);
}

/// Tells the service manager, if there is one that wants to know.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "service_manager_not_told");
    }
}
