//! Settings that are written as one string.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};

/// Reads a string and parses it. Parsing runs inside the visitor, so that its error gets the position of the string itself
/// even in an array.
pub(super) fn parse_string<'de, D, T, E>(deserializer: D, parse: fn(&str) -> Result<T, E>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    deserializer.deserialize_str(StringVisitor { parse })
}

struct StringVisitor<T, E> {
    parse: fn(&str) -> Result<T, E>,
}

impl<T, E: fmt::Display> Visitor<'_> for StringVisitor<T, E> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<R: de::Error>(self, text: &str) -> Result<T, R> {
        (self.parse)(text).map_err(R::custom)
    }
}

/// Gives a type its form as one string: `parse` reads it, `Display` writes it, and the schema has the pattern.
macro_rules! string_setting {
    ($type:ty, $pattern:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::config::text::parse_string(deserializer, Self::parse)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        crate::config::schema_as::schema_as!($type, { "type": "string", "pattern": $pattern });
    };
}
pub(super) use string_setting;
