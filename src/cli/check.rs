//! `postern check`: says whether a configuration file would be served, and points at what is wrong in it.

use std::path::Path;

use super::{Failure, print};
use crate::config::{Config, Environment};

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path, &Environment::from_process())?;
    let keys: usize = config.tenants.iter().map(|tenant| tenant.client_keys.len()).sum();
    print(format_args!(
        "{}: good; listeners {}, tenants {}, client keys {keys}",
        path.display(),
        config.listeners.len(),
        config.tenants.len()
    ));
    Ok(())
}
