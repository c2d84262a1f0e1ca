//! Reading of a configuration: parse the file, merge overrides, deserialise, check. The only place that does so.

use std::path::Path;

use super::diagnostic::ConfigError;
use super::diff::{Changes, WrittenConfig};
use super::environment::Environment;
use super::files::FileReader;
use super::overrides;
use super::resolver::Resolver;
use super::root::Config;
use super::schema::schema_value;
use super::tenant::inherit_common_settings;
use super::tree::{SettingOrigin, Tree};

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it can't be read, or for the first setting that can't be used.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        read(path, environment, &FileReader::new(path))
    }

    /// Reads the text of a configuration file; `path` names it in errors, and relative paths in it start at its folder.
    ///
    /// # Errors
    /// For the first setting that can't be used.
    pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        parse(text, path, environment, &FileReader::new(path))
    }

    /// The settings that differ from an older configuration.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Changes {
        self.written.changes_since(&older.written, &schema_value())
    }
}

/// Reads a configuration file with a reader that records the files it reads.
pub(super) fn read(path: &Path, environment: &Environment, reader: &FileReader) -> Result<Config, ConfigError> {
    let text = reader.read_text(path).map_err(|error| ConfigError::unreadable(path, &error))?;
    parse(&text, path, environment, reader)
}

fn parse(text: &str, path: &Path, environment: &Environment, reader: &FileReader) -> Result<Config, ConfigError> {
    let mut tree = Tree::parse(text).map_err(|error| {
        let origin = error.span().map_or(SettingOrigin::File, SettingOrigin::Text);
        ConfigError::of_parser(path, text, origin, &error)
    })?;
    overrides::apply(&mut tree, environment)?;
    let refused =
        |tree: &Tree<'_>, error: &toml::de::Error| ConfigError::of_parser(path, text, tree.origin(error.span()), error);
    let written = tree.read().map_err(|error| refused(&tree, &error))?;
    inherit_common_settings(&mut tree);
    let mut config: Config = tree.read().map_err(|error| refused(&tree, &error))?;
    config.check(&Resolver::new(environment, reader)).map_err(|invalid| {
        let origin = tree.origin_of(&invalid.at);
        ConfigError::of_check(path, text, origin, &invalid)
    })?;
    // Changes of the configuration file itself are listed setting by setting.
    config.written = WrittenConfig { tree: written, files: reader.digests().without(path) };
    Ok(config)
}
