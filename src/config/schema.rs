//! The JSON Schema of the configuration file, for editors: from the very types that read it.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::file::File;

/// The schema of a type whose reading is written by hand.
macro_rules! by_hand {
    ($type:ty, $schema:tt) => {
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}
pub(super) use by_hand;

/// The JSON Schema of the configuration file, as it is committed in `config/`: draft 7, which every editor knows.
#[must_use]
pub fn schema() -> String {
    // A description beside a reference is one that draft 7 lets editors ignore.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(as_toml)).with_transform(RecursiveTransform(as_prose));
    format!("{:#}", settings.into_generator().into_root_schema_for::<File>().as_value())
}

/// TOML has no null: what may be left out is left out.
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
                // The setting's own description says more than that of its type.
                if schema.get(&keyword).is_none() {
                    schema.insert(keyword, value);
                }
            }
        }
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
}

/// A description is one paragraph, however the comment was broken into lines.
fn as_prose(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_one_of_the_types() {
        let committed = include_str!("../../config/postern.schema.json");
        assert!(committed.trim_end() == schema(), "run `postern schema > config/postern.schema.json`");
    }

    #[test]
    fn every_setting_is_described_and_unknown_keys_are_refused() {
        let schema = serde_json::from_str(&schema()).expect("JSON");
        let tables = visit(&schema, "");
        assert!(tables > 20, "{tables} tables");
    }

    /// Looks at every table below; tells how many there were.
    fn visit(value: &Value, path: &str) -> usize {
        match value {
            Value::Object(members) => {
                // A table whose keys are the operator's own has no properties.
                let settings = members.get("properties").and_then(Value::as_object);
                let here = usize::from(settings.is_some());
                for (name, setting) in settings.into_iter().flatten() {
                    assert_eq!(members["additionalProperties"], false, "{path}");
                    assert!(setting["description"].is_string(), "{path}/{name} has no description");
                }
                here + members.iter().map(|(name, value)| visit(value, &format!("{path}/{name}"))).sum::<usize>()
            }
            Value::Array(items) => items.iter().map(|item| visit(item, path)).sum(),
            // Neither is there in TOML.
            Value::Null => panic!("null at {path}"),
            _ => 0,
        }
    }
}
