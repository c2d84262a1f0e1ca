//! `[cache]`: the cache that all tenants share, and the lifetime of its entries.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema_as::schema_as;
use super::units::{AnyDuration, ByteSize};

/// The cache that all tenants share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Limit for keys, headers and bodies of all tenants together; 0 turns caching off.
    pub capacity: ByteSize,
    /// Store no answer that Refold marks as no-store.
    pub honour_no_store: bool,
    /// Identical requests at the same time share one fetch.
    pub collapse: bool,
    /// Answers that follow from cached pages are derived from them instead of fetched.
    pub derive: Derive,
    /// Freshness lifetime of answers, by their content.
    pub freshness: Freshness,
    /// Use of answers after their freshness lifetime.
    pub stale: Stale,
}

/// The condition under which answers are derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derive {
    /// In the ways that have agreed with Refold's own answers, for as long as they do.
    Verified,
    /// In all ways that follow from the documentation.
    Trusted,
    /// Never.
    Off,
}

impl Derive {
    fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Trusted => "trusted",
            Self::Off => "off",
        }
    }
}

/// A boolean, the form of earlier versions, is refused with the names that replace it.
impl<'de> Deserialize<'de> for Derive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DeriveVisitor;
        impl Visitor<'_> for DeriveVisitor {
            type Value = Derive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"verified\", \"trusted\" or \"off\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Derive, E> {
                // A variable's value is read as a text.
                if let Ok(was_on) = text.parse() {
                    return self.visit_bool(was_on);
                }
                let all = [Derive::Verified, Derive::Trusted, Derive::Off];
                let known = all.into_iter().find(|derive| derive.name() == text);
                known.ok_or_else(|| E::unknown_variant(text, &["verified", "trusted", "off"]))
            }

            fn visit_bool<E: de::Error>(self, was_on: bool) -> Result<Derive, E> {
                Err(E::custom(if was_on {
                    "`true` is now written \"verified\" (answers are derived where they have agreed with Refold's own) or \
                     \"trusted\" (always, as before)"
                } else {
                    "`false` is now written \"off\""
                }))
            }
        }
        deserializer.deserialize_any(DeriveVisitor)
    }
}

impl Serialize for Derive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

schema_as!(Derive, { "type": "string", "enum": ["verified", "trusted", "off"] });

/// The freshness lifetime of answers, by their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Freshness {
    /// Some execution in it still runs.
    #[serde(with = "AnyDuration")]
    pub live: Duration,
    /// All executions in it have ended, but more can come.
    #[serde(with = "AnyDuration")]
    pub recent: Duration,
    /// Its end_date is more than a day ago, all executions in it have ended, and it does not filter by status.
    #[serde(with = "AnyDuration")]
    pub closed: Duration,
}

/// Use of answers after their freshness lifetime (RFC 5861).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stale {
    /// Time for which they are served while they are fetched again in the background.
    #[serde(with = "AnyDuration")]
    pub while_revalidate: Duration,
    /// Time for which they are served if Refold can't be reached, fails, or its budget is spent.
    #[serde(with = "AnyDuration")]
    pub if_error: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            capacity: ByteSize::from_bytes(256 << 20),
            honour_no_store: true,
            collapse: true,
            derive: Derive::Verified,
            freshness: Freshness::default(),
            stale: Stale::default(),
        }
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self { live: Duration::from_secs(2), recent: Duration::from_secs(5), closed: Duration::from_mins(10) }
    }
}

impl Default for Stale {
    fn default() -> Self {
        Self { while_revalidate: Duration::from_secs(30), if_error: Duration::from_hours(1) }
    }
}
