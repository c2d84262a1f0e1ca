//! Metrics, access log, traces and recent activity.
//!
//! A finished request becomes one [`AccessRecord`]. The [`Observer`] counts it (`metrics`), adds it to the recent activity of
//! the status page (`recent`) and writes its line (`access_log`, `log_writer`). Spans (`traces`) are recorded while the
//! request runs. For a hit, all this allocates nothing and takes no lock but that of the thread's log buffer.

mod access_log;
mod access_record;
mod close_reason;
mod events;
mod key_check;
mod latency;
mod log_output;
mod log_text;
mod log_writer;
mod metrics;
mod process;
mod recent;
mod removed_tenants;
mod request_origin;
mod scrape;
mod stripe;
mod traces;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;

pub use self::access_log::TARGET;
pub use self::access_record::{AccessError, AccessRecord, CallerIdentity};
pub use self::close_reason::{AdminCloseReason, CloseReason};
pub use self::events::Event;
use self::events::EventList;
pub use self::key_check::{KeyCheck, KeyCheckResult};
pub use self::latency::Quantiles;
pub use self::log_output::StandardError;
pub use self::log_writer::{LogWriter, LogWriterGuard};
pub(crate) use self::metrics::TenantMetrics;
pub use self::metrics::{ComparisonResult, DECLARED, MetricDeclaration, UpstreamOutcome, WebhookOutcome};
use self::metrics::{Metrics, NO_LABELS, RequestMetrics};
pub use self::recent::{
    ErrorGroup, FailedRenewal, Latency, Occurrences, RecentActivity, RecentError, RecentRenewalError,
    RenewalErrorGroup, Traffic, printable,
};
use self::removed_tenants::RemovedTenants;
pub use self::request_origin::RequestOrigin;
pub use self::scrape::{ScrapeState, ScrapedFleet, ScrapedTenant};
pub use self::traces::{Span, SpanContext, TraceId, Tracer};
use crate::clock::Clock;
use crate::config;
use crate::fleet::FleetMetrics;
use crate::http_client::ClientSetupError;
use crate::tenant::{OrgKey, Tenant};

/// Collects metrics, access log and recent activity. One per process: it outlives reloads of the configuration.
#[derive(Debug)]
pub struct Observer {
    recent: RecentActivity,
    events: EventList,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    /// Metrics of requests whose tenant is not known.
    unidentified: RequestMetrics,
    /// Metrics of each tenant, by [`Tenant::interned_id`].
    tenants: ArcSwap<Vec<Option<Arc<TenantMetrics>>>>,
    /// The destination of the access log; `None` if requests are not logged.
    access_log: Option<LogWriter>,
    /// Locked during a scrape.
    scraping: Mutex<RemovedTenants>,
}

impl Observer {
    /// An observer with all metrics at zero. Without a log writer, requests leave no log line.
    #[must_use]
    pub fn new(clock: Clock, access_log: Option<LogWriter>) -> Self {
        let metrics = Arc::new(Metrics::new());
        metrics.process_start.set(Metrics::seconds(clock.wall()));
        Self {
            recent: RecentActivity::default(),
            events: EventList::default(),
            unidentified: RequestMetrics::new(&metrics, "".into()),
            tenants: ArcSwap::default(),
            access_log,
            scraping: Mutex::default(),
            metrics,
            clock,
        }
    }

    /// Records an answered request. Part of the hit path.
    pub fn answered(&self, log: &config::Log, record: &AccessRecord<'_>) {
        self.recent.answered(record);
        match record.caller.map(|caller| caller.tenant) {
            None => count(&self.unidentified, record),
            Some(tenant) => match self.tenants.load().get(tenant.interned_id()) {
                Some(Some(metrics)) => count(&metrics.requests, record),
                _ => count(&self.tenant_metrics(tenant).requests, record),
            },
        }
        if let Some(writer) = &self.access_log {
            access_log::log(writer, log, &self.clock, record);
        }
    }

    /// The activity of the last minutes.
    #[must_use]
    pub fn recent(&self) -> &RecentActivity {
        &self.recent
    }

    /// Adds an event to those that the status page shows. The name is that of its log event.
    pub fn event(&self, event: &'static str, tenant: Option<&str>, details: String) {
        self.events.add(Event { at: self.clock.wall(), event, tenant: tenant.map(str::to_owned), details });
    }

    /// The last events, newest first, with linked accounts named like this.
    #[must_use]
    pub fn events(&self, naming: config::AccountNaming) -> Vec<Event> {
        self.events.all(naming)
    }

    /// Counts the delivery of a webhook.
    pub fn webhook(&self, tenant: &Tenant, outcome: WebhookOutcome) {
        self.tenant_metrics(tenant).webhook(outcome, self.clock.wall());
    }

    /// Records Refold's answer to a check of an org key.
    pub fn key_checked(&self, tenant: &Tenant, key: OrgKey, result: KeyCheckResult) {
        self.tenant_metrics(tenant).key_checked(KeyCheck { at: self.clock.wall(), key: key.name(), result });
    }

    /// The time of a tenant's last accepted webhook, and its last check of an org key.
    #[must_use]
    pub fn last_signals(&self, tenant: &Tenant) -> (Option<Timestamp>, Option<KeyCheck>) {
        let last = *self.tenant_metrics(tenant).last();
        (last.webhook, last.key_check)
    }

    /// Counts a cache entry that was evicted.
    pub fn evicted(&self) {
        self.metrics.cache_evictions.inc();
    }

    /// Counts a caller's connection as open until the guard is dropped.
    #[must_use]
    pub fn connection_opened(self: &Arc<Self>) -> OpenConnectionGuard {
        self.metrics.connections.inc();
        OpenConnectionGuard(Arc::clone(self))
    }

    /// Counts a caller's connection that Postern closed.
    pub fn connection_closed(&self, reason: CloseReason) {
        self.metrics.connections_closed.with_label_values(&[reason.name()]).inc();
    }

    /// Counts a connection of the admin listener that Postern closed.
    pub fn admin_connection_closed(&self, reason: AdminCloseReason) {
        self.metrics.admin_connections_closed.with_label_values(&[reason.name()]).inc();
    }

    /// Sets the most connections of callers that can be open.
    pub fn set_connections_limit(&self, limit: usize) {
        self.metrics.connections_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// The counts of a fleet's commands. Without a fleet they are not shown.
    #[must_use]
    pub fn fleet_metrics(&self) -> FleetMetrics {
        FleetMetrics {
            round_trips: self.metrics.fleet_round_trip.with_label_values(NO_LABELS),
            timeouts: self.metrics.fleet_timeouts.with_label_values(NO_LABELS),
            script_errors: self.metrics.fleet_script_errors.with_label_values(NO_LABELS),
            connections: self.metrics.fleet_connections.with_label_values(NO_LABELS),
            takes: self.metrics.fleet_takes.clone(),
            drops: self.metrics.fleet_drops.clone(),
            forgotten: self.metrics.fleet_forgotten.with_label_values(NO_LABELS),
            client_refills: self.metrics.fleet_client_refills.with_label_values(NO_LABELS),
            client_waits: self.metrics.fleet_client_waits.with_label_values(NO_LABELS),
            client_unanswered: self.metrics.fleet_client_unanswered.with_label_values(NO_LABELS),
        }
    }

    /// A tracer with these settings, which sends its spans to their collector; `None` if they name no collector.
    ///
    /// # Errors
    /// If the client for the collector can't be set up.
    pub fn tracer(&self, settings: &config::Traces) -> Result<Option<Tracer>, ClientSetupError> {
        Tracer::start(settings, self.clock.clone(), self.metrics.spans_dropped.clone())
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn prometheus_text(&self, state: &ScrapeState<'_>) -> String {
        let mut removed = self.scraping();
        self.remove_tenants(&removed.at_scrape());
        process::update(&self.metrics);
        state.update(&self.metrics, self.access_log.as_ref().map_or(0, LogWriter::dropped));
        self.metrics.text()
    }

    /// Notes the tenants of the configuration that takes effect now. The series of others are removed at the next scrapes.
    pub fn configure(&self, tenants: &[Arc<Tenant>]) {
        self.scraping().configure(tenants);
    }

    fn scraping(&self) -> MutexGuard<'_, RemovedTenants> {
        // Nothing is left inconsistent by a panic: the next scrape sets all values anew.
        self.scraping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_tenants(&self, removed: &[(usize, Arc<str>)]) {
        if removed.is_empty() {
            return;
        }
        // First, so that what counts from now on has series of its own.
        self.tenants.rcu(|known| {
            let mut left = Vec::clone(known);
            for (number, _) in removed {
                if let Some(metrics) = left.get_mut(*number) {
                    *metrics = None;
                }
            }
            left
        });
        let ids: Vec<&str> = removed.iter().map(|(_, id)| &**id).collect();
        self.metrics.remove_tenants(&ids);
    }

    /// The metrics of a tenant. After a reload, a tenant with the same id continues the same counts.
    pub(crate) fn tenant_metrics(&self, tenant: &Tenant) -> Arc<TenantMetrics> {
        let number = tenant.interned_id();
        if let Some(Some(known)) = self.tenants.load().get(number) {
            return Arc::clone(known);
        }
        let new = Arc::new(TenantMetrics::new(&self.metrics, Arc::clone(&tenant.config.id)));
        // If two threads do this at once, both values count into the same metrics, so it does not matter which one stays.
        self.tenants.rcu(|known| {
            let mut all = Vec::clone(known);
            all.resize(all.len().max(number + 1), None);
            all[number].get_or_insert_with(|| Arc::clone(&new));
            all
        });
        new
    }
}

fn count(requests: &RequestMetrics, record: &AccessRecord<'_>) {
    requests.answered(record.resource, record.status, record.cache, record.duration);
    if let Some(caller) = &record.caller {
        requests.called(caller, record.status);
    }
    if let Some(age) = record.age {
        requests.served(record.cache, age);
    }
    if let Some(error) = record.error {
        requests.failed(error.label);
        if let Some(problem) = error.credential_problem {
            requests.credential_refused(problem);
        }
    }
}

/// Counts a connection as open for as long as it lives.
#[derive(Debug)]
pub struct OpenConnectionGuard(Arc<Observer>);

impl Drop for OpenConnectionGuard {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}
