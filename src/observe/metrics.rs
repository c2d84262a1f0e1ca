//! Every metric: its name, labels, unit (in the name, as Prometheus has it) and meaning, in one place.
//!
//! The library is `prometheus`: its counters and histograms are told by atomic additions alone, where the histogram of
//! `prometheus-client` takes a lock. Label values are bounded: they come from the configuration or from enumerations here.

mod handles;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub(crate) use self::handles::{Requests, TenantMetrics};
pub use self::handles::{UpstreamOutcome, WebhookOutcome};

/// From a hit to a request that has waited for all that it may wait for, in seconds.
const REQUEST_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From an upstream next door to one that takes all the time it is given, in seconds.
const UPSTREAM_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From the next slot to the longest wait of what nobody waits for, in seconds.
const WAIT_BUCKETS: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A metric as it is declared.
#[derive(Debug)]
pub struct Declared {
    /// `postern_…`, with its unit.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, as `# HELP` shows it.
    pub help: &'static str,
    buckets: &'static [f64],
}

/// A kind of metric of the library.
trait Kind: Collector + Clone + Sized + 'static {
    const NAME: &'static str;

    fn build(declared: &Declared) -> prometheus::Result<Self>;
}

macro_rules! kinds {
    ($($kind:ident $name:literal |$declared:ident| $build:expr;)+) => {
        $(impl Kind for $kind {
            const NAME: &'static str = $name;

            fn build($declared: &Declared) -> prometheus::Result<Self> {
                $build
            }
        })+
    };
}

kinds! {
    IntCounter "counter" |declared| Self::new(declared.name, declared.help);
    IntCounterVec "counter" |declared| Self::new(Opts::new(declared.name, declared.help), declared.labels);
    IntGauge "gauge" |declared| Self::new(declared.name, declared.help);
    IntGaugeVec "gauge" |declared| Self::new(Opts::new(declared.name, declared.help), declared.labels);
    Gauge "gauge" |declared| Self::new(declared.name, declared.help);
    GaugeVec "gauge" |declared| Self::new(Opts::new(declared.name, declared.help), declared.labels);
    HistogramVec "histogram" |declared| {
        Self::new(HistogramOpts::new(declared.name, declared.help).buckets(declared.buckets.to_vec()), declared.labels)
    };
}

macro_rules! metrics {
    ($($field:ident: $kind:ident, $name:literal, [$($label:literal),*], $buckets:expr, $help:literal;)+) => {
        /// All metrics of the process.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            registry: Registry,
            $(pub(crate) $field: $kind,)+
        }

        /// All of them, as they are declared.
        pub const DECLARED: &[Declared] = &[$(Declared {
            name: $name,
            kind: <$kind as Kind>::NAME,
            labels: &[$($label),*],
            help: $help,
            buckets: $buckets,
        }),+];

        impl Metrics {
            fn build(registry: Registry) -> prometheus::Result<Self> {
                let mut declared = DECLARED.iter();
                $(
                    let $field = $kind::build(declared.next().expect("each field has its declaration"))?;
                    registry.register(Box::new($field.clone()))?;
                )+
                Ok(Self { registry, $($field),+ })
            }
        }
    };
}

metrics! {
    requests: IntCounterVec, "postern_requests_total", ["endpoint", "tenant", "outcome", "cache"], &[],
        "Requests answered.";
    errors: IntCounterVec, "postern_errors_total", ["tenant", "error_code"], &[],
        "Requests refused or failed, by the error code of the answer; UPSTREAM for codes of Refold's own.";
    request_duration: HistogramVec, "postern_request_duration_seconds", ["cache"], REQUEST_BUCKETS,
        "Time from a request's head to the head of its answer.";
    upstream_request_duration: HistogramVec, "postern_upstream_request_duration_seconds", ["tenant", "outcome"],
        UPSTREAM_BUCKETS, "Time from a request to Refold to the end of its answer, each attempt for itself.";
    upstream_retries: IntCounterVec, "postern_upstream_retries_total", ["tenant"], &[],
        "Requests to Refold that were sent again.";
    circuit_open: IntGauge, "postern_upstream_circuit_open", [], &[],
        "1 while Refold is left alone since it kept failing.";
    circuit_opened: IntCounter, "postern_upstream_circuit_opened_total", [], &[],
        "Times that the circuit to Refold has opened.";
    upstream_in_flight: IntGauge, "postern_upstream_in_flight", [], &[],
        "Requests to Refold under way.";
    budget_wait: HistogramVec, "postern_upstream_budget_wait_seconds", ["tenant", "urgency"], WAIT_BUCKETS,
        "Time that fetches waited for the org key's budget, granted or not.";
    budget_granted: IntCounterVec, "postern_upstream_budget_granted_total", ["tenant"], &[],
        "Requests that the org key's budget has granted.";
    budget_refused: IntCounterVec, "postern_upstream_budget_refused_total", ["tenant", "urgency"], &[],
        "Requests that the org key's budget has refused: the wait would have been too long.";
    budget_waiting: IntGaugeVec, "postern_upstream_budget_waiting", ["tenant"], &[],
        "Fetches that wait for the org key's budget.";
    budget_limit: GaugeVec, "postern_upstream_budget_limit", ["tenant"], &[],
        "Requests per second that the org key's budget grants at full pace.";
    budget_pace: GaugeVec, "postern_upstream_budget_pace_ratio", ["tenant"], &[],
        "Present pace of the org key's budget: 1 is full, less after Refold answered 429.";
    cache_bytes: IntGauge, "postern_cache_bytes", [], &[],
        "Bytes in the cache.";
    cache_capacity: IntGauge, "postern_cache_capacity_bytes", [], &[],
        "Bytes that the cache may hold.";
    cache_entries: IntGauge, "postern_cache_entries", [], &[],
        "Entries in the cache.";
    cache_evictions: IntCounter, "postern_cache_evictions_total", [], &[],
        "Entries that had to make room for others, or that others were not to make room for.";
    partitions: IntGaugeVec, "postern_partitions", ["tenant"], &[],
        "Linked accounts and session tokens that are remembered, each with its budget.";
    tenant_ready: IntGaugeVec, "postern_tenant_ready", ["tenant"], &[],
        "0 while Refold takes none of the tenant's org keys (a refusal counts for a minute), 1 otherwise.";
    webhooks: IntCounterVec, "postern_webhooks_total", ["tenant", "outcome"], &[],
        "Deliveries of Refold's webhooks.";
    config_reloads: IntCounterVec, "postern_config_reloads_total", ["outcome"], &[],
        "Times that the configuration was read again.";
    config_reload_successful: IntGauge, "postern_config_last_reload_successful", [], &[],
        "1 if the configuration that was read last is in use, 0 if it was refused.";
    config_reload_success: Gauge, "postern_config_last_reload_success_timestamp_seconds", [], &[],
        "When the configuration in use was read, in seconds since 1970.";
    connections: IntGauge, "postern_connections", [], &[],
        "Connections of callers that are open.";
    log_lines_dropped: IntCounter, "postern_log_lines_dropped_total", [], &[],
        "Log lines that were dropped since standard error did not take them fast enough.";
    spans_dropped: IntCounter, "postern_spans_dropped_total", [], &[],
        "Spans that were dropped since the collector did not take them.";
    build_info: IntGaugeVec, "postern_build_info", ["version"], &[],
        "Always 1; the version is in the label.";
}

impl Metrics {
    /// All of them at zero.
    pub(crate) fn new() -> Self {
        let metrics = Self::build(Registry::new()).expect("the names are valid and different: a test makes them all");
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics
    }

    /// The present values in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        // Strings and numbers: there is nothing to fail on.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    fn latency(&self, cache: &str) -> Histogram {
        self.request_duration.with_label_values(&[cache])
    }
}

/// Brings a counter up to a total that is counted elsewhere.
pub(crate) fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_say_their_unit_and_kind() {
        let _all = Metrics::new();
        for declared in DECLARED {
            assert!(declared.name.starts_with("postern_"), "{declared:?}");
            assert_eq!(declared.name.ends_with("_total"), declared.kind == "counter", "{declared:?}");
            assert!(declared.kind != "histogram" || declared.name.ends_with("_seconds"), "{declared:?}");
            assert!(declared.help.ends_with('.') || declared.help.ends_with("label."), "{declared:?}");
            assert!(declared.buckets.is_sorted() && declared.buckets.is_empty() == (declared.kind != "histogram"));
        }
    }

    #[test]
    fn a_counter_that_catches_up_never_goes_back() {
        let metrics = Metrics::new();
        for (total, shown) in [(3, 3), (3, 3), (2, 3), (7, 7)] {
            catch_up(&metrics.log_lines_dropped, total);
            assert_eq!(metrics.log_lines_dropped.get(), shown);
        }
    }
}
