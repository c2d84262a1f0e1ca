//! `postern check`: validates a configuration file and reports the position of an error.

use std::path::PathBuf;
use std::sync::Arc;

use super::output::{CommandError, print};
use crate::config::{Config, Environment, TenantConfig};

/// The SHA-256 of the client keys in the example configurations.
const PLACEHOLDER: [u8; 32] = [0; 32];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postern check postern.toml")]
pub(super) struct CheckArguments {
    /// Configuration file (TOML).
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Configuration file, if it is not the argument.
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: Option<PathBuf>,
}

/// Validates the configuration file and prints the number of its listeners, tenants and client keys. An example client
/// key, whose SHA-256 is all zeros, is an error. Names the operations of `[[pass_through]]` that need `scope = "org"`.
pub(super) fn run(arguments: &CheckArguments) -> Result<(), CommandError> {
    let path = arguments.file.as_ref().or(arguments.config.as_ref()).ok_or("no configuration file is named")?;
    let config = Config::load(path, &Environment::from_process())?;
    let has_placeholder = |tenant: &Arc<TenantConfig>| tenant.client_keys.iter().any(|key| key.sha256 == PLACEHOLDER);
    if let Some(tenant) = config.tenants.iter().find(|tenant| has_placeholder(tenant)) {
        let reason = "no key has its sha256; replace it by the output of `postern keygen`";
        return Err(
            format!("{}: a client key of tenant `{}` is an example: {reason}", path.display(), tenant.id).into()
        );
    }
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    print(format_args!(
        "{}: valid; listeners {}, tenants {}, client keys {keys}",
        path.display(),
        config.listeners.len(),
        config.tenants.len()
    ))?;
    for allowed in &config.pass_through {
        for operation in allowed.operations_that_need_org() {
            print(format_args!(
                "pass_through {}: {operation} is not forwarded without `scope = \"org\"`",
                allowed.path
            ))?;
        }
    }
    Ok(())
}
