//! File and environment to a validated [`Config`]: the only place that reads either.

mod diagnostic;
mod environment;
mod file;
mod issuer;
mod listener;
mod model;
mod observe;
mod pass_through;
mod secret;
mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use diagnostic::ConfigError;
use diagnostic::Finding;
pub use environment::Environment;
use file::{File, SecretSource};
pub use model::*;
pub use observe::{Log, Requests, Shown, Traces};
pub use secret::Secret;

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it can't be read, or for the first thing in it that can't be used.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse(&text, path, environment)
    }

    /// Reads the text of a configuration file; `path` names it in errors, and its folder is where relative paths in it
    /// begin.
    ///
    /// # Errors
    /// For the first thing in it that can't be used.
    pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let refused = |finding| ConfigError::new(path, text, finding);
        let mut file: File = toml::from_str(text).map_err(|error| refused(Finding::of_parser(&error)))?;
        let written = file.tenants.iter().map(|tenant| &tenant.org_key);
        let written = written.chain(file.tenants.iter().filter_map(|tenant| tenant.org_key_next.as_ref()));
        let written = written.chain(file.issuers.iter().filter_map(|issuer| issuer.keys.get_ref().secret.as_ref()));
        let written = written.chain(file.traces.headers.values());
        let secrets: Vec<String> = written
            .filter_map(|source| match source.get_ref() {
                SecretSource::Variable(name) => Some(name.clone()),
                SecretSource::File(_) => None,
            })
            .collect();
        environment.apply(&mut file, &secrets.iter().map(String::as_str).collect::<Vec<_>>())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        validate::validate(&file, folder, environment).map_err(refused)
    }
}
