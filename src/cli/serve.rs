//! `postern serve`: runs the gateway with a configuration file until a signal ends it.
//!
//! SIGHUP, or a change of the file or of a file that it names, reloads the configuration.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::logging::{LogArguments, start_logging};
use super::output::CommandError;
use super::signals::{SignalEvent, Signals};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Environment, WatchedConfig};
use crate::log_events;
use crate::server::{InheritedSockets, OccupiedAddress, Server, StartOptions};

/// Interval between two checks for changed files.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern serve --config postern.toml\n  postern serve --config postern.toml --log-format json"
)]
pub(super) struct ServeArguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: PathBuf,
    /// Listen also where another process listens, to replace it: it can be ended once this one is ready.
    #[arg(long)]
    take_over: bool,
    #[command(flatten)]
    log: LogArguments,
}

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CommandError> {
    // First of all, because it changes the environment, which is only safe while the process has one thread.
    let inherited = InheritedSockets::from_environment()?;
    let environment = Environment::from_process();
    let logging = start_logging(arguments.log, &environment)?;
    let mut signals = Signals::register()?.with_hangup()?;
    let source = WatchedConfig::new(&arguments.config, environment);
    let Some((mut source, loaded)) = load(source, &mut signals)? else { return Ok(()) };
    let occupied = if arguments.take_over { OccupiedAddress::TakeOver } else { OccupiedAddress::Refuse };
    let options = StartOptions { inherited, access_log: logging.access_log.clone(), occupied };
    let config = loaded?;
    let clock = Clock::system();
    log_warnings(&config, &clock);
    let server = Server::start_with(config, clock.clone(), options)?;
    for address in server.addresses() {
        tracing::info!(%address, message = log_events::LISTENING);
    }
    if let Some(address) = server.admin_address() {
        tracing::info!(%address, message = log_events::ADMIN_LISTENING);
    }
    notify_service_manager(&[NotifyState::Ready]);
    loop {
        match signals.next_within(FILE_CHECK_INTERVAL) {
            SignalEvent::Terminate => break,
            SignalEvent::Reload => reload(&mut source, &server, &clock),
            SignalEvent::TimedOut if source.has_changed() => reload(&mut source, &server, &clock),
            SignalEvent::TimedOut => {}
        }
    }
    notify_service_manager(&[NotifyState::Stopping]);
    tracing::info!(message = log_events::DRAINING);
    server.stop();
    tracing::info!(message = log_events::STOPPED);
    Ok(())
}

/// Reads the configuration on a thread of its own, so that a signal ends the start also while a file system hangs; `None` if one
/// does.
fn load(
    mut source: WatchedConfig,
    signals: &mut Signals,
) -> io::Result<Option<(WatchedConfig, Result<Config, ConfigError>)>> {
    let (loaded, result) = oneshot::channel();
    let load = move || {
        let config = source.load();
        // Fails only after a signal.
        let _ = loaded.send((source, config));
    };
    std::thread::Builder::new().name("load".to_owned()).spawn(load)?;
    match signals.run_until_termination(result) {
        None => Ok(None),
        Some(Ok(loaded)) => Ok(Some(loaded)),
        Some(Err(_)) => Err(io::Error::other("the thread that reads the configuration has panicked")),
    }
}

/// Logs the settings of a configuration that are valid and doubtful.
fn log_warnings(config: &Config, clock: &Clock) {
    for warning in config.warnings(clock.wall()) {
        tracing::warn!(%warning, message = log_events::CONFIG_WARNING);
    }
}

fn reload(source: &mut WatchedConfig, server: &Server, clock: &Clock) {
    // systemd (`Type=notify-reload`) compares this time with that of its own request.
    let begun = NotifyState::monotonic_usec_now();
    notify_service_manager(&[vec![NotifyState::Reloading], begun.into_iter().collect()].concat());
    match source.load() {
        Ok(config) => {
            log_warnings(&config, clock);
            // An error is already logged, and the previous configuration stays in use.
            drop(server.reload(config));
        }
        Err(error) => server.refuse_reload(&error),
    }
    notify_service_manager(&[NotifyState::Ready]);
}

/// Notifies the service manager, if the environment names one.
fn notify_service_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, message = log_events::SERVICE_MANAGER_NOTIFY_FAILED);
    }
}
