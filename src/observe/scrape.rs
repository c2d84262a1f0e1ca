//! What others know and metrics show: looked at when somebody asks.

use std::sync::Arc;

use super::Observer;
use super::access_log;
use super::metrics::catch_up;
use crate::cache::Store;
use crate::tenant::Tenant;

/// The state of a gateway, for its gauges.
#[derive(Debug)]
pub struct State<'a> {
    /// Where entries are kept.
    pub store: &'a Store,
    /// Bytes that it may hold.
    pub capacity: u64,
    /// Whether Refold is left alone.
    pub circuit_open: bool,
    /// All tenants.
    pub tenants: &'a [Arc<Tenant>],
}

impl Observer {
    /// All metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn text(&self, state: &State<'_>) -> String {
        let metrics = &self.metrics;
        // Two at once would take tenants from each other that they have just put in.
        let _alone = self.scraping.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        metrics.circuit_open.set(state.circuit_open.into());
        state.store.tidy();
        metrics.cache_bytes.set(signed(state.store.weight()));
        metrics.cache_entries.set(signed(state.store.entries()));
        metrics.cache_capacity.set(signed(state.capacity));
        catch_up(&metrics.log_lines_dropped, access_log::dropped());
        // A tenant may have gone from the configuration.
        metrics.budget_waiting.reset();
        metrics.budget_limit.reset();
        metrics.budget_pace.reset();
        metrics.partitions.reset();
        metrics.tenant_ready.reset();
        for tenant in state.tenants {
            let id = [&*tenant.config.id];
            let limit = tenant.config.upstream_budget.rate.per_second.get();
            metrics.budget_waiting.with_label_values(&id).set(signed(tenant.upstream_budget.waiting() as u64));
            metrics.budget_limit.with_label_values(&id).set(limit.into());
            metrics.budget_pace.with_label_values(&id).set(tenant.upstream_budget.pace());
            metrics.partitions.with_label_values(&id).set(signed(tenant.partitions()));
            metrics.tenant_ready.with_label_values(&id).set(tenant.org_keys().are_good().into());
        }
        metrics.text()
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
