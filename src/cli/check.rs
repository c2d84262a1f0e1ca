//! `postern check`: validates a configuration and reports all that is wrong or doubtful in it, with positions.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::{CommandError, print};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Environment, Finding, SecretValues};

/// The argument that stands for standard input, and the name that errors give it.
const STANDARD_INPUT: [&str; 2] = ["-", "standard input"];
/// Longest configuration that is read from standard input, in bytes; that of a file is as long.
const MAX_INPUT: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postern check postern.toml
  postern check --without-secrets --format json postern.toml
  postern check - < postern.toml")]
pub(super) struct CheckArguments {
    /// Configuration file (TOML), or `-` for standard input.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Configuration file, if it is not the argument.
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: Option<PathBuf>,
    /// Do not read the values of secrets: for a machine that does not have them.
    #[arg(long)]
    without_secrets: bool,
    /// Form of the result on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Validates the configuration as `postern serve` does, and prints its warnings and the number of its listeners, tenants and client
/// keys.
///
/// # Errors
/// All errors of the configuration, if it has any. Warnings are none.
pub(super) fn run(arguments: &CheckArguments) -> Result<(), CommandError> {
    let path = arguments.file.as_deref().or(arguments.config.as_deref()).ok_or("no configuration file is named")?;
    let loaded = load(path, if arguments.without_secrets { SecretValues::Ignored } else { SecretValues::Required })?;
    let warnings: Vec<&Finding> =
        loaded.as_ref().map_or(Vec::new(), |config| config.warnings(Clock::system().wall()).collect());
    if arguments.format == Format::Json {
        print_json(loaded.as_ref().err(), &warnings)?;
        return loaded.map(drop).map_err(|_| "the configuration has errors".into());
    }
    let config = loaded.as_ref().map_err(Clone::clone)?;
    for warning in &warnings {
        print(format_args!("warning: {warning}"))?;
    }
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    print(format_args!(
        "{}: valid; listeners {}, tenants {}, client keys {keys}",
        name_of(path).display(),
        config.listeners.len(),
        config.tenants.len()
    ))
}

fn name_of(path: &Path) -> &Path {
    let [argument, name] = STANDARD_INPUT;
    if path == Path::new(argument) { Path::new(name) } else { path }
}

fn load(path: &Path, secrets: SecretValues) -> Result<Result<Config, ConfigError>, CommandError> {
    let environment = Environment::from_process();
    if path != Path::new(STANDARD_INPUT[0]) {
        return Ok(Config::load_with(path, &environment, secrets));
    }
    let mut text = String::new();
    std::io::stdin().take(MAX_INPUT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_INPUT {
        return Err("standard input is larger than 1 MiB".into());
    }
    Ok(Config::parse_with(&text, name_of(path), &environment, secrets))
}

fn print_json(errors: Option<&ConfigError>, warnings: &[&Finding]) -> Result<(), CommandError> {
    let errors = errors.map_or(&[][..], ConfigError::findings).iter().map(|error| as_json("error", error));
    let warnings = warnings.iter().map(|warning| as_json("warning", warning));
    let findings: Vec<Value> = errors.chain(warnings).collect();
    print(serde_json::to_string_pretty(&json!({ "findings": findings }))?)
}

/// A finding with its place: file, line and column, both from 1, or an environment variable; null for what it does not have.
fn as_json(severity: &str, finding: &Finding) -> Value {
    let position = finding.position();
    json!({
        "severity": severity,
        "file": position.map(|(file, ..)| file.display().to_string()),
        "line": position.map(|(_, line, _)| line),
        "column": position.map(|(.., column)| column),
        "variable": finding.variable_name(),
        "message": finding.message(),
    })
}
