//! Updates the gauges and totals that other modules keep, when Prometheus scrapes.

use std::time::Duration;

use super::metrics::{Metrics, NO_LABELS, catch_up};
use crate::cache::Usage;
use crate::caller::{ClientKeyStatus, CredentialKind};
use crate::executions::DerivationKind;
use crate::fleet::{FleetState, Members};
use crate::lifecycle::Reloads;
use crate::series::float;
use crate::tenant::Tenant;
use crate::tls::CertificateExpiry;

/// The state of a gateway at the time of a scrape.
#[derive(Debug)]
pub struct ScrapeState<'a> {
    /// Size and contents of the cache.
    pub cache: Usage,
    /// All tenants of the configuration.
    pub tenants: Vec<ScrapedTenant<'a>>,
    /// The issuers of tokens, each with whether its keys were ever read.
    pub issuers: Vec<(&'a str, bool)>,
    /// This replica in its fleet; `None` without one.
    pub fleet: Option<ScrapedFleet>,
    /// Results of the configuration's reloads.
    pub reloads: &'a Reloads,
    /// The client keys of all tenants.
    pub client_keys: Vec<ClientKeyStatus>,
    /// The certificates of the listeners.
    pub certificates: &'a [CertificateExpiry],
}

/// The state of a replica in its fleet at the time of a scrape.
#[derive(Debug)]
pub struct ScrapedFleet {
    /// The state.
    pub state: FleetState,
    /// The members at the last answered beat.
    pub members: Members,
    /// The largest number of replicas.
    pub replicas: u32,
    /// Time since the last answered beat was sent; since the start, if there was none.
    pub lag: Duration,
    /// True while the replica knows which entries the others have dropped.
    pub is_cache_current: bool,
}

/// The state of a tenant at the time of a scrape.
#[derive(Debug)]
pub struct ScrapedTenant<'a> {
    /// The tenant.
    pub tenant: &'a Tenant,
    /// True if the tenant counts as ready.
    pub is_ready: bool,
    /// True unless the tenant's circuit to Refold is closed.
    pub circuit_open: bool,
    /// The kinds of derivation, each with true if answers are derived in this way.
    pub derivations: Vec<(DerivationKind, bool)>,
}

impl ScrapeState<'_> {
    /// Sets the gauges, and brings the counters up to their totals. To be called from one thread at a time: it removes the
    /// tenants of the last scrape before it adds the present ones.
    pub(super) fn update(&self, metrics: &Metrics, log_lines_dropped: u64) {
        metrics.cache_bytes.set(signed(self.cache.bytes));
        metrics.cache_entries.set(signed(self.cache.entries));
        metrics.cache_capacity.set(signed(self.cache.capacity));
        for (outcome, total) in [("succeeded", self.reloads.succeeded), ("refused", self.reloads.refused)] {
            catch_up(&metrics.config_reloads.with_label_values(&[outcome]), total);
        }
        metrics.config_reload_successful.set(self.reloads.last_succeeded().into());
        metrics.config_reload_success.set(Metrics::seconds(self.reloads.last_success));
        catch_up(&metrics.log_lines_dropped, log_lines_dropped);
        if let Some(fleet) = &self.fleet {
            fleet.update(metrics);
        }
        // A reload may have removed a tenant.
        metrics.circuit_open.reset();
        metrics.budget_waiting.reset();
        metrics.budget_limit.reset();
        metrics.budget_pace.reset();
        metrics.partitions.reset();
        metrics.tenant_ready.reset();
        metrics.org_key_accepted.reset();
        metrics.derivation_in_use.reset();
        metrics.issuer_keys_available.reset();
        metrics.client_key_expiry.reset();
        metrics.certificate_expiry.reset();
        self.update_expiries(metrics);
        for (issuer, has_keys) in &self.issuers {
            metrics.issuer_keys_available.with_label_values(&[*issuer]).set((*has_keys).into());
        }
        for ScrapedTenant { tenant, is_ready, circuit_open, derivations } in &self.tenants {
            let id = [&*tenant.config.id];
            // A counter that is there from the start shows its first increase.
            let _ = metrics.circuit_opened.with_label_values(&id);
            metrics.circuit_open.with_label_values(&id).set((*circuit_open).into());
            for (kind, in_use) in derivations {
                metrics.derivation_in_use.with_label_values(&[id[0], kind.name()]).set((*in_use).into());
            }
            let budget = tenant.upstream_budget().status();
            metrics.budget_waiting.with_label_values(&id).set(float(budget.waiting as u64));
            metrics.budget_limit.with_label_values(&id).set(budget.per_second.into());
            metrics.budget_pace.with_label_values(&id).set(budget.rate_factor);
            metrics.partitions.with_label_values(&id).set(float(tenant.partitions()));
            metrics.tenant_ready.with_label_values(&id).set((*is_ready).into());
            metrics.org_key_accepted.with_label_values(&id).set(tenant.credential_accepted().into());
        }
    }

    fn update_expiries(&self, metrics: &Metrics) {
        for key in &self.client_keys {
            let labels = [&*key.tenant, &*key.name];
            for outcome in ["2xx", "429"] {
                // As above: its first increase shows.
                let labels = [labels[0], CredentialKind::ClientKey.name(), labels[1], outcome];
                let _ = metrics.caller_requests.with_label_values(&labels);
            }
            if let Some(expires) = key.expires {
                metrics.client_key_expiry.with_label_values(&labels).set(Metrics::seconds(expires));
            }
        }
        for certificate in self.certificates {
            let file = certificate.file.to_string_lossy();
            metrics.certificate_expiry.with_label_values(&[&*file]).set(Metrics::seconds(certificate.expires));
        }
    }
}

impl ScrapedFleet {
    fn update(&self, metrics: &Metrics) {
        for state in FleetState::ALL {
            metrics.fleet_state.with_label_values(&[state.name()]).set((state == self.state).into());
        }
        let Members { known, live, .. } = self.members;
        for (lease, count) in [("lasts", live), ("ended", known.saturating_sub(live))] {
            metrics.fleet_members.with_label_values(&[lease]).set(count.into());
        }
        metrics.fleet_replicas.with_label_values(NO_LABELS).set(self.replicas.into());
        metrics.fleet_cache_current.with_label_values(NO_LABELS).set(self.is_cache_current.into());
        metrics.fleet_lag.with_label_values(NO_LABELS).set(self.lag.as_secs_f64());
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
