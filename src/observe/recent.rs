//! Recent activity, for the status page: traffic by the second, latencies of the last minute, the last errors.
//!
//! An answer from the cache costs the hit path two relaxed atomics and takes no lock. Memory is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use serde::Serialize;

use super::access_record::{AccessRecord, write_cause};
use super::latency::{LatencyHistogram, Quantiles};
use super::stripe::stripe_of_thread;
use crate::cache::CacheOutcome;
use crate::clock::Moment;
use crate::request::RequestId;
use crate::request::route::Resource;
use crate::window_counter::{CounterRing, SECOND, ago, unit};

/// Seconds of traffic on the status page.
const SECONDS_SHOWN: usize = 300;
/// Seconds that are kept: those shown, the present one, and a few more since the second may change during a read.
const SECONDS_KEPT: usize = SECONDS_SHOWN + 4;
/// Number of errors that are kept.
const ERRORS_KEPT: usize = 50;
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
                CacheOutcome::Hit | CacheOutcome::Derived => Self::Hit,
                CacheOutcome::HitStale => Self::Stale,
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
    errors: Mutex<VecDeque<KeptError>>,
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

/// An answer with an error status.
#[derive(Debug)]
struct KeptError {
    answered_at: Moment,
    request_id: RequestId,
    status: StatusCode,
    error_code: Box<str>,
    cause: Option<Box<str>>,
    tenant: Option<Box<str>>,
    linked_account: Option<Box<str>>,
    resource: Resource,
}

impl Default for RecentActivity {
    fn default() -> Self {
        let stripes = std::iter::repeat_with(ActivityStripe::default).take(STRIPES).collect();
        Self { stripes, errors: Mutex::new(VecDeque::with_capacity(ERRORS_KEPT)) }
    }
}

impl RecentActivity {
    /// Counts an answer. Part of the hit path.
    pub fn answered(&self, record: &AccessRecord<'_>) {
        let class = TrafficClass::of(record);
        let stripe = &self.stripes[stripe_of_thread(STRIPES)];
        stripe.traffic[class as usize].add(unit(record.answered_at, SECOND));
        match class {
            TrafficClass::Hit | TrafficClass::Stale => stripe.hits.add(record.answered_at, record.duration),
            TrafficClass::Fetched => stripe.fetches.add(record.answered_at, record.duration),
            TrafficClass::Refused | TrafficClass::Limited | TrafficClass::Failed => self.keep_error(record),
            TrafficClass::PassedThrough => {}
        }
    }

    fn keep_error(&self, record: &AccessRecord<'_>) {
        // A flood of errors must not slow down requests: while the list is locked, an error is counted but not kept.
        let Ok(mut errors) = self.errors.try_lock() else { return };
        if errors.len() >= ERRORS_KEPT {
            errors.pop_front();
        }
        errors.push_back(KeptError {
            answered_at: record.answered_at,
            request_id: record.request_id,
            status: record.status,
            error_code: record.error.map_or("", |error| error.code).into(),
            cause: record.error.and_then(|error| error.cause).map(|cause| {
                let mut text = String::new();
                write_cause(&mut text, cause);
                text.into()
            }),
            tenant: record.caller.map(|caller| (*caller.tenant.config.id).into()),
            linked_account: record.caller.and_then(|caller| caller.linked_account).map(Into::into),
            resource: record.resource,
        });
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

    /// The last errors, newest first.
    #[must_use]
    pub fn errors(&self, now: Moment) -> Vec<RecentError> {
        // No code that holds the lock can leave the list inconsistent, even if it panics.
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |error: &KeptError| RecentError {
            seconds_ago: now.since(error.answered_at).as_secs_f64(),
            request_id: error.request_id.to_string(),
            status: error.status.as_u16(),
            error_code: error.error_code.to_string(),
            cause: error.cause.as_deref().map(str::to_owned),
            endpoint: error.resource.name(),
            tenant: error.tenant.as_deref().map(str::to_owned),
            linked_account: error.linked_account.as_deref().map(str::to_owned),
        };
        errors.iter().rev().map(shown).collect()
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

/// A request that was refused or failed, as the status page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct RecentError {
    /// Seconds since the answer.
    pub seconds_ago: f64,
    /// The request id, which the caller received in `x-request-id`.
    pub request_id: String,
    /// The status of the answer.
    pub status: u16,
    /// The `error_code` of the answer.
    pub error_code: String,
    /// The underlying error, for the operator; not part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The resource that the request was for.
    pub endpoint: &'static str,
    /// The caller's tenant, if the credential is known.
    pub tenant: Option<String>,
    /// The linked account that the request acted for.
    pub linked_account: Option<String>,
}

#[cfg(test)]
mod tests;
