//! `postern check`: says whether a configuration file would be served, and points at what is wrong in it.

use std::path::Path;
use std::sync::Arc;

use super::{Failure, print};
use crate::config::{Config, Environment, Tenant};

/// What the examples have in the place of a client key's SHA-256.
const PLACEHOLDER: [u8; 32] = [0; 32];

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path, &Environment::from_process())?;
    let of = |tenant: &Arc<Tenant>| tenant.client_keys.iter().any(|key| key.sha256 == PLACEHOLDER);
    if let Some(tenant) = config.tenants.iter().find(|tenant| of(tenant)) {
        let why = "nobody has the key that its sha256 is of; put in what `postern keygen` prints";
        return Err(format!("{}: a client key of tenant `{}` is an example: {why}", path.display(), tenant.id).into());
    }
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    print(format_args!(
        "{}: good; listeners {}, tenants {}, client keys {keys}",
        path.display(),
        config.listeners.len(),
        config.tenants.len()
    ));
    Ok(())
}
