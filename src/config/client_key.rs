//! `[[tenants.client_keys]]`: keys that the gateway accepts from callers.

use std::num::NonZeroU32;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::account_pattern::{Access, AccountPattern, AccountPatterns};
use super::limits::Rate;
use super::schema_as::schema_as;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::parse_string;
use super::units::Count;
use crate::digest::Hex;
use crate::digest::decode_hex;

/// A key that the gateway accepts from callers. The configuration has only its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientKey {
    /// Name of the caller in logs.
    #[schemars(length(min = 1))]
    pub name: Arc<str>,
    /// SHA-256 of the key in hexadecimal.
    #[serde(with = "Sha256")]
    pub sha256: [u8; 32],
    /// Linked accounts that the key gives access to: exact ids, or a prefix and one `*`; `["*"]` for all.
    #[serde(with = "AccountPatterns")]
    pub linked_accounts: Vec<AccountPattern>,
    /// Permission to stop and rerun executions, or only to read them.
    #[serde(default)]
    pub access: Access,
    /// Time from which the key is refused: a date or a date-time with offset.
    #[serde(default, deserialize_with = "Expiry::deserialize")]
    #[schemars(!default, with = "Option<Expiry>")]
    pub expires: Option<Timestamp>,
    /// Requests per second of the key's own budget, beside the linked account's. Goes with burst.
    per_second: Option<Count>,
    /// Requests at once of the key's own budget. Goes with per_second.
    burst: Option<Count>,
}

impl ClientKey {
    /// The key's own budget, beside that of the linked account.
    #[must_use]
    pub fn budget(&self) -> Option<Rate> {
        let number = |count: Option<Count>| -> Option<NonZeroU32> { count.map(|count| count.0) };
        Some(Rate { per_second: number(self.per_second)?, burst: number(self.burst)? })
    }

    /// Returns true for the hash in the example configurations: 64 zeros.
    pub(super) fn is_example(&self) -> bool {
        self.sha256 == [0; 32]
    }

    pub(super) fn check(&self, at: &SettingPath) -> Result<(), InvalidSetting> {
        if self.name.is_empty() {
            return Err(at.key("name").refuse("a client key needs a name: it stands for the caller in logs"));
        }
        if self.is_example() {
            let message =
                "this is the hash of the examples, which no key has; replace it by the output of `postern keygen`";
            return Err(at.key("sha256").refuse(message));
        }
        let lonely = match (&self.per_second, &self.burst) {
            (Some(_), None) => "per_second",
            (None, Some(_)) => "burst",
            _ => return Ok(()),
        };
        Err(at.key(lonely).refuse("`per_second` and `burst` go together"))
    }
}

/// A SHA-256 in hexadecimal, as its bytes.
struct Sha256;

impl Sha256 {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        // The error does not quote the text: it may be the key itself, by mistake.
        parse_string(deserializer, |text| {
            decode_hex::<32>(text.as_bytes()).ok_or("a SHA-256 has 64 hexadecimal digits; `postern keygen` prints one")
        })
    }

    fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Hex(digest))
    }
}

/// A date, which begins at midnight UTC, or a date-time with offset.
struct Expiry;

impl Expiry {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Toml(toml::value::Datetime),
            Text(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Toml(datetime) => datetime.to_string(),
            Form::Text(text) => text,
        };
        let midnight = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
        let found = if text.len() == 10 { text.parse().ok().and_then(midnight) } else { text.parse().ok() };
        found.map(Some).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is no moment; write a date or a date-time with offset, like 2027-01-01T00:00:00Z"
            ))
        })
    }
}

schema_as!(Sha256, { "type": "string", "pattern": "^[0-9A-Fa-f]{64}$", "writeOnly": true });
// Editors hand TOML's own dates to the validator as text.
schema_as!(Expiry, { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}" });
