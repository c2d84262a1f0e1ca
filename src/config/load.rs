//! Reading of a configuration: parse the file, merge overrides, deserialise, check. The only place that does so.
//!
//! All that is wrong is reported at once: what can't be deserialised is taken out of the tree, and the rest is read again.

use std::path::Path;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::diagnostic::{ConfigError, Finding, Source};
use super::diff::{Changes, WrittenConfig};
use super::environment::Environment;
use super::files::FileReader;
use super::kinds::{WrongKind, wrong_kinds};
use super::mask::PlainNames;
use super::named_server::NamedServer;
use super::named_servers::named_servers;
use super::overrides;
use super::remarks::remarks;
use super::resolver::{Resolver, SecretValues};
use super::root::Config;
use super::schema::schema_value;
use super::setting_path::{Findings, InvalidSetting};
use super::tenant::inherit_common_settings;
use super::tree::{SettingOrigin, Tree};

/// Most values that are taken out of a file before the rest is given up.
const MAX_REMOVED: usize = 50;

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it can't be read, or if settings can't be used.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        Self::load_with(path, environment, SecretValues::Required)
    }

    /// Reads a configuration file, with or without the values of its secrets.
    ///
    /// # Errors
    /// If it can't be read, or if settings can't be used.
    pub fn load_with(path: &Path, environment: &Environment, secrets: SecretValues) -> Result<Self, ConfigError> {
        let reader = FileReader::new(path);
        let text = reader.read_text(path).map_err(|error| Finding::unreadable(path, &error))?;
        parse(path, &text, &Resolver::new(environment, &reader, secrets))
    }

    /// Reads the text of a configuration file; `path` names it in errors, and relative paths in it start at its folder.
    ///
    /// # Errors
    /// If settings can't be used.
    pub fn parse(text: &str, path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        Self::parse_with(text, path, environment, SecretValues::Required)
    }

    /// Reads the text of a configuration file, with or without the values of its secrets.
    ///
    /// # Errors
    /// If settings can't be used.
    pub fn parse_with(
        text: &str,
        path: &Path,
        environment: &Environment,
        secrets: SecretValues,
    ) -> Result<Self, ConfigError> {
        parse(path, text, &Resolver::new(environment, &FileReader::new(path), secrets))
    }

    /// The settings that differ from an older configuration.
    #[must_use]
    pub fn changes_since(&self, older: &Self) -> Changes {
        self.written.changes_since(&older.written, &schema_value())
    }

    /// The servers that the settings name, in the order of the tables.
    #[must_use]
    pub fn servers(&self) -> &[NamedServer] {
        &self.servers
    }

    /// Settings that are valid, and at `now` probably not what is meant.
    pub fn warnings(&self, now: Timestamp) -> impl Iterator<Item = &Finding> {
        self.remarks.iter().filter(move |(from, _)| from.is_none_or(|from| from <= now)).map(|(_, finding)| finding)
    }
}

/// Reads a configuration file with a reader that records the files it reads.
pub(super) fn read(path: &Path, environment: &Environment, reader: &FileReader) -> Result<Config, ConfigError> {
    let text = reader.read_text(path).map_err(|error| Finding::unreadable(path, &error))?;
    parse(path, &text, &Resolver::new(environment, reader, SecretValues::Required))
}

fn parse(path: &Path, text: &str, resolver: &Resolver<'_>) -> Result<Config, ConfigError> {
    let schema = schema_value();
    let source = Source { path, text, plain: &PlainNames::of_schema(&schema) };
    let mut tree = Tree::parse(text).map_err(|error| {
        let origin = error.span().map_or(SettingOrigin::File, SettingOrigin::Text);
        Finding::of_parser(source, origin, &error)
    })?;
    let mut findings = overrides::apply(&mut tree, resolver.environment());
    let written = match tree.read() {
        Ok(written) => written,
        Err(error) => return Err(not_written((source, &schema), &tree, &error, findings)),
    };
    inherit_common_settings(&mut tree);
    let config = read_all((source, &schema), &mut tree, &mut findings);
    in_order(&mut findings);
    let Some(mut config) = config else { return Err(ConfigError(findings)) };
    let mut invalid = Findings::default();
    config.check(resolver, &mut invalid);
    let is_whole = findings.is_empty();
    for invalid in invalid.0.iter().filter(|invalid| is_whole || !invalid.is_absence) {
        findings.push(Finding::of_check(source, tree.origin_of(&invalid.at), invalid));
    }
    if !findings.is_empty() {
        return Err(ConfigError(findings));
    }
    let finding = |invalid: &InvalidSetting| Finding::of_check(source, tree.origin_of(&invalid.at), invalid);
    config.remarks =
        remarks(&config, resolver.environment()).into_iter().map(|(from, remark)| (from, finding(&remark))).collect();
    let servers = named_servers(&config).into_iter();
    config.servers = servers.map(|(at, role)| NamedServer::new(role, finding(&at.refuse("")))).collect();
    // Changes of the configuration file itself are listed setting by setting.
    config.written = WrittenConfig { tree: written, files: resolver.digests().without(path) };
    Ok(config)
}

/// A tree with a number that TOML's integers can't hold: the range of its setting, if it has one, says more than the parser.
fn not_written(
    (source, schema): (Source<'_>, &Json),
    tree: &Tree<'_>,
    error: &toml::de::Error,
    mut findings: Vec<Finding>,
) -> ConfigError {
    let wrong_kinds = wrong_kinds(tree.root(), schema);
    if wrong_kinds.is_empty() {
        findings.push(refused(source, tree, error));
    }
    findings.extend(wrong_kinds.iter().map(|wrong| of_wrong_kind(source, tree, wrong)));
    in_order(&mut findings);
    ConfigError(findings)
}

/// Sorts findings by their lines; tables are read in the order of their names. Within a line the cause stays before its
/// consequences.
fn in_order(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| finding.position().map(|(_, line, _)| line));
}

fn of_wrong_kind(source: Source<'_>, tree: &Tree<'_>, wrong: &WrongKind) -> Finding {
    Finding::of_value(source, tree.origin(Some(wrong.span.clone())), &wrong.message)
}

fn refused(source: Source<'_>, tree: &Tree<'_>, error: &toml::de::Error) -> Finding {
    Finding::of_parser(source, tree.origin(error.span()), error)
}

/// Deserialises the tree without the values that can't be, each of which becomes a finding; `None` if too little is left.
fn read_all((source, schema): (Source<'_>, &Json), tree: &mut Tree<'_>, findings: &mut Vec<Finding>) -> Option<Config> {
    let mut removed = Vec::new();
    for wrong in wrong_kinds(tree.root(), schema) {
        findings.push(of_wrong_kind(source, tree, &wrong));
        removed.extend(tree.remove(&wrong.span));
    }
    for _ in 0..MAX_REMOVED {
        let error = match tree.read() {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let span = error.span();
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        let is_consequence = missing
            .zip(span.clone())
            .is_some_and(|(name, table)| removed.iter().any(|(from, gone)| *from == table && gone == name));
        let finding = refused(source, tree, &error);
        if !is_consequence && !findings.contains(&finding) {
            findings.push(finding);
        }
        let taken = tree.remove(&span?);
        if taken.is_empty() {
            return None;
        }
        removed.extend(taken);
    }
    None
}
