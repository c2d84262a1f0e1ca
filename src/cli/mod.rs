//! The command line: what an operator types, and what is printed back.

mod check;
mod completions;
mod demo;
mod explain;
mod health;
mod keygen;
mod man;
mod serve;
mod signals;
mod simulate;
mod webhook;
mod whoami;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::log_events;
use crate::observe::{self, LogWriter, LogWriterGuard};

/// An authenticating, caching gateway in front of the Refold executions API.
///
/// Without a command it starts the gateway with an embedded simulated Refold, a demo tenant and a demo key, and prints
/// the first request to try.
#[derive(Debug, Parser)]
#[command(name = "postern", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the demo gateway listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where its status page is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    admin: SocketAddr,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as a configuration file says.
    Serve {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
        config: PathBuf,
    },
    /// Check a configuration file and point at what is wrong in it.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
        config: PathBuf,
    },
    /// Show the canonical form of a query, what goes upstream, and the cache key.
    Explain(explain::Arguments),
    /// Make a client key, and the configuration lines for it.
    Keygen(keygen::Arguments),
    /// Explain what a credential may do under a configuration, and why. The credential is read from standard input.
    Whoami(whoami::Arguments),
    /// Print what to register at Refold so that its webhooks reach the gateway.
    Webhook(webhook::Arguments),
    /// Run the simulated Refold alone.
    Simulate(simulate::Arguments),
    /// Ask a running gateway whether it answers; exit 0 if it does (for container health checks).
    Health(health::Arguments),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Print what makes a shell complete the command line.
    Completions(completions::Arguments),
    /// Print the manual page, or write one for each command.
    Man(man::Arguments),
}

/// Runs the command that was typed.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => demo::run(cli.listen, cli.admin),
        Some(Command::Serve { config }) => serve::run(config),
        Some(Command::Check { config }) => check::run(config),
        Some(Command::Explain(arguments)) => explain::run(arguments),
        Some(Command::Keygen(arguments)) => keygen::run(arguments),
        Some(Command::Whoami(arguments)) => whoami::run(arguments),
        Some(Command::Webhook(arguments)) => webhook::run(arguments),
        Some(Command::Simulate(arguments)) => simulate::run(arguments),
        Some(Command::Health(arguments)) => health::run(arguments),
        Some(Command::Schema) => {
            print(crate::config::schema());
            Ok(())
        }
        Some(Command::Completions(arguments)) => completions::run(arguments, Cli::command()),
        Some(Command::Man(arguments)) => man::run(arguments, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::FAILURE
        }
    }
}

/// Why a command failed, in words for the person who typed it.
type Failure = Box<dyn std::error::Error>;

/// Prints to standard output what the command is for. A reader that has gone (`| head`) is no failure.
fn print(text: impl Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(failure: &Failure) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "postern: {failure}");
}

/// The log of the process, which is written until this is dropped.
struct Logging {
    /// Takes the lines of requests; `None` if `POSTERN_LOG` excludes them.
    access_log: Option<LogWriter>,
    _guard: LogWriterGuard,
}

/// Starts to write structured log lines to standard error. `POSTERN_LOG` takes `tracing`'s directives and is `info` by
/// default. Only Postern's own events are written: those of libraries about a connection can contain credentials.
fn start_logging() -> Result<Logging, Failure> {
    use tracing_subscriber::filter::{FilterFn, LevelFilter};
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{EnvFilter, Layer};

    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("POSTERN_LOG")
        .from_env()
        .map_err(|error| format!("POSTERN_LOG: {error}"))?;
    let own = FilterFn::new(|metadata| metadata.target().starts_with("postern"));
    let (writer, guard) = LogWriter::to(std::io::stderr())?;
    let event_writer = writer.clone();
    let events = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(move || event_writer.clone());
    let started = tracing_subscriber::registry().with(events.with_filter(own)).with(filter).try_init();
    // A second start in one process keeps the first subscriber.
    let is_first = started.is_ok();
    // Requests are not events of `tracing`, which would cost a hit too much, but the same directives select them.
    let logs_requests = is_first && tracing::enabled!(target: observe::TARGET, tracing::Level::INFO);
    if is_first {
        // A line like all others, without the panic's message, which can contain the data of a request.
        std::panic::set_hook(Box::new(|panic| {
            let (thread, place) = (std::thread::current(), panic.location().map(ToString::to_string));
            tracing::error!(thread = thread.name(), place, message = log_events::PANICKED);
        }));
    }
    Ok(Logging { access_log: logs_requests.then_some(writer), _guard: guard })
}
