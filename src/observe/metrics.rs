//! The declaration of every metric: its name (which includes the unit), labels and help text.
//!
//! The library is `prometheus`, whose counters and histograms use atomic additions only; the histogram of
//! `prometheus-client` takes a lock. Label values are bounded: they come from the configuration or from enumerations.

mod handles;
mod remove_series;

use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use self::handles::{ComparisonResult, UpstreamOutcome, WebhookOutcome};
pub(crate) use self::handles::{RequestMetrics, TenantMetrics};
use self::remove_series::RemoveSeries;
use super::close_reason::{AdminCloseReason, CloseReason};
use crate::series::{self, Family};

/// Kinds of metrics that have series for each tenant.
type CounterFamily = Family<series::Counter>;
type GaugeFamily = Family<series::Gauge>;
type HistogramFamily = Family<series::Histogram>;

/// Seconds, from the duration of a hit to the longest waits that are configured.
const REQUEST_BUCKETS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Seconds, from an upstream in the same network to the default total timeout.
const UPSTREAM_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds, from the next permit to the longest wait of a background fetch.
const WAIT_BUCKETS: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Seconds, from a server on the same machine to the default limit of a command.
const ROUND_TRIP_BUCKETS: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05];

/// The label values of a metric that has no labels, and is shown only once it is used.
pub(crate) const NO_LABELS: &[&str] = &[];
/// Seconds, from an answer fetched just now to the end of the default stale window.
const AGE_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0];

/// The declaration of a metric.
#[derive(Debug)]
pub struct MetricDeclaration {
    /// The name, `postern_…` or `process_…`, which includes the unit.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text, which `docs/observability.md` repeats.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets; empty for other kinds.
    buckets: &'static [f64],
}

/// A type of the library that a declaration can be built as.
trait MetricKind: Collector + Clone + Sized + 'static {
    const NAME: &'static str;

    fn build(declaration: &MetricDeclaration) -> prometheus::Result<Self>;
}

macro_rules! kinds {
    ($($kind:ident $name:literal |$declared:ident| $build:expr;)+) => {
        $(impl MetricKind for $kind {
            const NAME: &'static str = $name;

            fn build($declared: &MetricDeclaration) -> prometheus::Result<Self> {
                $build
            }
        })+
    };
}

kinds! {
    Counter "counter" |declared| Self::new(declared.name, declared.help);
    IntCounter "counter" |declared| Self::new(declared.name, declared.help);
    IntCounterVec "counter" |declared| Self::new(Opts::new(declared.name, declared.help), declared.labels);
    IntGauge "gauge" |declared| Self::new(declared.name, declared.help);
    IntGaugeVec "gauge" |declared| Self::new(Opts::new(declared.name, declared.help), declared.labels);
    Gauge "gauge" |declared| Self::new(declared.name, declared.help);
    GaugeVec "gauge" |declared| Self::new(Opts::new(declared.name, declared.help), declared.labels);
    CounterFamily "counter" |declared| Self::new(declared.name, declared.help, declared.labels, declared.buckets);
    GaugeFamily "gauge" |declared| Self::new(declared.name, declared.help, declared.labels, declared.buckets);
    HistogramFamily "histogram" |declared| Self::new(declared.name, declared.help, declared.labels, declared.buckets);
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

        /// The declarations of all metrics.
        pub const DECLARED: &[MetricDeclaration] = &[$(MetricDeclaration {
            name: $name,
            kind: <$kind as MetricKind>::NAME,
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

            /// Removes the series of tenants.
            pub(crate) fn remove_tenants(&self, ids: &[&str]) {
                $(self.$field.remove_series("tenant", ids);)+
            }
        }
    };
}

metrics! {
    requests: CounterFamily, "postern_requests_total", ["endpoint", "tenant", "outcome", "cache"], &[],
        "Requests answered.";
    caller_requests: CounterFamily, "postern_caller_requests_total", ["tenant", "credential", "name", "outcome"], &[],
        "Requests of known callers by their credential; name is that of a client key, a client certificate or the issuer of a JWT.";
    errors: CounterFamily, "postern_errors_total", ["tenant", "error_code"], &[],
        "Error responses by error code; UPSTREAM for all errors that Refold answered.";
    refused_credentials: IntCounterVec, "postern_refused_credentials_total", ["reason"], &[],
        "Requests refused for their credential, by what was wrong with it.";
    request_duration: HistogramVec, "postern_request_duration_seconds", ["cache"], REQUEST_BUCKETS,
        "Time from the head of a request to the head of its response.";
    response_age: HistogramFamily, "postern_response_age_seconds", ["tenant", "served"], AGE_BUCKETS,
        "Age of the pages and documents that were served: fresh or stale from the cache, or fetched.";
    renewal_errors: CounterFamily, "postern_renewal_errors_total", ["tenant", "error_code"], &[],
        "Stale pages and documents that could not be fetched anew, by error code.";
    upstream_request_duration: HistogramFamily, "postern_upstream_request_duration_seconds", ["tenant", "outcome"],
        UPSTREAM_BUCKETS, "Time from a request to Refold to the end of its response; each attempt counts separately.";
    upstream_retries: CounterFamily, "postern_upstream_retries_total", ["tenant"], &[],
        "Retries of requests to Refold.";
    circuit_open: GaugeFamily, "postern_upstream_circuit_open", ["tenant"], &[],
        "1 while the tenant's circuit to Refold is open or half open, 0 while it is closed.";
    circuit_opened: CounterFamily, "postern_upstream_circuit_opened_total", ["tenant"], &[],
        "Times the tenant's circuit to Refold opened.";
    upstream_in_flight: IntGauge, "postern_upstream_in_flight", [], &[],
        "Requests to Refold in flight.";
    budget_wait: HistogramFamily, "postern_upstream_budget_wait_seconds", ["tenant", "urgency"], WAIT_BUCKETS,
        "Time that fetches waited until the org key's budget granted or refused them.";
    budget_granted: CounterFamily, "postern_upstream_budget_granted_total", ["tenant"], &[],
        "Requests that the org key's budget granted.";
    budget_refused: CounterFamily, "postern_upstream_budget_refused_total", ["tenant", "urgency"], &[],
        "Requests that the org key's budget refused because they would have waited too long.";
    budget_waiting: GaugeFamily, "postern_upstream_budget_waiting", ["tenant"], &[],
        "Fetches waiting for the org key's budget.";
    budget_limit: GaugeFamily, "postern_upstream_budget_limit", ["tenant"], &[],
        "Requests per second that the org key's budget grants at its full rate.";
    budget_pace: GaugeFamily, "postern_upstream_budget_pace_ratio", ["tenant"], &[],
        "Present rate of the org key's budget as a share of the full rate; below 1 after Refold answered 429.";
    cache_bytes: IntGauge, "postern_cache_bytes", [], &[],
        "Size of the entries in the cache, in bytes.";
    cache_capacity: IntGauge, "postern_cache_capacity_bytes", [], &[],
        "Capacity of the cache, in bytes.";
    cache_entries: IntGauge, "postern_cache_entries", [], &[],
        "Entries in the cache.";
    cache_evictions: IntCounter, "postern_cache_evictions_total", [], &[],
        "Entries that the full cache evicted or did not admit.";
    partitions: GaugeFamily, "postern_partitions", ["tenant"], &[],
        "Linked accounts and session tokens with a budget in memory.";
    tenant_ready: GaugeFamily, "postern_tenant_ready", ["tenant"], &[],
        "0 at start until Refold accepts an org key of the tenant, if verify_key is require; otherwise 1.";
    org_key_accepted: GaugeFamily, "postern_org_key_accepted", ["tenant"], &[],
        "0 while Refold refuses every org key of the tenant, otherwise 1.";
    org_key_checked: GaugeFamily, "postern_org_key_last_check_timestamp_seconds", ["tenant", "key", "result"], &[],
        "Unix time at which Refold last gave this answer to a check of the org key, in seconds.";
    client_key_expiry: GaugeFamily, "postern_client_key_expiry_timestamp_seconds", ["tenant", "name"], &[],
        "Unix time from which a client key is refused, in seconds; only keys that expire.";
    certificate_expiry: GaugeVec, "postern_certificate_expiry_timestamp_seconds", ["file"], &[],
        "Unix time at which a certificate in this file of a listener (its own, its chain, the authorities of its clients) expires, in seconds.";
    derivation_comparisons: CounterFamily, "postern_derivation_comparisons_total", ["tenant", "result"], &[],
        "Comparisons of derived answers with Refold's own.";
    derivation_contradicted: CounterFamily, "postern_derivation_contradicted_total", ["tenant", "kind"], &[],
        "Times a confirmed difference from Refold's answer put a kind of derivation out of use.";
    derivation_in_use: GaugeFamily, "postern_derivation_in_use", ["tenant", "kind"], &[],
        "1 while answers are derived in this way, otherwise 0.";
    issuer_keys_available: IntGaugeVec, "postern_issuer_keys_available", ["issuer"], &[],
        "0 while the keys of an issuer of tokens could never be read, otherwise 1.";
    webhooks: CounterFamily, "postern_webhooks_total", ["tenant", "outcome"], &[],
        "Webhook deliveries from Refold.";
    webhook_accepted: GaugeFamily, "postern_webhook_last_accepted_timestamp_seconds", ["tenant"], &[],
        "Unix time of the last webhook delivery with a valid signature, in seconds.";
    config_reloads: IntCounterVec, "postern_config_reloads_total", ["outcome"], &[],
        "Reloads of the configuration.";
    config_reload_successful: IntGauge, "postern_config_last_reload_successful", [], &[],
        "1 if the configuration that was read last is in effect, 0 if it was refused.";
    config_reload_success: Gauge, "postern_config_last_reload_success_timestamp_seconds", [], &[],
        "Unix time at which the configuration in effect was read, in seconds.";
    connections: IntGauge, "postern_connections", [], &[],
        "Open connections of callers, those in the TLS handshake included.";
    connections_limit: IntGauge, "postern_connections_limit", [], &[],
        "Most open connections of callers; less than max_connections if the process may open too few files.";
    connections_closed: IntCounterVec, "postern_connections_closed_total", ["reason"], &[],
        "Connections of callers that Postern closed before they ended by themselves, by reason.";
    admin_connections_closed: IntCounterVec, "postern_admin_connections_closed_total", ["reason"], &[],
        "Connections of the admin listener that Postern closed before they ended by themselves, by reason.";
    fleet_state: IntGaugeVec, "postern_fleet_state", ["state"], &[],
        "1 for the state of this replica in its fleet, 0 for the others.";
    fleet_members: IntGaugeVec, "postern_fleet_members", ["lease"], &[],
        "Replicas that this one knows of, by whether their lease lasts or has ended within the last minute.";
    fleet_replicas: IntGaugeVec, "postern_fleet_replicas", [], &[],
        "Largest number of replicas that the configuration allows.";
    fleet_lag: GaugeVec, "postern_fleet_lag_seconds", [], &[],
        "Time since this replica sent the last beat that the fleet's server answered.";
    fleet_round_trip: HistogramVec, "postern_fleet_round_trip_seconds", [], ROUND_TRIP_BUCKETS,
        "Time from a command to the answer of the fleet's server.";
    fleet_timeouts: IntCounterVec, "postern_fleet_timeouts_total", [], &[],
        "Commands that the fleet's server did not answer in time.";
    fleet_script_errors: IntCounterVec, "postern_fleet_script_errors_total", [], &[],
        "Commands that failed in a script or by the access control list of the fleet's server.";
    fleet_connections: IntCounterVec, "postern_fleet_connections_total", [], &[],
        "Connections to the fleet's server that were opened.";
    fleet_cache_current: IntGaugeVec, "postern_fleet_cache_current", [], &[],
        "1 while this replica knows which entries the other replicas have dropped.";
    fleet_takes: IntCounterVec, "postern_fleet_takes_total", ["result"], &[],
        "Questions to the cache that the replicas share: hit, lead (this replica fetches), wait (another one does) or unavailable.";
    fleet_drops: IntCounterVec, "postern_fleet_drops_total", ["reach"], &[],
        "Drops of entries: confirmed by every replica, trust_over (not confirmed in time) or this_replica (the fleet's server is away).";
    fleet_forgotten: IntCounterVec, "postern_fleet_cache_forgotten_total", [], &[],
        "Times that this replica dropped all entries, since it could not know which ones the others had dropped.";
    fleet_client_refills: IntCounterVec, "postern_fleet_client_refills_total", [], &[],
        "Client budgets that the fleet's server was asked to refill.";
    fleet_client_waits: IntCounterVec, "postern_fleet_client_waits_total", [], &[],
        "Requests that waited for the fleet's server to decide about a client budget.";
    fleet_client_unanswered: IntCounterVec, "postern_fleet_client_unanswered_total", [], &[],
        "Requests about whose client budget the fleet's server did not decide in time, so that this replica did.";
    log_lines_dropped: IntCounter, "postern_log_lines_dropped_total", [], &[],
        "Log lines lost because standard error was full, not read fast enough, or closed by its reader.";
    spans_dropped: IntCounter, "postern_spans_dropped_total", [], &[],
        "Spans dropped because the queue to the collector was full or the collector rejected them.";
    build_info: IntGaugeVec, "postern_build_info", ["version"], &[],
        "Always 1; the version is in the label.";
    process_cpu: Counter, "process_cpu_seconds_total", [], &[],
        "CPU time that the process has spent, in seconds.";
    process_resident: IntGauge, "process_resident_memory_bytes", [], &[],
        "Resident memory of the process, in bytes.";
    process_open_fds: IntGauge, "process_open_fds", [], &[],
        "Open file descriptors of the process.";
    process_max_fds: IntGauge, "process_max_fds", [], &[],
        "Most open file descriptors of the process.";
    process_start: Gauge, "process_start_time_seconds", [], &[],
        "Unix time at which the process started, in seconds.";
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    pub(crate) fn new() -> Self {
        let metrics =
            Self::build(Registry::new()).expect("the declared names are valid and distinct: a test builds them all");
        // A counter that is there from the start shows its first increase.
        for reason in CloseReason::ALL {
            let _ = metrics.connections_closed.with_label_values(&[reason.name()]);
        }
        for reason in AdminCloseReason::ALL {
            let _ = metrics.admin_connections_closed.with_label_values(&[reason.name()]);
        }
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics
    }

    /// The present values, in Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        // Writing strings and numbers to memory does not fail.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// A time as seconds since 1970.
    pub(crate) fn seconds(time: Timestamp) -> f64 {
        time.as_duration().as_secs_f64()
    }

    fn latency(&self, cache: &str) -> Histogram {
        self.request_duration.with_label_values(&[cache])
    }
}

/// Raises a counter to a total that another module counts.
pub(crate) fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_are_distinct_and_show_unit_and_kind() {
        let _all = Metrics::new();
        for declared in DECLARED {
            assert!(["postern_", "process_"].iter().any(|prefix| declared.name.starts_with(prefix)), "{declared:?}");
            assert_eq!(declared.name.ends_with("_total"), declared.kind == "counter", "{declared:?}");
            assert!(declared.kind != "histogram" || declared.name.ends_with("_seconds"), "{declared:?}");
            assert!(declared.help.ends_with('.') || declared.help.ends_with("label."), "{declared:?}");
            assert!(declared.buckets.is_sorted() && declared.buckets.is_empty() == (declared.kind != "histogram"));
        }
    }

    #[test]
    fn a_counter_that_catches_up_never_decreases() {
        let metrics = Metrics::new();
        for (total, shown) in [(3, 3), (3, 3), (2, 3), (7, 7)] {
            catch_up(&metrics.log_lines_dropped, total);
            assert_eq!(metrics.log_lines_dropped.get(), shown);
        }
    }
}
