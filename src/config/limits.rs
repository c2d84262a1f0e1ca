//! `[limits]`: budgets of callers, and of requests to Refold.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{AnyDuration, Count, non_zero};

/// Budgets of callers, and of requests to Refold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Budget of each linked account or session token; cache hits count too.
    pub client: ClientLimits,
    /// Budget of each org key; only fetches count.
    pub upstream: UpstreamLimits,
}

/// The budget of each linked account or session token of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Sustained requests per second.
    #[serde(with = "Count")]
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    #[serde(with = "Count")]
    pub burst: NonZeroU32,
    /// Linked accounts and tokens that are remembered at once, per tenant.
    #[serde(with = "Count")]
    pub max_partitions: u64,
}

/// The budget of an org key at the upstream, and the queue for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamLimits {
    /// Sustained requests per second. Refold publishes a limit of 20.
    #[serde(with = "Count")]
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    #[serde(with = "Count")]
    pub burst: NonZeroU32,
    /// A fetch that would wait longer is refused with 429.
    #[serde(with = "AnyDuration")]
    pub max_wait: Duration,
    /// Fetches that may wait at once.
    #[schemars(with = "u32")]
    pub max_queue: usize,
}

/// A GCRA quota: `burst` requests at once, refilled at `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained requests per second.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

impl ClientLimits {
    /// The quota of each linked account or session token.
    #[must_use]
    pub fn rate(self) -> Rate {
        Rate { per_second: self.per_second, burst: self.burst }
    }
}

impl UpstreamLimits {
    /// Of each setting the lower one: the limits of a budget that two tenants share.
    #[must_use]
    pub fn lowest(self, other: Self) -> Self {
        Self {
            per_second: self.per_second.min(other.per_second),
            burst: self.burst.min(other.burst),
            max_wait: self.max_wait.min(other.max_wait),
            max_queue: self.max_queue.min(other.max_queue),
        }
    }

    /// The quota of the org key.
    #[must_use]
    pub fn rate(self) -> Rate {
        Rate { per_second: self.per_second, burst: self.burst }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { per_second: non_zero(50), burst: non_zero(100), max_partitions: 100_000 }
    }
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self { per_second: non_zero(20), burst: non_zero(5), max_wait: Duration::from_secs(5), max_queue: 1000 }
    }
}
