//! `postern keygen`: a client key, shown once, and the configuration lines for it, which hold only its hash.

use aws_lc_rs::rand;

use super::{Failure, print};
use crate::digest::{Hex, sha256};

/// Tells a key of Postern's from one of Refold's (`pk`, `tk`) at a glance, and to secret scanners.
const PREFIX: &str = "pst_";
/// 192 bits: nobody guesses them.
const RANDOM_BYTES: usize = 24;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Its name in logs.
    #[arg(long, value_name = "NAME", default_value = "my-app")]
    name: String,
    /// A linked account it may see, or a prefix and `*`; can be given more than once.
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    linked_account: Vec<String>,
    /// May also stop and rerun executions.
    #[arg(long)]
    write: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let key = ClientKey::generate()?;
    let patterns: Vec<String> = arguments.linked_account.iter().map(|pattern| quoted(pattern)).collect();
    print(format_args!("# The key, shown this once; give it to the client:\n#   {}", key.key));
    print("# For the configuration file, below its [[tenants]]:");
    print("[[tenants.client_keys]]");
    print(format_args!("name = {}", quoted(&arguments.name)));
    print(format_args!("sha256 = \"{}\"", key.sha256));
    print(format_args!("linked_accounts = [{}]", patterns.join(", ")));
    print(format_args!("access = \"{}\"", if arguments.write { "read+write" } else { "read" }));
    Ok(())
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A client key and its hash in hex.
pub(super) struct ClientKey {
    pub(super) key: String,
    pub(super) sha256: String,
}

impl ClientKey {
    pub(super) fn generate() -> Result<Self, Failure> {
        let mut random = [0; RANDOM_BYTES];
        rand::fill(&mut random).map_err(|_| "the system gives no randomness")?;
        let key = format!("{PREFIX}{}", Hex(&random));
        let sha256 = Hex(&sha256(key.as_bytes())).to_string();
        Ok(Self { key, sha256 })
    }
}
