//! The log of a running gateway: JSON lines on standard error.

use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::output::CommandError;
use crate::log_events;
use crate::observe::{self, LogWriter, LogWriterGuard, StandardError};

/// The log of the process, which is written until this is dropped.
pub(super) struct Logging {
    /// Takes the lines of requests; `None` if `POSTERN_LOG` excludes them.
    pub(super) access_log: Option<LogWriter>,
    _guard: LogWriterGuard,
}

/// Starts writing log lines to standard error, until the returned value is dropped.
///
/// `POSTERN_LOG` takes `tracing`'s directives; the default is `info`. Only Postern's own events are written, because events
/// of libraries can contain credentials.
///
/// # Errors
/// If the directives are not valid, or if the writer's thread can't be started.
pub(super) fn start_logging() -> Result<Logging, CommandError> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("POSTERN_LOG")
        .from_env()
        .map_err(|error| format!("POSTERN_LOG: {error}"))?;
    let own = FilterFn::new(|metadata| metadata.target().starts_with("postern"));
    let (writer, guard) = LogWriter::to(StandardError::new())?;
    let event_writer = writer.clone();
    let events = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || event_writer.clone());
    let started = tracing_subscriber::registry().with(events.with_filter(own)).with(filter).try_init();
    // Only the first start in a process installs a subscriber; a later one keeps it.
    let is_first = started.is_ok();
    // Access log lines are not `tracing` events, which would be too expensive on the hit path, but the same directives
    // switch them on and off.
    let logs_requests = is_first && tracing::enabled!(target: observe::TARGET, tracing::Level::INFO);
    if is_first {
        // A panic gives a log line like any other event, without its message, which can contain request data.
        std::panic::set_hook(Box::new(|panic| {
            let (thread, place) = (std::thread::current(), panic.location().map(ToString::to_string));
            tracing::error!(thread = thread.name(), place, message = log_events::PANICKED);
        }));
    }
    Ok(Logging { access_log: logs_requests.then_some(writer), _guard: guard })
}
