//! The log of a running gateway on standard error: lines of JSON, or of text on a terminal.

use std::io::IsTerminal;

use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::output::CommandError;
use super::text_log::{Colours, TextLog};
use crate::config::Environment;
use crate::log_events;
use crate::observe::{self, LogWriter, LogWriterGuard, StandardError};

/// The variable with the directives.
const VARIABLE: &str = "POSTERN_LOG";
/// The crate, with which the targets of its events begin.
const CRATE: &str = "postern";
/// Targets below the crate that are not a public module of it.
const OTHER_TARGETS: [&str; 1] = ["access"];

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct LogArguments {
    /// Form of the log on standard error: `auto` is text on a terminal, and JSON elsewhere.
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Auto,
    Json,
    Text,
}

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
pub(super) fn start_logging(arguments: LogArguments, environment: &Environment) -> Result<Logging, CommandError> {
    let filter = filter(environment)?;
    let own = FilterFn::new(|metadata| metadata.target().starts_with(CRATE));
    let (writer, guard) = match text_log(arguments.log_format, environment) {
        Some(text) => LogWriter::formatted(StandardError::new(), move |lines| text.text(lines)),
        None => LogWriter::to(StandardError::new()),
    }?;
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

/// Checks the directives, as a start does.
///
/// # Errors
/// If they are not valid.
pub(super) fn check_directives(environment: &Environment) -> Result<(), CommandError> {
    filter(environment).map(drop)
}

fn filter(environment: &Environment) -> Result<EnvFilter, CommandError> {
    let directives = environment.text(VARIABLE).map_err(|reason| format!("{VARIABLE}: {reason}"))?.unwrap_or_default();
    // The library takes a space for a part of a target's name.
    let directives: Vec<&str> =
        directives.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    check_targets(&directives).map_err(|reason| format!("{VARIABLE}: {reason}"))?;
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    Ok(builder.parse(directives.join(",")).map_err(|error| format!("{VARIABLE}: {error}"))?)
}

/// The form of the lines, if they are to be text. Text has colours on a terminal, unless `NO_COLOR` (no-color.org) is set.
fn text_log(format: LogFormat, environment: &Environment) -> Option<TextLog> {
    let is_terminal = std::io::stderr().is_terminal();
    if format == LogFormat::Json || format == LogFormat::Auto && !is_terminal {
        return None;
    }
    let no_colour = environment.text("NO_COLOR").is_ok_and(|value| value.is_some_and(|value| !value.is_empty()));
    let colours = if is_terminal && !no_colour { Colours::Ansi } else { Colours::Off };
    Some(TextLog::new(colours))
}

/// Checks that each directive is a level, or selects events of this program: `tracing` takes any other word for a target, and
/// so accepts a misspelt level.
fn check_targets(directives: &[&str]) -> Result<(), String> {
    for directive in directives {
        let end = directive.find('=').unwrap_or(directive.len());
        let target = &directive[..end];
        if end == directive.len() && target.parse::<LevelFilter>().is_ok() {
            continue;
        }
        let mut parts = target.split("::");
        let is_own = parts.next() == Some(CRATE) && parts.next().is_none_or(is_module);
        if !is_own {
            return Err(format!(
                "`{directive}` is neither a level (off, error, warn, info, debug, trace) nor a module of Postern with one, like `postern::server=debug`"
            ));
        }
    }
    Ok(())
}

fn is_module(name: &str) -> bool {
    let declares = |line: &str| line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) == Some(name);
    OTHER_TARGETS.contains(&name) || include_str!("../lib.rs").lines().any(declares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_levels_and_modules_of_this_program() {
        let check =
            |all: &str| check_targets(&all.split(',').filter(|directive| !directive.is_empty()).collect::<Vec<_>>());
        for good in [
            "",
            "debug",
            "OFF",
            "warn,postern::server=debug",
            "postern=trace",
            "postern::access=off,info",
            "postern::fetch::run=debug",
            "postern",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "nonsense",
            "debgu",
            "warn,hyper=trace",
            "postern::nonsense=debug",
            "poster=debug",
            "info postern",
            "[span]=debug",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(OTHER_TARGETS.iter().any(|target| format!("{CRATE}::{target}") == observe::TARGET));
    }
}
