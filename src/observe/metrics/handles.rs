//! Handles to metrics with their label values resolved, so that the hit path does a few atomic additions and no look-up.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use prometheus::Histogram as SharedHistogram;

use super::Metrics;
use crate::cache::CacheOutcome;
use crate::caller::{self, CredentialKind};
use crate::executions::DerivationKind;
use crate::http_client::TransportErrorKind;
use crate::limit::Urgency;
use crate::observe::access_record::CallerIdentity;
use crate::observe::key_check::KeyCheck;
use crate::request::route::Resource;
use crate::series::{Counter, Histogram};

/// Values of the label `outcome` of requests.
const OUTCOMES: [&str; caller::OUTCOMES] = ["2xx", "3xx", "4xx", "429", "5xx"];
/// Values of the label `cache` of requests.
const CACHE_OUTCOMES: [&str; 10] =
    ["none", "hit", "hit_stale", "miss", "stale", "request", "bypass", "derived", "hit_cut_off", "hit_shared"];
/// Values of the label `served`.
const SERVED: [&str; 3] = ["fresh", "stale", "fetched"];
/// Values of the label `urgency`.
const URGENCIES: [&str; 2] = ["foreground", "background"];

/// Counters that are made on first use, since most of them count nothing; so is the table of them, since a tenant may have no
/// requests.
#[derive(Debug)]
struct Counters {
    table: OnceLock<Box<[OnceLock<Counter>]>>,
    size: usize,
}

impl Counters {
    fn new(size: usize) -> Self {
        Self { table: OnceLock::new(), size }
    }

    /// The counter at an index, which `make` makes if it is not there. Part of the hit path.
    fn get(&self, index: usize, make: impl FnOnce() -> Counter) -> &Counter {
        let table = self.table.get_or_init(|| (0..self.size).map(|_| OnceLock::new()).collect());
        table[index].get_or_init(make)
    }
}

/// Metrics of the requests of one tenant, or of all requests whose tenant is not known.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    metrics: Arc<Metrics>,
    tenant: Arc<str>,
    /// By resource, outcome and cache outcome.
    counters: Counters,
    /// By kind of credential and outcome, for the kinds without a name.
    callers: Counters,
    /// By [`SERVED`].
    ages: [OnceLock<Histogram>; SERVED.len()],
    hit: SharedHistogram,
    hit_stale: SharedHistogram,
    miss: SharedHistogram,
    other: SharedHistogram,
}

impl RequestMetrics {
    pub(crate) fn new(metrics: &Arc<Metrics>, tenant: Arc<str>) -> Self {
        Self {
            counters: Counters::new(Resource::ALL.len() * OUTCOMES.len() * CACHE_OUTCOMES.len()),
            callers: Counters::new(CredentialKind::ALL.len() * OUTCOMES.len()),
            ages: std::array::from_fn(|_| OnceLock::new()),
            hit: metrics.latency("hit"),
            hit_stale: metrics.latency("hit_stale"),
            miss: metrics.latency("miss"),
            other: metrics.latency("other"),
            metrics: Arc::clone(metrics),
            tenant,
        }
    }

    /// Counts an answered request and its duration. Part of the hit path.
    pub(crate) fn answered(&self, resource: Resource, status: StatusCode, cache: CacheOutcome, duration: Duration) {
        let (outcome, cached) = (outcome(status), cache_outcome(cache));
        let index = (resource as usize * OUTCOMES.len() + outcome) * CACHE_OUTCOMES.len() + cached;
        let labels = || [resource.name(), &*self.tenant, OUTCOMES[outcome], CACHE_OUTCOMES[cached]];
        self.counters.get(index, || self.metrics.requests.with_label_values(&labels())).inc();
        let latency = match cache {
            CacheOutcome::Hit | CacheOutcome::HitShared | CacheOutcome::Derived => &self.hit,
            CacheOutcome::HitStale | CacheOutcome::HitCutOff => &self.hit_stale,
            CacheOutcome::Miss { .. } | CacheOutcome::Stale { .. } | CacheOutcome::Request => &self.miss,
            CacheOutcome::NotAsked | CacheOutcome::Bypass => &self.other,
        };
        latency.observe(duration.as_secs_f64());
    }

    /// Counts a request by the credential of its caller. Part of the hit path.
    pub(crate) fn called(&self, caller: &CallerIdentity<'_>, status: StatusCode) {
        let outcome = outcome(status);
        let make = |name: &str| {
            let labels = [&*self.tenant, caller.kind.name(), name, OUTCOMES[outcome]];
            self.metrics.caller_requests.with_label_values(&labels)
        };
        let counter = match caller.counters {
            Some((counters, name)) => counters[outcome].get_or_init(|| make(name)),
            None => self.callers.get(caller.kind as usize * OUTCOMES.len() + outcome, || make("")),
        };
        counter.inc();
    }

    /// Records the age of a page or document that was served. Part of the hit path.
    pub(crate) fn served(&self, cache: CacheOutcome, age: Duration) {
        let served = match cache {
            CacheOutcome::Hit | CacheOutcome::HitShared | CacheOutcome::Derived => 0,
            CacheOutcome::HitStale | CacheOutcome::HitCutOff => 1,
            _ => 2,
        };
        let histogram = self.ages[served]
            .get_or_init(|| self.metrics.response_age.with_label_values(&[&*self.tenant, SERVED[served]]));
        histogram.observe(age.as_secs_f64());
    }

    /// Counts the error of an answer, beside the request itself. Not part of the hit path.
    pub(crate) fn failed(&self, error_code: &str) {
        self.metrics.errors.with_label_values(&[&*self.tenant, error_code]).inc();
    }

    /// Counts a refused credential. Not part of the hit path.
    pub(crate) fn credential_refused(&self, reason: &str) {
        self.metrics.refused_credentials.with_label_values(&[reason]).inc();
    }
}

/// The index of a status among [`OUTCOMES`].
fn outcome(status: StatusCode) -> usize {
    match status.as_u16() {
        ..300 => 0,
        300..400 => 1,
        429 => 3,
        400..500 => 2,
        500.. => 4,
    }
}

/// The index of a cache outcome among [`CACHE_OUTCOMES`].
fn cache_outcome(outcome: CacheOutcome) -> usize {
    match outcome {
        CacheOutcome::NotAsked => 0,
        CacheOutcome::Hit => 1,
        CacheOutcome::HitStale => 2,
        CacheOutcome::Miss { .. } => 3,
        CacheOutcome::Stale { .. } => 4,
        CacheOutcome::Request => 5,
        CacheOutcome::Bypass => 6,
        CacheOutcome::Derived => 7,
        CacheOutcome::HitCutOff => 8,
        CacheOutcome::HitShared => 9,
    }
}

/// The outcome of one request to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// The upstream answered with this status.
    Answered(StatusCode),
    /// There was no usable answer.
    Failed(TransportErrorKind),
}

impl UpstreamOutcome {
    const NAMES: [&str; 10] = ["2xx", "304", "3xx", "4xx", "401", "429", "5xx", "unreachable", "timeout", "invalid"];

    fn index(self) -> usize {
        match self {
            Self::Answered(StatusCode::NOT_MODIFIED) => 1,
            Self::Answered(StatusCode::UNAUTHORIZED) => 4,
            Self::Answered(StatusCode::TOO_MANY_REQUESTS) => 5,
            Self::Answered(status) => match status.as_u16() {
                ..300 => 0,
                300..400 => 2,
                400..500 => 3,
                500.. => 6,
            },
            Self::Failed(TransportErrorKind::Unreachable) => 7,
            Self::Failed(TransportErrorKind::Timeout) => 8,
            Self::Failed(
                TransportErrorKind::TooLarge { .. }
                | TransportErrorKind::Incomplete
                | TransportErrorKind::InvalidResponse,
            ) => 9,
        }
    }

    /// The value of the label `outcome`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// The outcome of a webhook's delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// The signature was valid, and the entries of the linked accounts in it were dropped from the cache.
    Taken,
    /// The delivery was answered with an error and had no effect.
    Refused,
}

/// The result of a comparison of a derived response with a fetched one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonResult {
    /// They are equal.
    Agrees,
    /// They differ, and another comparison has confirmed it.
    Differs,
    /// The list has changed meanwhile, or the difference was not confirmed.
    Inconclusive,
    /// A page could not be fetched.
    Unfinished,
}

impl ComparisonResult {
    const NAMES: [&str; 4] = ["agrees", "differs", "inconclusive", "unfinished"];
}

/// The last signs of life of Refold, for the status page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastSignals {
    /// The time of the last webhook with a valid signature.
    pub(crate) webhook: Option<Timestamp>,
    /// The last check of an org key.
    pub(crate) key_check: Option<KeyCheck>,
}

/// The metrics of one tenant.
#[derive(Debug)]
pub(crate) struct TenantMetrics {
    pub(crate) requests: RequestMetrics,
    upstream: [OnceLock<Histogram>; UpstreamOutcome::NAMES.len()],
    retries: Counter,
    waits: [Histogram; URGENCIES.len()],
    granted: Counter,
    refused: [Counter; URGENCIES.len()],
    webhooks: [Counter; 2],
    /// The time of the last accepted webhook and of the last check of an org key.
    last: Mutex<LastSignals>,
    comparisons: [Counter; ComparisonResult::NAMES.len()],
    contradicted: [Counter; DerivationKind::ALL.len()],
}

impl TenantMetrics {
    pub(crate) fn new(metrics: &Arc<Metrics>, tenant: Arc<str>) -> Self {
        let id = &*tenant;
        Self {
            upstream: std::array::from_fn(|_| OnceLock::new()),
            retries: metrics.upstream_retries.with_label_values(&[id]),
            waits: URGENCIES.map(|urgency| metrics.budget_wait.with_label_values(&[id, urgency])),
            granted: metrics.budget_granted.with_label_values(&[id]),
            refused: URGENCIES.map(|urgency| metrics.budget_refused.with_label_values(&[id, urgency])),
            last: Mutex::default(),
            webhooks: ["taken", "refused"].map(|outcome| metrics.webhooks.with_label_values(&[id, outcome])),
            comparisons: ComparisonResult::NAMES
                .map(|result| metrics.derivation_comparisons.with_label_values(&[id, result])),
            contradicted: DerivationKind::ALL
                .map(|kind| metrics.derivation_contradicted.with_label_values(&[id, kind.name()])),
            requests: RequestMetrics::new(metrics, tenant),
        }
    }

    /// Counts a request to the upstream that ended, and its duration.
    pub(crate) fn asked_upstream(&self, outcome: UpstreamOutcome, duration: Duration) {
        let labels = || [&*self.requests.tenant, outcome.name()];
        let histogram = self.upstream[outcome.index()]
            .get_or_init(|| self.requests.metrics.upstream_request_duration.with_label_values(&labels()));
        histogram.observe(duration.as_secs_f64());
    }

    /// Counts a request to the upstream that is sent again.
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    /// Counts the end of a wait for the org key's budget, and its duration.
    pub(crate) fn waited_for_budget(&self, urgency: Urgency, granted: bool, duration: Duration) {
        let index = match urgency {
            Urgency::Foreground => 0,
            Urgency::Background => 1,
        };
        self.waits[index].observe(duration.as_secs_f64());
        if granted { self.granted.inc() } else { self.refused[index].inc() }
    }

    /// Counts a comparison of a derived response with a fetched one.
    pub(crate) fn compared(&self, result: ComparisonResult) {
        self.comparisons[result as usize].inc();
    }

    /// Counts that a stale page could not be fetched anew. Not part of the hit path.
    pub(crate) fn failed_renewal(&self, error_code: &str) {
        self.requests.metrics.renewal_errors.with_label_values(&[&*self.requests.tenant, error_code]).inc();
    }

    /// Counts that a kind of derivation was put out of use.
    pub(crate) fn contradicted(&self, kind: DerivationKind) {
        self.contradicted[kind as usize].inc();
    }

    /// Counts the delivery of a webhook at this time.
    pub(crate) fn webhook(&self, outcome: WebhookOutcome, at: Timestamp) {
        self.webhooks[usize::from(outcome == WebhookOutcome::Refused)].inc();
        if outcome == WebhookOutcome::Taken {
            let RequestMetrics { metrics, tenant, .. } = &self.requests;
            metrics.webhook_accepted.with_label_values(&[&**tenant]).set(Metrics::seconds(at));
            self.last().webhook = Some(at);
        }
    }

    /// Records a check of an org key.
    pub(crate) fn key_checked(&self, check: KeyCheck) {
        let RequestMetrics { metrics, tenant, .. } = &self.requests;
        let labels = [&**tenant, check.key, check.result.name()];
        metrics.org_key_checked.with_label_values(&labels).set(Metrics::seconds(check.at));
        self.last().key_check = Some(check);
    }

    /// The last signs of life of Refold.
    pub(crate) fn last(&self) -> MutexGuard<'_, LastSignals> {
        // A time is never half written.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_has_its_own_counter() {
        let metrics = Arc::new(Metrics::new());
        let tenant = TenantMetrics::new(&metrics, "acme".into());
        let results = [
            CacheOutcome::NotAsked,
            CacheOutcome::Hit,
            CacheOutcome::HitStale,
            CacheOutcome::Miss { collapsed: true },
            CacheOutcome::Stale { collapsed: false },
            CacheOutcome::Request,
            CacheOutcome::Bypass,
            CacheOutcome::Derived,
            CacheOutcome::HitCutOff,
            CacheOutcome::HitShared,
        ];
        let statuses = [200, 304, 404, 429, 503].map(|status| StatusCode::from_u16(status).expect("a status"));
        for resource in Resource::ALL {
            for (status, outcome) in statuses.into_iter().zip(OUTCOMES) {
                for cache in results {
                    tenant.requests.answered(resource, status, cache, Duration::from_millis(1));
                    let labels = [resource.name(), "acme", outcome, cache.name()];
                    assert_eq!(metrics.requests.with_label_values(&labels).get(), 1, "{labels:?}");
                }
            }
        }
    }

    #[test]
    fn an_upstream_outcome_has_its_label() {
        let answered = |status| UpstreamOutcome::Answered(StatusCode::from_u16(status).expect("a status")).name();
        let named = [200, 204, 304, 302, 404, 401, 429, 500, 503].map(answered);
        assert_eq!(named, ["2xx", "2xx", "304", "3xx", "4xx", "401", "429", "5xx", "5xx"]);
        let failed = [
            TransportErrorKind::Unreachable,
            TransportErrorKind::Timeout,
            TransportErrorKind::InvalidResponse,
            TransportErrorKind::Incomplete,
            TransportErrorKind::TooLarge { limit: 1 },
        ];
        assert_eq!(
            failed.map(|error| UpstreamOutcome::Failed(error).name()),
            ["unreachable", "timeout", "invalid", "invalid", "invalid"]
        );
    }
}
