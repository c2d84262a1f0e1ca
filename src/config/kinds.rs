//! Values of another kind than their settings: a text where a number belongs, one table where there can be several.
//!
//! The kinds are those of the JSON Schema, so that the message can say what to write. Everything else about a value is checked where
//! it is deserialised.

use std::ops::Range;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::DeValue;

use super::units::parse_duration;

/// A value of the wrong kind.
#[derive(Debug, PartialEq)]
pub(super) struct WrongKind {
    /// The span of the value in the tree.
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

/// Finds the values below a table that are of another kind than the schema has.
pub(super) fn wrong_kinds(root: &DeValue<'_>, schema: &Json) -> Vec<WrongKind> {
    let mut found = Vec::new();
    visit_table("", root, schema, &mut found);
    found
}

fn visit_table(name: &str, table: &DeValue<'_>, schema: &Json, found: &mut Vec<WrongKind>) {
    let DeValue::Table(entries) = table else { return };
    for (key, value) in entries {
        let key = key.get_ref();
        let below = schema["properties"].get(&**key).unwrap_or(&schema["additionalProperties"]);
        let name = if name.is_empty() { key.to_string() } else { format!("{name}.{key}") };
        visit(&Setting { name: &name, schema: below, is_item: false }, value, found);
    }
}

fn visit(setting: &Setting<'_>, value: &Spanned<DeValue<'_>>, found: &mut Vec<WrongKind>) {
    match (value.get_ref(), setting.schema["type"].as_str()) {
        (table @ DeValue::Table(_), Some("object")) => visit_table(setting.name, table, setting.schema, found),
        (DeValue::Array(items), Some("array")) => {
            let item = Setting { schema: &setting.schema["items"], is_item: true, ..*setting };
            items.iter().for_each(|value| visit(&item, value, found));
        }
        (other, _) => {
            let wrong = setting.refuse(other).map(|message| WrongKind { span: value.span(), message });
            found.extend(wrong.filter(|wrong| !found.contains(wrong)));
        }
    }
}

/// A setting, or an item of a list.
#[derive(Clone, Copy)]
struct Setting<'a> {
    /// The names from the root, joined by dots.
    name: &'a str,
    schema: &'a Json,
    is_item: bool,
}

impl Setting<'_> {
    /// The message for a value that is not of the setting's kind; `None` if it is, or if its deserialisation says more.
    fn refuse(&self, value: &DeValue<'_>) -> Option<String> {
        // A literal in place of a secret's source has a message of its own.
        if self.schema["writeOnly"] == true && self.schema["type"] == "object" {
            return None;
        }
        match &self.schema["type"] {
            Json::String(kind) => match kind.as_str() {
                "object" => Some(self.refuse_as_table(value)),
                "array" => Some(self.refuse_as_list(value)),
                "string" => self.refuse_as_text(value),
                "integer" => self.refuse_as_whole_number(value),
                "number" => refuse_as_number(value, "a number"),
                "boolean" => refuse_as_boolean(value),
                _ => None,
            },
            Json::Array(_) => match value {
                DeValue::String(_) | DeValue::Integer(_) => None,
                _ => Some("this is a size; write a whole number and KiB, MiB or GiB, like `\"16MiB\"`".to_owned()),
            },
            _ if self.schema["oneOf"].is_array() => self.refuse_as_text(value),
            _ => None,
        }
    }

    fn refuse_as_table(&self, value: &DeValue<'_>) -> String {
        let name = self.name;
        match value {
            _ if self.is_item => format!("each item is a table; write `[[{name}]]` and the settings below it"),
            DeValue::Array(_) => format!("there is only one of these tables; write `[{name}]`"),
            _ => format!("this is a table; write `[{name}]` and the settings below it"),
        }
    }

    fn refuse_as_list(&self, value: &DeValue<'_>) -> String {
        let (name, items) = (self.name, &self.schema["items"]["type"]);
        match (value, literal(value)) {
            (DeValue::Table(_), _) if items == "object" => {
                format!("there can be several of these tables; write `[[{name}]]`")
            }
            _ if items == "object" => format!("this is a list of tables; write `[[{name}]]` and the settings below it"),
            (DeValue::String(_), Some(text)) => format!("this is a list; write `[{text}]`"),
            (_, Some(number)) => format!("this is a list; write `[\"{number}\"]`"),
            _ => "this is a list, not a table".to_owned(),
        }
    }

    fn refuse_as_text(&self, value: &DeValue<'_>) -> Option<String> {
        let choices = self.choices();
        let is_duration = self.schema["pattern"].as_str().is_some_and(|pattern| pattern.contains("(ms|s|m|h)"));
        match (value, literal(value)) {
            // TOML's own dates.
            (DeValue::String(_) | DeValue::Datetime(_), _) => None,
            (DeValue::Array(items), _) => Some(match items.iter().next().map(|item| (item.get_ref(), items.len())) {
                Some((DeValue::String(only), 1)) => format!("this is one text, not a list; write `{}`", quoted(only)),
                _ => "this is one text, not a list".to_owned(),
            }),
            // Older spellings have messages of their own.
            (DeValue::Boolean(_), _) if !self.schema["enum"].is_null() => None,
            _ if !choices.is_empty() => Some(format!("this is one of {}", choices.join(", "))),
            (DeValue::Integer(number), Some(_)) if is_duration => {
                Some(format!("a duration has a unit; write `\"{number}s\"`, or ms, m or h"))
            }
            (_, Some(literal)) if self.schema["pattern"].is_null() && self.schema["enum"].is_null() => {
                Some(format!("this is a text; write `\"{literal}\"`"))
            }
            _ => Some(self.with_description("this is a text in quotes")),
        }
    }

    fn refuse_as_whole_number(&self, value: &DeValue<'_>) -> Option<String> {
        let DeValue::Integer(number) = value else { return refuse_as_number(value, "a whole number") };
        let number = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let (minimum, maximum) = (self.schema["minimum"].as_i64().unwrap_or(0), self.schema["maximum"].as_i64());
        // The range of its type, if the schema has one; narrower limits have checks of their own.
        let (smallest, largest) = match self.schema["format"].as_str() {
            Some("uint8") => (0, u8::MAX.into()),
            Some("uint16") => (0, u16::MAX.into()),
            Some("uint32") => (0, u32::MAX.into()),
            Some(_) => (0, i64::MAX),
            None => (minimum, maximum.unwrap_or(i64::MAX)),
        };
        if number.is_some_and(|number| (i128::from(smallest)..=i128::from(largest)).contains(&number)) {
            return None;
        }
        // The message has the limits that the checks will apply.
        let most = match maximum.map_or(largest, |most| most.min(largest)) {
            i64::MAX => String::new(),
            most => format!(" to {most}"),
        };
        let number = number.map_or("this".to_owned(), |number| number.to_string());
        Some(format!("{number} is not a whole number from {}{most}", minimum.max(smallest)))
    }

    /// The texts of which the setting is one, in quotes; empty if it can be any text.
    fn choices(&self) -> Vec<String> {
        let named = self.schema["oneOf"].as_array().into_iter().flatten().map(|choice| &choice["const"]);
        let listed = self.schema["enum"].as_array().into_iter().flatten();
        named.chain(listed).filter_map(Json::as_str).map(quoted).collect()
    }

    /// A message with the description of the setting, which says what its value is.
    fn with_description(&self, message: &str) -> String {
        match self.schema["description"].as_str().and_then(|text| text.split(". ").next()) {
            Some(description) => format!("{message} ({})", description.trim_end_matches('.')),
            None => message.to_owned(),
        }
    }
}

fn refuse_as_number(value: &DeValue<'_>, kind: &str) -> Option<String> {
    match value {
        DeValue::Integer(_) => None,
        DeValue::Float(_) if kind == "a number" => None,
        DeValue::String(text) if text.parse::<f64>().is_ok() => Some(format!("this is {kind}; write `{text}`")),
        DeValue::String(text) if parse_duration(text).is_some() => Some(format!("this is {kind}, not a duration")),
        DeValue::String(_) => Some(format!("this is {kind}, not a text")),
        DeValue::Array(_) => Some(format!("this is {kind}, not a list")),
        _ => Some(format!("this is {kind}")),
    }
}

fn refuse_as_boolean(value: &DeValue<'_>) -> Option<String> {
    let text = match value {
        DeValue::Boolean(_) => return None,
        DeValue::String(text) => text.to_lowercase(),
        other => literal(other).unwrap_or_default(),
    };
    Some(match text.as_str() {
        "true" | "yes" | "on" | "1" => "write `true`".to_owned(),
        "false" | "no" | "off" | "0" => "write `false`".to_owned(),
        _ => "this is `true` or `false`".to_owned(),
    })
}

/// A value as it is written in a file, if it is no list and no table.
fn literal(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(quoted(text)),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
