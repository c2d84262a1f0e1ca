//! Recent activity, for the status page: traffic by the second, latencies of the last minute, the last errors.
//!
//! An answer from the cache costs the hit path two relaxed atomics and takes no lock. Memory is bounded.

mod errors;
mod groups;
mod renewals;

use http::StatusCode;
use serde::Serialize;

use self::errors::ErrorList;
pub use self::errors::{ErrorGroup, RecentError};
pub use self::groups::Occurrences;
use self::renewals::RenewalErrors;
pub use self::renewals::{FailedRenewal, RecentRenewalError, RenewalErrorGroup, printable};
use super::access_record::AccessRecord;
use super::latency::{LatencyHistogram, Quantiles};
use super::stripe::stripe_of_thread;
use crate::cache::CacheOutcome;
use crate::clock::Moment;
use crate::config::AccountNaming;
use crate::window_counter::{CounterRing, SECOND, ago, unit};

/// Seconds of traffic on the status page.
const SECONDS_SHOWN: usize = 300;
/// Seconds that are kept: those shown, the present one, and a few more since the second may change during a read.
const SECONDS_KEPT: usize = SECONDS_SHOWN + 4;
/// Number of stripes. Workers beyond it share one.
const STRIPES: usize = 8;
/// Number of [`TrafficClass`]es.
const CLASSES: usize = 7;

/// The classes of answers that the traffic chart distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrafficClass {
    /// Answered from the cache.
    Hit,
    /// Answered from the cache with a stale entry.
    Stale,
    /// Fetched from Refold.
    Fetched,
    /// Never cached: actions, webhooks, the rest of the API.
    PassedThrough,
    /// Refused: 4xx.
    Refused,
    /// Rate limited: 429.
    Limited,
    /// Failed: 5xx.
    Failed,
}

impl TrafficClass {
    fn of(record: &AccessRecord<'_>) -> Self {
        match record.status {
            StatusCode::TOO_MANY_REQUESTS => Self::Limited,
            status if status.is_client_error() => Self::Refused,
            status if status.is_server_error() => Self::Failed,
            _ => match record.cache {
                CacheOutcome::Hit | CacheOutcome::HitShared | CacheOutcome::Derived => Self::Hit,
                CacheOutcome::HitStale | CacheOutcome::HitCutOff => Self::Stale,
                CacheOutcome::Miss { .. } | CacheOutcome::Stale { .. } | CacheOutcome::Request => Self::Fetched,
                CacheOutcome::NotAsked | CacheOutcome::Bypass => Self::PassedThrough,
            },
        }
    }
}

/// Counts the answers of the last minutes and keeps the last errors.
#[derive(Debug)]
pub struct RecentActivity {
    stripes: Box<[ActivityStripe]>,
    errors: ErrorList,
    renewals: RenewalErrors,
}

/// The counts of the threads that share a stripe.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ActivityStripe {
    /// By [`TrafficClass`].
    traffic: [CounterRing<SECONDS_KEPT>; CLASSES],
    hits: LatencyHistogram,
    fetches: LatencyHistogram,
}

impl Default for RecentActivity {
    fn default() -> Self {
        let stripes = std::iter::repeat_with(ActivityStripe::default).take(STRIPES).collect();
        Self { stripes, errors: ErrorList::default(), renewals: RenewalErrors::default() }
    }
}

impl RecentActivity {
    /// Counts an answer. Part of the hit path.
    pub fn answered(&self, record: &AccessRecord<'_>) {
        let class = TrafficClass::of(record);
        let stripe = &self.stripes[stripe_of_thread(STRIPES)];
        stripe.traffic[class as usize].add(unit(record.answered_at, SECOND));
        if let Some(usage) = record.caller.and_then(|caller| caller.key_usage) {
            usage.record(record.answered_at, class == TrafficClass::Limited);
        }
        match class {
            TrafficClass::Hit | TrafficClass::Stale => stripe.hits.add(record.answered_at, record.duration),
            TrafficClass::Fetched => stripe.fetches.add(record.answered_at, record.duration),
            TrafficClass::Refused | TrafficClass::Limited | TrafficClass::Failed => self.errors.keep(record),
            TrafficClass::PassedThrough => {}
        }
    }

    /// The traffic of the last five minutes, without the present second, which is not over.
    #[must_use]
    pub fn traffic(&self, now: Moment) -> Traffic {
        let present = unit(now, SECOND);
        let series = |class: TrafficClass| {
            let count = |second: u32| self.stripes.iter().map(|stripe| stripe.traffic[class as usize].at(second)).sum();
            let count_before = |seconds: u32| ago(seconds, present).map_or(0, count);
            (1..=u32::try_from(SECONDS_SHOWN).unwrap_or(0)).rev().map(count_before).collect()
        };
        Traffic {
            hit: series(TrafficClass::Hit),
            stale: series(TrafficClass::Stale),
            fetched: series(TrafficClass::Fetched),
            passed: series(TrafficClass::PassedThrough),
            refused: series(TrafficClass::Refused),
            limited: series(TrafficClass::Limited),
            failed: series(TrafficClass::Failed),
        }
    }

    /// The latencies of the last minute.
    #[must_use]
    pub fn latency(&self, now: Moment) -> Latency {
        Latency {
            hits: LatencyHistogram::quantiles(self.stripes.iter().map(|stripe| &stripe.hits), now),
            fetches: LatencyHistogram::quantiles(self.stripes.iter().map(|stripe| &stripe.fetches), now),
        }
    }

    /// Keeps a failed renewal. Not part of the hit path.
    pub fn renewal_failed(&self, failed: &FailedRenewal<'_>) {
        self.renewals.keep(failed);
    }

    /// The last errors, grouped: failures (5xx) first, each kind newest first. `naming` is the form of linked accounts now, also of
    /// errors that happened before a reload.
    #[must_use]
    pub fn errors(&self, now: Moment, naming: AccountNaming) -> Vec<ErrorGroup> {
        self.errors.all(now, naming)
    }

    /// The last failed renewals, grouped, newest first. `naming` as for [`Self::errors`].
    #[must_use]
    pub fn renewal_errors(&self, now: Moment, naming: AccountNaming) -> Vec<RenewalErrorGroup> {
        self.renewals.all(now, naming)
    }
}

/// Answers per second, from the oldest second to the last complete one.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// From the cache.
    pub hit: Vec<u32>,
    /// From the cache, stale.
    pub stale: Vec<u32>,
    /// Fetched from Refold.
    pub fetched: Vec<u32>,
    /// Never cached: actions, webhooks, the rest of the API.
    pub passed: Vec<u32>,
    /// 4xx other than 429.
    pub refused: Vec<u32>,
    /// 429.
    pub limited: Vec<u32>,
    /// 5xx.
    pub failed: Vec<u32>,
}

/// Latencies of the last minute, from a request's head to the head of its answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Of answers from the cache.
    pub hits: Option<Quantiles>,
    /// Of answers fetched from Refold.
    pub fetches: Option<Quantiles>,
}

#[cfg(test)]
mod tests;
