//! The JSON Schema of the configuration file, generated from the types that read it: for editors, and as the list of all settings.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::root::Config;

/// The JSON Schema of the configuration file, as it is committed in `config/`.
#[must_use]
pub fn schema() -> String {
    format!("{:#}", schema_value())
}

/// The JSON Schema of the configuration file: draft 7, which every editor knows, with a description for every setting.
pub(super) fn schema_value() -> Value {
    // Draft 7 lets editors ignore a description beside a reference.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(as_toml)).with_transform(RecursiveTransform(as_prose));
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// Removes null, which TOML does not have: an optional setting is left out.
fn as_toml(schema: &mut Schema) {
    let null = Value::from("null");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| *name != null);
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != null);
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (keyword, value) in only {
                // The description of the setting goes before that of its type.
                if schema.get(&keyword).is_none() {
                    schema.insert(keyword, value);
                }
            }
        }
    }
    // A table needs no default, since its settings have theirs; a list needs none if it is empty by default.
    let is_implied = |default: &Value| match default {
        Value::Array(items) => items.is_empty(),
        default => default.is_null() || default.is_object(),
    };
    if schema.get("default").is_some_and(is_implied) {
        schema.remove("default");
    }
}

/// Joins the lines of a description.
fn as_prose(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_up_to_date() {
        let committed = include_str!("../../config/postern.schema.json");
        assert!(committed.trim_end() == schema(), "run `postern schema > config/postern.schema.json`");
    }

    #[test]
    fn every_setting_is_described_and_unknown_keys_are_refused() {
        let schema = serde_json::from_str(&schema()).expect("JSON");
        let tables = visit(&schema, "");
        assert!(tables > 20, "{tables} tables");
    }

    /// Checks every table below a value, and counts them.
    fn visit(value: &Value, path: &str) -> usize {
        match value {
            Value::Object(members) => {
                // A table with free names has no properties.
                let settings = members.get("properties").and_then(Value::as_object);
                let here = usize::from(settings.is_some());
                for (name, setting) in settings.into_iter().flatten() {
                    assert_eq!(members["additionalProperties"], false, "{path}");
                    assert!(setting["description"].is_string(), "{path}/{name} has no description");
                }
                here + members.iter().map(|(name, value)| visit(value, &format!("{path}/{name}"))).sum::<usize>()
            }
            Value::Array(items) => items.iter().map(|item| visit(item, path)).sum(),
            // TOML has no null.
            Value::Null => panic!("null at {path}"),
            _ => 0,
        }
    }
}
