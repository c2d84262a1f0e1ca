//! What is going on at this moment, for people who look at it: traffic by the second, latencies of the last minute, the last
//! errors. What is told of a request costs the hit path two relaxed atomics and takes no lock; memory is bounded.

use std::collections::VecDeque;
use std::sync::Mutex;

use http::StatusCode;
use serde::Serialize;

use super::AccessRecord;
use super::latency::{Latencies, Quantiles};
use super::stripe::stripe;
use crate::cache::CacheOutcome;
use crate::clock::Moment;
use crate::request::RequestId;
use crate::request::route::Resource;
use crate::window_counter::{CounterRing, SECOND, ago, unit};

/// Seconds of traffic that are shown.
const SHOWN: usize = 300;
/// The present second, which is not over, and a little more for who reads while it turns.
const KEPT: usize = SHOWN + 4;
/// Errors that are remembered.
const ERRORS: usize = 50;
/// Each worker counts in a place of its own, as long as there are no more of them than this.
const STRIPES: usize = 8;

/// How a request ended, as far as a person at a glance wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Answered from the cache.
    Hit,
    /// Answered from the cache with what is no longer fresh.
    Stale,
    /// Refold was asked.
    Fetched,
    /// Never cached: actions, webhooks, the rest of the API.
    ForwardedBody,
    /// The request was wrong: 4xx.
    Refused,
    /// Too many requests: 429.
    Limited,
    /// The gateway or Refold failed: 5xx.
    Failed,
}

const OUTCOMES: usize = 7;

impl Outcome {
    fn of(record: &AccessRecord<'_>) -> Self {
        match record.status {
            StatusCode::TOO_MANY_REQUESTS => Self::Limited,
            status if status.is_client_error() => Self::Refused,
            status if status.is_server_error() => Self::Failed,
            _ => match record.cache {
                CacheOutcome::Hit | CacheOutcome::Derived => Self::Hit,
                CacheOutcome::HitStale => Self::Stale,
                CacheOutcome::Miss { .. } | CacheOutcome::Stale { .. } | CacheOutcome::Request => Self::Fetched,
                CacheOutcome::NotAsked | CacheOutcome::Bypass => Self::ForwardedBody,
            },
        }
    }
}

/// What is going on.
#[derive(Debug)]
pub struct RecentActivity {
    stripes: Box<[Stripe]>,
    errors: Mutex<VecDeque<Failure>>,
}

/// What some of the threads have counted.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe {
    /// By [`Outcome`].
    traffic: [CounterRing<KEPT>; OUTCOMES],
    hits: Latencies,
    fetches: Latencies,
}

/// A request that was refused or failed.
#[derive(Debug)]
struct Failure {
    at: Moment,
    request_id: RequestId,
    status: StatusCode,
    error_code: Box<str>,
    tenant: Option<Box<str>>,
    linked_account: Option<Box<str>>,
    resource: Resource,
}

impl Default for RecentActivity {
    fn default() -> Self {
        let stripes = std::iter::repeat_with(Stripe::default).take(STRIPES).collect();
        Self { stripes, errors: Mutex::new(VecDeque::with_capacity(ERRORS)) }
    }
}

impl RecentActivity {
    /// A request was answered. Part of the hit path.
    pub fn answered(&self, record: &AccessRecord<'_>) {
        let outcome = Outcome::of(record);
        let stripe = &self.stripes[stripe(STRIPES)];
        stripe.traffic[outcome as usize].add(unit(record.at, SECOND));
        match outcome {
            Outcome::Hit | Outcome::Stale => stripe.hits.add(record.at, record.duration),
            Outcome::Fetched => stripe.fetches.add(record.at, record.duration),
            Outcome::Refused | Outcome::Limited | Outcome::Failed => self.failed(record),
            Outcome::ForwardedBody => {}
        }
    }

    fn failed(&self, record: &AccessRecord<'_>) {
        // A flood of errors must not be made worse: whoever finds it locked has an error like the others.
        let Ok(mut errors) = self.errors.try_lock() else { return };
        if errors.len() >= ERRORS {
            errors.pop_front();
        }
        errors.push_back(Failure {
            at: record.at,
            request_id: record.request_id,
            status: record.status,
            error_code: record.error_code.unwrap_or_default().into(),
            tenant: record.who.map(|who| (*who.tenant.config.id).into()),
            linked_account: record.who.and_then(|who| who.linked_account).map(Into::into),
            resource: record.resource,
        });
    }

    /// The traffic of the last five minutes; the present second is not over and not in it.
    #[must_use]
    pub fn traffic(&self, now: Moment) -> Traffic {
        let present = unit(now, SECOND);
        let series = |outcome: Outcome| {
            let count =
                |second: u32| self.stripes.iter().map(|stripe| stripe.traffic[outcome as usize].at(second)).sum();
            let back = |seconds: u32| ago(seconds, present).map_or(0, count);
            (1..=u32::try_from(SHOWN).unwrap_or(0)).rev().map(back).collect()
        };
        Traffic {
            hit: series(Outcome::Hit),
            stale: series(Outcome::Stale),
            fetched: series(Outcome::Fetched),
            passed: series(Outcome::ForwardedBody),
            refused: series(Outcome::Refused),
            limited: series(Outcome::Limited),
            failed: series(Outcome::Failed),
        }
    }

    /// Latencies of the last minute.
    #[must_use]
    pub fn latency(&self, now: Moment) -> Latency {
        Latency {
            hits: Latencies::quantiles(self.stripes.iter().map(|stripe| &stripe.hits), now),
            fetches: Latencies::quantiles(self.stripes.iter().map(|stripe| &stripe.fetches), now),
        }
    }

    /// The last errors, the newest first.
    #[must_use]
    pub fn errors(&self, now: Moment) -> Vec<RecentError> {
        // Nobody panics while it is locked; were it otherwise, the list would still be one.
        let errors = self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let shown = |failure: &Failure| RecentError {
            seconds_ago: now.since(failure.at).as_secs_f64(),
            request_id: failure.request_id.to_string(),
            status: failure.status.as_u16(),
            error_code: failure.error_code.to_string(),
            endpoint: failure.resource.name(),
            tenant: failure.tenant.as_deref().map(str::to_owned),
            linked_account: failure.linked_account.as_deref().map(str::to_owned),
        };
        errors.iter().rev().map(shown).collect()
    }
}

/// Answers by the second, from the oldest to the one that has just ended.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// From the cache.
    pub hit: Vec<u32>,
    /// From the cache, no longer fresh.
    pub stale: Vec<u32>,
    /// From Refold.
    pub fetched: Vec<u32>,
    /// Never cached: actions, webhooks, the rest of the API.
    pub passed: Vec<u32>,
    /// 4xx.
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
    /// Of those for which Refold was asked.
    pub fetches: Option<Quantiles>,
}

/// A request that was refused or failed.
#[derive(Clone, Debug, Serialize)]
pub struct RecentError {
    /// How long ago.
    pub seconds_ago: f64,
    /// The id that the caller was told.
    pub request_id: String,
    /// The status of the answer.
    pub status: u16,
    /// Why.
    pub error_code: String,
    /// What was asked for.
    pub endpoint: &'static str,
    /// Whose caller it was, if that was known.
    pub tenant: Option<String>,
    /// For whom it asked.
    pub linked_account: Option<String>,
}

#[cfg(test)]
mod tests;
