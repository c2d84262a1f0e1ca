//! Settings that are parsed from a string.

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
