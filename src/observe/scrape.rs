//! What others know and metrics show: looked at when somebody asks.

use std::sync::Arc;

use super::Observer;
use super::access_log;
use super::metrics::catch_up;
use crate::cache::Usage;
use crate::lifecycle::Reloads;
use crate::tenant::Tenant;

/// The state of a gateway, for its gauges.
#[derive(Debug)]
pub struct State<'a> {
    /// What is in the cache.
    pub cache: Usage,
    /// Whether Refold is left alone.
    pub circuit_open: bool,
    /// All tenants.
    pub tenants: &'a [Arc<Tenant>],
    /// How the reloads of the configuration went.
    pub reloads: &'a Reloads,
}

impl Observer {
    /// All metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn text(&self, state: &State<'_>) -> String {
        let metrics = &self.metrics;
        // Two at once would take tenants from each other that they have just put in.
        let _alone = self.scraping.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        metrics.circuit_open.set(state.circuit_open.into());
        metrics.cache_bytes.set(signed(state.cache.bytes));
        metrics.cache_entries.set(signed(state.cache.entries));
        metrics.cache_capacity.set(signed(state.cache.capacity));
        for (outcome, total) in [("succeeded", state.reloads.succeeded), ("refused", state.reloads.refused)] {
            catch_up(&metrics.config_reloads.with_label_values(&[outcome]), total);
        }
        metrics.config_reload_successful.set(state.reloads.last_succeeded().into());
        metrics.config_reload_success.set(state.reloads.last_success.as_duration().as_secs_f64());
        catch_up(&metrics.log_lines_dropped, access_log::dropped());
        // A tenant may have gone from the configuration.
        metrics.budget_waiting.reset();
        metrics.budget_limit.reset();
        metrics.budget_pace.reset();
        metrics.partitions.reset();
        metrics.tenant_ready.reset();
        for tenant in state.tenants {
            let id = [&*tenant.config.id];
            let budget = tenant.upstream_budget.status();
            metrics.budget_waiting.with_label_values(&id).set(signed(budget.waiting as u64));
            metrics.budget_limit.with_label_values(&id).set(budget.per_second.into());
            metrics.budget_pace.with_label_values(&id).set(budget.rate_factor);
            metrics.partitions.with_label_values(&id).set(signed(tenant.partitions()));
            metrics.tenant_ready.with_label_values(&id).set(tenant.credential_accepted().into());
        }
        metrics.text()
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
