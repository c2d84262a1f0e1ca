//! Overrides of settings by the environment: `POSTERN_UPSTREAM_BASE_URL` stands for `base_url` in `[upstream]`.
//!
//! Every setting of the JSON Schema that is reached through tables alone can be overridden; an array as a whole. A variable
//! that the file, or an override such as `POSTERN_ADMIN_TOKEN_ENV`, names as a secret's source is no override, and
//! neither is one that Kubernetes sets for a Service (`service_variables.rs`).

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::de::DeValue;

use super::diagnostic::Finding;
use super::environment::{Environment, NOT_UTF8};
use super::schema::schema_value;
use super::service_variables::is_service_variable;
use super::tree::{Override, Tree};
use crate::log_events;
use crate::suggest::suggest;

const PREFIX: &str = "POSTERN_";
/// Variables that other parts of the program read.
const RESERVED: [&str; 2] = ["POSTERN_CONFIG", "POSTERN_LOG"];

/// A setting that can be overridden.
struct Overridable {
    path: Vec<String>,
    /// Its value is a string and nothing else.
    is_text: bool,
}

/// Merges the overrides of an environment into a file's tree; returns the variables with the prefix that can't be used or stand
/// for no setting.
pub(super) fn apply<'t>(tree: &mut Tree<'t>, environment: &'t Environment) -> Vec<Finding> {
    let mut secrets = secret_variables(tree.root());
    let named_by_override = environment.with_prefix(PREFIX).filter(|(name, _)| name.ends_with("_ENV"));
    secrets.extend(named_by_override.map(|(_, secret)| secret.to_owned()));
    let ours = |name: &&str| !RESERVED.contains(name) && !secrets.iter().any(|secret| secret == name);
    let unreadable = environment.unreadable_with_prefix(PREFIX).filter(ours);
    let mut findings: Vec<Finding> = unreadable.map(|name| Finding::variable(name, NOT_UTF8)).collect();
    let mut variables = environment.with_prefix(PREFIX).filter(|(name, _)| ours(name)).peekable();
    if variables.peek().is_none() {
        return findings;
    }
    let mut settings = BTreeMap::new();
    collect_settings(&schema_value(), &[], &mut settings);
    for (variable, text) in variables {
        match settings.get(variable) {
            Some(_) if text.contains(['\n', '\r']) => {
                findings.push(Finding::variable(variable, "the value has a line break; write it on one line"));
            }
            Some(setting) => {
                tree.set(&setting.path, read_value(text, setting.is_text), Override { variable, text });
            }
            None if is_service_variable(variable, text, environment) => {
                tracing::debug!(variable, message = log_events::SERVICE_VARIABLE_IGNORED);
            }
            None => {
                let suggestion = suggest(variable, settings.keys().map(String::as_str));
                let suggestion = suggestion.map_or(String::new(), |name| format!("; did you mean {name}?"));
                findings.push(Finding::variable(variable, format!("there is no such setting{suggestion}")));
            }
        }
    }
    findings
}

/// Reads a variable's value as it would be written in the file, with or without the quotes of a string.
fn read_value(text: &str, is_text: bool) -> DeValue<'_> {
    match DeValue::parse(text).map(toml::Spanned::into_inner) {
        Ok(value) if value.is_str() || !is_text => value,
        _ => DeValue::String(text.into()),
    }
}

/// Collects the settings below a table of the schema by the names of their variables.
fn collect_settings(table: &Json, path: &[String], settings: &mut BTreeMap<String, Overridable>) {
    for (name, schema) in table["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(name)].concat();
        if schema["properties"].is_object() {
            collect_settings(schema, &path, settings);
        } else {
            let variable = format!("{PREFIX}{}", path.join("_").to_uppercase());
            settings.insert(variable, Overridable { path, is_text: schema["type"] == "string" });
        }
    }
}

/// The variables that a file's `{ env = "…" }` tables name.
fn secret_variables(root: &DeValue<'_>) -> Vec<String> {
    fn collect(value: &DeValue<'_>, names: &mut Vec<String>) {
        match value {
            DeValue::Table(table) => {
                names.extend(table.get("env").and_then(|name| name.get_ref().as_str()).map(str::to_owned));
                table.values().for_each(|value| collect(value.get_ref(), names));
            }
            DeValue::Array(items) => items.iter().for_each(|item| collect(item.get_ref(), names)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    collect(root, &mut names);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_variable_of_its_own() {
        fn leaves(table: &Json) -> usize {
            let below = |schema: &Json| if schema["properties"].is_object() { leaves(schema) } else { 1 };
            table["properties"].as_object().into_iter().flatten().map(|(_, schema)| below(schema)).sum()
        }
        let schema = schema_value();
        let mut settings = BTreeMap::new();
        collect_settings(&schema, &[], &mut settings);
        assert_eq!(settings.len(), leaves(&schema));
        assert!(settings.contains_key("POSTERN_UPSTREAM_BREAKER_OPEN_FOR"));
    }
}
