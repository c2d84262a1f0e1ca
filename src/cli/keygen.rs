//! `postern keygen`: generates a client key, prints it once, and prints the configuration lines for it, which contain only
//! its hash.

use aws_lc_rs::rand;

use super::output::{CommandError, print};
use crate::config::AccountPattern;
use crate::digest::{Hex, sha256};

/// Prefix that distinguishes a client key of Postern from a key of Refold (`pk`, `tk`), also for secret scanners.
const PREFIX: &str = "pst_";
/// Length of the random part in bytes: 192 bits can't be guessed.
const RANDOM_BYTES: usize = 24;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern keygen --name dashboards\n  postern keygen --name support --linked-account 'acme-*' --write"
)]
pub(super) struct KeygenArguments {
    /// Name of the key in logs.
    #[arg(long, value_name = "NAME", default_value = "my-app", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// Linked account that the key may read, or a prefix followed by `*`; can be repeated.
    #[arg(long, value_name = "PATTERN", default_value = "*", value_parser = AccountPattern::parse)]
    linked_account: Vec<AccountPattern>,
    /// Let the key stop and rerun executions, too.
    #[arg(long)]
    write: bool,
    /// Print the key and nothing else, for scripts. The configuration needs its SHA-256.
    #[arg(long, conflicts_with_all = ["name", "linked_account", "write"])]
    raw: bool,
}

pub(super) fn run(arguments: &KeygenArguments) -> Result<(), CommandError> {
    let key = GeneratedKey::generate()?;
    if arguments.raw {
        return print(&key.key);
    }
    let patterns: Vec<String> =
        arguments.linked_account.iter().map(|pattern| toml_string(&pattern.to_string())).collect();
    print(format_args!("# The client key; it is not shown again:\n#   {}", key.key))?;
    print("# For the configuration file, below its [[tenants]]:")?;
    print("[[tenants.client_keys]]")?;
    print(format_args!("name = {}", toml_string(&arguments.name)))?;
    print(format_args!("sha256 = \"{}\"", key.sha256))?;
    print(format_args!("linked_accounts = [{}]", patterns.join(", ")))?;
    print(format_args!("access = \"{}\"", if arguments.write { "read+write" } else { "read" }))
}

/// Returns the text as a TOML basic string.
fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A new client key, and its SHA-256 in hexadecimal digits.
pub(super) struct GeneratedKey {
    pub(super) key: String,
    pub(super) sha256: String,
}

impl GeneratedKey {
    pub(super) fn generate() -> Result<Self, CommandError> {
        let mut random = [0; RANDOM_BYTES];
        rand::fill(&mut random).map_err(|_| "the system's random number generator failed")?;
        let key = format!("{PREFIX}{}", Hex(&random));
        let sha256 = Hex(&sha256(key.as_bytes())).to_string();
        Ok(Self { key, sha256 })
    }
}
