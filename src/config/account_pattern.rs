//! Patterns of linked accounts, and the access that a credential has to them.

use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::schema_as::schema_as;
use super::text::string_setting;

/// One linked account, or all whose ids begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountPattern {
    /// Exactly this id; case-sensitive.
    Exact(Box<str>),
    /// `prefix*`: every id that begins with the prefix; `*` alone is every id.
    Prefix(Box<str>),
}

/// A list of patterns that is not empty.
pub(super) struct AccountPatterns;

/// The requests that a credential allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Access {
    /// Read executions.
    #[default]
    #[serde(rename = "read")]
    Read,
    /// Read, stop and rerun executions.
    #[serde(rename = "read+write")]
    ReadWrite,
}

impl AccountPattern {
    /// Returns true if the pattern covers an id. Ids are opaque and compared byte by byte.
    #[must_use]
    pub fn matches(&self, linked_account_id: &str) -> bool {
        match self {
            Self::Exact(id) => **id == *linked_account_id,
            Self::Prefix(prefix) => linked_account_id.starts_with(&**prefix),
        }
    }

    /// Returns true if the pattern covers every id.
    #[must_use]
    pub fn covers_every_account(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }

    /// Reads a pattern as it is written in the file.
    ///
    /// # Errors
    /// If it is empty, or has a `*` before its end.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.strip_suffix('*') {
            None if text.is_empty() => Err("a linked account's id can't be empty"),
            None if !text.contains('*') => Ok(Self::Exact(text.into())),
            Some(prefix) if !prefix.contains('*') => Ok(Self::Prefix(prefix.into())),
            _ => Err("a `*` is only allowed at the end of a pattern"),
        }
    }

    /// The pattern of every account.
    pub(super) fn every() -> Vec<Self> {
        vec![Self::Prefix("".into())]
    }
}

/// Writes the pattern as it is written in the file.
impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => f.write_str(id),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl AccountPatterns {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AccountPattern>, D::Error> {
        let patterns = Vec::deserialize(deserializer)?;
        if patterns.is_empty() {
            return Err(de::Error::custom(
                "an empty list allows no linked account; name one, or write [\"*\"] for all",
            ));
        }
        Ok(patterns)
    }

    pub(super) fn serialize<S: Serializer>(patterns: &[AccountPattern], serializer: S) -> Result<S::Ok, S::Error> {
        patterns.serialize(serializer)
    }
}

string_setting!(AccountPattern, "^[^*]*[*]?$");
schema_as!(AccountPatterns, { "type": "array", "items": { "type": "string" }, "minItems": 1 });
