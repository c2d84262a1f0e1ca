//! `[cache]`: the cache that all tenants share, and the lifetime of its entries.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Derive answers from cached pages, instead of fetching them, where they follow with certainty.
    pub derive: bool,
    /// Freshness lifetime of answers, by their content.
    pub freshness: Freshness,
    /// Use of answers after their freshness lifetime.
    pub stale: Stale,
}

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
            derive: true,
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
