//! `postern check`: validates a configuration and reports all that is wrong or doubtful in it, with positions.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::logging::check_directives;
use super::online::{self, Outcome};
use super::output::{CommandError, OutputFormat, print};
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
  postern check --online --config postern.toml
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
    /// Also ask the servers that the file names: Refold about the org keys, the issuers for their keys, the collector of spans,
    /// the fleet's Redis.
    #[arg(long, conflicts_with = "without_secrets")]
    online: bool,
    /// Form of the result on standard output.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

/// Validates the configuration as `postern serve` does, and prints its warnings and the number of its listeners, tenants and client
/// keys.
///
/// # Errors
/// All errors of the configuration and, with `--online`, of the servers that it names. Warnings are none.
pub(super) fn run(arguments: &CheckArguments) -> Result<(), CommandError> {
    check_directives(&Environment::from_process())?;
    let path = arguments.file.as_deref().or(arguments.config.as_deref()).ok_or("no configuration file is named")?;
    let loaded = load(path, if arguments.without_secrets { SecretValues::Ignored } else { SecretValues::Required })?;
    let mut report = match &loaded {
        Ok(config) => {
            Report { warnings: config.warnings(Clock::system().wall()).cloned().collect(), ..Report::default() }
        }
        Err(error) => Report { errors: error.findings().to_vec(), ..Report::default() },
    };
    if let (Ok(config), true) = (&loaded, arguments.online) {
        report.extend(online::ask(config)?);
    }
    if arguments.format == OutputFormat::Json {
        print(serde_json::to_string_pretty(&report.to_json())?)?;
        return if report.errors.is_empty() { Ok(()) } else { Err("the configuration has errors".into()) };
    }
    for warning in &report.warnings {
        print(format_args!("warning: {warning}"))?;
    }
    for good in &report.good {
        print(format_args!("online: {good}"))?;
    }
    let (Ok(config), true) = (&loaded, report.errors.is_empty()) else {
        return Err(report.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").into());
    };
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    print(format_args!(
        "{}: valid; listeners {}, tenants {}, client keys {keys}",
        name_of(path).display(),
        config.listeners.len(),
        config.tenants.len()
    ))
}

/// All that was found.
#[derive(Default)]
struct Report {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// The confirmations of the servers.
    good: Vec<String>,
}

impl Report {
    fn extend(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Good(text) => self.good.push(text),
                Outcome::Doubtful(finding) => self.warnings.push(finding),
                Outcome::Bad(finding) => self.errors.push(finding),
            }
        }
    }

    fn to_json(&self) -> Value {
        let errors = self.errors.iter().map(|error| as_json("error", error));
        let warnings = self.warnings.iter().map(|warning| as_json("warning", warning));
        json!({ "findings": errors.chain(warnings).collect::<Vec<Value>>() })
    }
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
