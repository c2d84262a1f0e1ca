//! The command line: one file per command.

mod check;
mod completions;
mod demo;
mod explain;
mod health;
mod keygen;
mod logging;
mod man;
mod output;
mod serve;
mod signals;
mod simulate;
mod webhook;
mod whoami;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, setrlimit};

use output::{print, print_error};

/// An authenticating, caching gateway in front of the Refold executions API.
///
/// Without a command, starts the gateway with an embedded simulated Refold, a demo tenant and a demo client key, and prints
/// the first requests to try.
#[derive(Debug, Parser)]
#[command(name = "postern", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address that the demo gateway listens on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of its status page.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    admin: SocketAddr,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway with a configuration file.
    Serve(serve::ServeArguments),
    /// Validate a configuration file and report an error with its line and column.
    Check {
        /// Configuration file (TOML).
        #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
        config: PathBuf,
    },
    /// Show the canonical form of a query, its upstream targets and its cache key.
    Explain(explain::ExplainArguments),
    /// Generate a client key and the configuration lines for it.
    Keygen(keygen::KeygenArguments),
    /// Explain what a credential may do under a configuration, and why. The credential is read from standard input.
    Whoami(whoami::WhoamiArguments),
    /// Print the request that registers the gateway's webhook with Refold.
    Webhook(webhook::WebhookArguments),
    /// Run the simulated Refold alone.
    Simulate(simulate::SimulateArguments),
    /// Check that a running gateway answers, and exit with 0 if it does (for container health checks).
    Health(health::HealthArguments),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArguments),
    /// Print the manual page, or write one page per command.
    Man(man::ManArguments),
}

/// Forbids core dumps of this process and its children: they contain every secret in memory. Lowering a limit never fails.
fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        print_error(&format!("core dumps can't be forbidden: {error}").into());
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    forbid_core_dumps();
    let result = match &cli.command {
        None => demo::run(cli.listen, cli.admin),
        Some(Command::Serve(arguments)) => serve::run(arguments),
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
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}
