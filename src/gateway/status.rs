//! What the gateway tells of itself: to people, to probes, to Prometheus. Nothing here is part of a request's way.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use serde::Serialize;

use super::{ConnectionContext, Gateway};
use crate::cache::Usage;
use crate::executions::{ListQuery, Question};
use crate::lifecycle::Reloads;
use crate::observe::{Latency, RecentError, ScrapeState, Traffic};
use crate::request::headers::Fields;
use crate::tenant::{BudgetState, Busy, Tenant, TenantStatus};
use crate::upstream::Circuit;

/// Linked accounts that are shown as the busiest.
const BUSIEST: usize = 10;

/// What is going on.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// When this was.
    pub at: jiff::Timestamp,
    /// Seconds since the gateway was made.
    pub uptime: f64,
    /// Answers of the last five minutes.
    pub traffic: Traffic,
    /// How long they took in the last one.
    pub latency: Latency,
    /// What is in the cache.
    pub cache: Usage,
    /// The circuit to Refold.
    pub circuit: Circuit,
    /// Orgs, as the configuration names them.
    pub tenants: Vec<TenantStatus>,
    /// The linked accounts that have asked most in the last minute.
    pub busiest: Vec<Busy>,
    /// The last errors, the newest first.
    pub errors: Vec<RecentError>,
}

/// Whether requests can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether some tenant's can: one org whose key is refused is no reason to send the others away.
    pub ready: bool,
    /// The circuit to Refold.
    pub circuit: Circuit,
    /// Orgs, as the configuration names them.
    pub tenants: Vec<TenantReadiness>,
}

/// Whether a tenant's requests can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantReadiness {
    /// Its name in the configuration.
    pub id: String,
    /// Whether they can.
    pub ready: bool,
    /// Whether Refold has taken the org key when it was last asked.
    pub credential_accepted: bool,
    /// Whether a fetch could leave now. No reason not to be ready: it passes, and there is the cache.
    pub budget: BudgetState,
}

/// What a query is to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Whose caller asks.
    pub tenant: String,
    /// For whom; `None` for a session token, which does not show it.
    pub linked_account: Option<String>,
    /// The caller's name.
    pub caller: String,
    /// The question as every spelling of it is read.
    pub canonical: String,
    /// As it is put to Refold.
    pub upstream: String,
}

impl Gateway {
    /// What is going on.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        let recent = self.observer.recent();
        let tenants = self.callers.tenants();
        let mut busiest: Vec<Busy> = tenants.iter().flat_map(|tenant| tenant.busiest(BUSIEST, now)).collect();
        busiest.sort_by_key(|busy| std::cmp::Reverse(busy.requests));
        busiest.truncate(BUSIEST);
        let mut errors = recent.errors(now);
        // What the log may not show, the page may not either.
        let shown = self.config.log.linked_accounts;
        let busy = busiest.iter_mut().map(|busy| &mut busy.linked_account);
        for account in busy.chain(errors.iter_mut().map(|error| &mut error.linked_account)) {
            *account = account.as_deref().and_then(|id| shown.name(id)).map(Cow::into_owned);
        }
        Status {
            at: self.clock.wall(),
            uptime: now.since(crate::clock::Moment::default()).as_secs_f64(),
            traffic: recent.traffic(now),
            latency: recent.latency(now),
            cache: self.store.usage(),
            circuit: self.origin.circuit(),
            tenants: tenants.iter().map(|tenant| tenant.status()).collect(),
            busiest,
            errors,
        }
    }

    /// Whether requests can be answered.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let circuit = self.origin.circuit();
        let of = |tenant: &Arc<Tenant>| {
            let TenantStatus { id, credential_accepted, budget, .. } = tenant.status();
            // While the circuit is open there is the cache: to send callers away would make an outage of Refold's one of
            // theirs.
            TenantReadiness { id, ready: credential_accepted, credential_accepted, budget }
        };
        let tenants: Vec<TenantReadiness> = self.callers.tenants().iter().map(of).collect();
        Readiness { ready: tenants.iter().any(|tenant| tenant.ready), circuit, tenants }
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn metrics(&self, reloads: &Reloads) -> String {
        self.observer.prometheus_text(&ScrapeState {
            cache: self.store.usage(),
            circuit_open: self.origin.circuit() != Circuit::Closed,
            tenants: self.callers.tenants(),
            reloads,
        })
    }

    /// What the query of a list of executions is, if it is a good one of somebody known.
    #[must_use]
    pub fn explain(&self, scope: &ConnectionContext, headers: &HeaderMap, query: Option<&str>) -> Option<Explained> {
        let caller = self.callers.identify(&Fields::of(headers), &scope.entrance, self.clock.now()).ok()?;
        let question = Question::List(ListQuery::parse(query, &self.config.query).ok()?);
        Some(Explained {
            tenant: caller.tenant().config.id.to_string(),
            linked_account: caller.partition().linked_account_id().map(str::to_owned),
            caller: caller.name().to_owned(),
            canonical: question.to_string(),
            upstream: question.upstream_target(self.config.upstream.dialect),
        })
    }
}
