//! File and environment to a validated [`Config`]: the only place that reads either.

mod admin;
mod diagnostic;
mod diff;
mod environment;
mod file;
mod files;
mod issuer;
mod listener;
mod mask;
mod model;
mod observe;
mod pass_through;
mod redacted;
mod schema;
mod secret;
mod source;
mod units;
mod validate;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use admin::Admin;
pub use diagnostic::ConfigError;
use diagnostic::Finding;
pub use diff::{Changes, Written};
pub use environment::Environment;
use file::{File, SecretSource};
pub use files::Files;
use files::Reader;
pub use model::*;
pub use observe::{Log, Requests, Shown, Traces};
pub use schema::schema;
pub use secret::{Provenance, Secret};
pub use source::Source;

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it can't be read, or for the first thing in it that can't be used.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        Self::read(path, environment, &Reader::new(path))
    }

    fn read(path: &Path, environment: &Environment, reader: &Reader) -> Result<Self, ConfigError> {
        let text = reader.read_text(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        Self::parse_with(&text, path, environment, reader)
    }

    /// Reads the text of a configuration file; `path` names it in errors, and its folder is where relative paths in it
    /// begin.
    ///
    /// # Errors
    /// For the first thing in it that can't be used.
    pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        Self::parse_with(text, path, environment, &Reader::new(path))
    }

    fn parse_with(text: &str, path: &Path, environment: &Environment, reader: &Reader) -> Result<Self, ConfigError> {
        let refused = |finding| ConfigError::new(path, text, finding);
        let mut file: File = toml::from_str(text).map_err(|error| refused(Finding::of_parser(&error)))?;
        let written = file.tenants.iter().map(|tenant| &tenant.org_key);
        let written = written.chain(file.tenants.iter().filter_map(|tenant| tenant.org_key_next.as_ref()));
        let written = written.chain(file.issuers.iter().filter_map(|issuer| issuer.keys.get_ref().secret.as_ref()));
        let written = written.chain(&file.admin.token);
        let written = written.chain(file.traces.headers.values());
        let secrets: Vec<String> = written
            .filter_map(|source| match source.get_ref() {
                SecretSource::Variable(name) => Some(name.clone()),
                SecretSource::File(_) => None,
            })
            .collect();
        environment.apply(&mut file, &secrets.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut config = validate::validate(&file, reader, environment).map_err(refused)?;
        let tree = text.parse().map_err(|error| refused(Finding::of_parser(&error)))?;
        // What the file itself changes is told setting by setting.
        config.written = Written { tree, files: reader.files().without(path) };
        Ok(config)
    }
}
