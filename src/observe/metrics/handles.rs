//! Metrics with their labels already put in, so that telling one on the hit path is a few atomic additions and no look-up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use prometheus::{Histogram, IntCounter};

use super::Metrics;
use crate::cache::CacheOutcome;
use crate::http_client::TransportErrorKind;
use crate::limit::Urgency;
use crate::request::route::Resource;

const OUTCOMES: [&str; 5] = ["2xx", "3xx", "4xx", "429", "5xx"];
const CACHE_RESULTS: [&str; 8] = ["none", "hit", "hit_stale", "miss", "stale", "request", "bypass", "derived"];
const URGENCIES: [&str; 2] = ["foreground", "background"];

/// The requests of a tenant, or of nobody known.
#[derive(Debug)]
pub(crate) struct Requests {
    metrics: Arc<Metrics>,
    tenant: Arc<str>,
    /// By resource, outcome and cache result; made when they are first needed, since most never are.
    counters: Box<[OnceLock<IntCounter>]>,
    hit: Histogram,
    miss: Histogram,
    other: Histogram,
}

impl Requests {
    pub(crate) fn new(metrics: &Arc<Metrics>, tenant: Arc<str>) -> Self {
        let size = Resource::ALL.len() * OUTCOMES.len() * CACHE_RESULTS.len();
        Self {
            counters: (0..size).map(|_| OnceLock::new()).collect(),
            hit: metrics.latency("hit"),
            miss: metrics.latency("miss"),
            other: metrics.latency("other"),
            metrics: Arc::clone(metrics),
            tenant,
        }
    }

    /// A request was answered. Part of the hit path.
    pub(crate) fn answered(&self, resource: Resource, status: StatusCode, cache: CacheOutcome, duration: Duration) {
        let (outcome, cached) = (outcome(status), cache_result(cache));
        let index = (resource as usize * OUTCOMES.len() + outcome) * CACHE_RESULTS.len() + cached;
        if let Some(counter) = self.counters.get(index) {
            let labels = || [resource.name(), &*self.tenant, OUTCOMES[outcome], CACHE_RESULTS[cached]];
            counter.get_or_init(|| self.metrics.requests.with_label_values(&labels())).inc();
        }
        let latency = match cache {
            CacheOutcome::Hit | CacheOutcome::HitStale | CacheOutcome::Derived => &self.hit,
            CacheOutcome::Miss { .. } | CacheOutcome::Stale { .. } | CacheOutcome::Request => &self.miss,
            CacheOutcome::NotAsked | CacheOutcome::Bypass => &self.other,
        };
        latency.observe(duration.as_secs_f64());
    }

    /// It was an error. Not the hit path.
    pub(crate) fn failed(&self, error_code: &str) {
        self.metrics.errors.with_label_values(&[&*self.tenant, error_code]).inc();
    }
}

fn outcome(status: StatusCode) -> usize {
    match status.as_u16() {
        ..300 => 0,
        300..400 => 1,
        429 => 3,
        400..500 => 2,
        500.. => 4,
    }
}

fn cache_result(result: CacheOutcome) -> usize {
    match result {
        CacheOutcome::NotAsked => 0,
        CacheOutcome::Hit => 1,
        CacheOutcome::HitStale => 2,
        CacheOutcome::Miss { .. } => 3,
        CacheOutcome::Stale { .. } => 4,
        CacheOutcome::Request => 5,
        CacheOutcome::Bypass => 6,
        CacheOutcome::Derived => 7,
    }
}

/// How a request to the upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamOutcome {
    /// An answer with this status.
    Answered(StatusCode),
    /// None.
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
            Self::Failed(TransportErrorKind::TooLarge { .. } | TransportErrorKind::InvalidResponse) => 9,
        }
    }

    /// Its name in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}

/// Whether a webhook's delivery was signed as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// What it named was dropped from the cache.
    Taken,
    /// It did nothing.
    Refused,
}

/// All that is counted for one tenant.
#[derive(Debug)]
pub(crate) struct TenantMetrics {
    pub(crate) requests: Requests,
    upstream: [OnceLock<Histogram>; UpstreamOutcome::NAMES.len()],
    retries: IntCounter,
    waits: [Histogram; URGENCIES.len()],
    granted: IntCounter,
    refused: [IntCounter; URGENCIES.len()],
    webhooks: [IntCounter; 2],
}

impl TenantMetrics {
    pub(crate) fn new(metrics: &Arc<Metrics>, tenant: Arc<str>) -> Self {
        let id = &*tenant;
        let [taken, not_taken] = ["taken", "refused"];
        Self {
            upstream: std::array::from_fn(|_| OnceLock::new()),
            retries: metrics.upstream_retries.with_label_values(&[id]),
            waits: URGENCIES.map(|urgency| metrics.budget_wait.with_label_values(&[id, urgency])),
            granted: metrics.budget_granted.with_label_values(&[id]),
            refused: URGENCIES.map(|urgency| metrics.budget_refused.with_label_values(&[id, urgency])),
            webhooks: [taken, not_taken].map(|outcome| metrics.webhooks.with_label_values(&[id, outcome])),
            requests: Requests::new(metrics, tenant),
        }
    }

    pub(crate) fn asked_upstream(&self, outcome: UpstreamOutcome, duration: Duration) {
        let labels = || [&*self.requests.tenant, outcome.name()];
        let histogram = self.upstream[outcome.index()]
            .get_or_init(|| self.requests.metrics.upstream_request_duration.with_label_values(&labels()));
        histogram.observe(duration.as_secs_f64());
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn waited_for_budget(&self, urgency: Urgency, granted: bool, duration: Duration) {
        let index = match urgency {
            Urgency::Foreground => 0,
            Urgency::Background => 1,
        };
        self.waits[index].observe(duration.as_secs_f64());
        if granted { self.granted.inc() } else { self.refused[index].inc() }
    }

    pub(crate) fn webhook(&self, outcome: WebhookOutcome) {
        self.webhooks[usize::from(outcome == WebhookOutcome::Refused)].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_request_has_a_counter_of_its_own() {
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
    fn an_upstream_answer_is_counted_under_what_it_means() {
        let answered = |status| UpstreamOutcome::Answered(StatusCode::from_u16(status).expect("a status")).name();
        let named = [200, 204, 304, 302, 404, 401, 429, 500, 503].map(answered);
        assert_eq!(named, ["2xx", "2xx", "304", "3xx", "4xx", "401", "429", "5xx", "5xx"]);
        let failed = [
            TransportErrorKind::Unreachable,
            TransportErrorKind::Timeout,
            TransportErrorKind::InvalidResponse,
            TransportErrorKind::TooLarge { limit: 1 },
        ];
        assert_eq!(
            failed.map(|error| UpstreamOutcome::Failed(error).name()),
            ["unreachable", "timeout", "invalid", "invalid"]
        );
    }
}
