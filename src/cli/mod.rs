//! The command line: one file per command.

mod admin_client;
mod arguments;
mod check;
mod completions;
mod demo;
mod exchange;
mod explain;
mod health;
mod keygen;
mod keys;
mod logging;
mod man;
mod online;
mod output;
mod purge;
mod refusal;
mod serve;
mod shell;
mod signals;
mod simulate;
mod text_log;
mod webhook;
mod whoami;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, setrlimit};

use arguments::{Arguments, Command, SHORT_HELP};
use output::{CommandError, print, print_error};

use crate::config::Environment;

/// Exit status after arguments that no command takes, as shells and clap have it.
const USAGE_ERROR: u8 = 2;

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    forbid_core_dumps();
    let result = match Arguments::try_parse() {
        Ok(Arguments { command: Some(command) }) => run_command(&command),
        Ok(Arguments { command: None }) => without_a_command(&Environment::from_process()),
        // `--help` and `--version` are such an error, too.
        Err(error) if !error.use_stderr() => print(error.render().to_string().trim_end()),
        Err(error) => {
            // There is no other place to report that standard error is closed.
            let _ = write!(std::io::stderr(), "{}{}", error.render(), arguments::advice(&error));
            return ExitCode::from(USAGE_ERROR);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Keygen(arguments) => keygen::run(arguments),
        Command::Whoami(arguments) => whoami::run(arguments),
        Command::Webhook(arguments) => webhook::run(arguments),
        Command::Simulate(arguments) => simulate::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Keys(arguments) => keys::run(arguments),
        Command::Purge(arguments) => purge::run(arguments),
        Command::Schema => print(crate::config::schema()),
        Command::Completions(arguments) => completions::run(arguments, Arguments::command()),
        Command::Man(arguments) => man::run(arguments, Arguments::command()),
        Command::Version => print(format_args!("postern {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// Prints a short help. If the environment names a configuration, `serve` was probably left out, which is an error.
fn without_a_command(environment: &Environment) -> Result<(), CommandError> {
    match environment.config_file() {
        Some(file) => {
            let command = "`postern serve` runs the gateway with it, `postern demo` a demonstration without it";
            Err(format!("there is no command, and POSTERN_CONFIG is {file}: {command}").into())
        }
        None => print(SHORT_HELP),
    }
}

/// Forbids core dumps of this process and its children: they contain every secret in memory. Lowering a limit never fails.
fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        print_error(&format!("core dumps can't be forbidden: {error}").into());
    }
}
