//! The state of the gateway as the admin listener shows it: status page, probes and Prometheus. Requests of callers do
//! not use it.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;
use serde::Serialize;

use super::fleet_status::FleetStatus;
use super::normalise::{Normalised, normalise};
use super::{ConnectionContext, Gateway};
use crate::cache::Usage;
use crate::caller::{ClientKeyStatus, KeyState};
use crate::config::{AccountNaming, Derive};
use crate::executions::{DerivationKind, DerivationKinds};
use crate::lifecycle::Reloads;
use crate::observe::{ErrorGroup, Event, KeyCheck, Latency, RenewalErrorGroup, ScrapeState, ScrapedTenant, Traffic};
use crate::request::headers::RequestHeaders;
use crate::request::route::{Route, route};
use crate::tenant::{BudgetAvailability, BusyAccount, Tenant, TenantStatus, TrustStatus};
use crate::tls::CertificateExpiry;
use crate::upstream::Circuit;

/// Number of linked accounts that the status page lists as the busiest.
const BUSIEST: usize = 10;

/// A snapshot of traffic, cache, tenants and errors, as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The time of the snapshot.
    pub at: jiff::Timestamp,
    /// Seconds since the process started.
    pub uptime: f64,
    /// Responses of the last five minutes.
    pub traffic: Traffic,
    /// Response times of the last minute.
    pub latency: Latency,
    /// Size and number of the cached entries.
    pub cache: Usage,
    /// The worst state of the tenants' circuits to Refold.
    pub circuit: Circuit,
    /// All tenants, in the order of the configuration.
    pub tenants: Vec<TenantState>,
    /// The linked accounts with the most requests in the last minute.
    pub busiest: Vec<BusyAccount>,
    /// The last errors, grouped: failures (5xx) first, each kind newest first.
    pub errors: Vec<ErrorGroup>,
    /// The last failed renewals, grouped, newest first. Their callers got a stale page.
    pub renewal_errors: Vec<RenewalErrorGroup>,
    /// The client keys of all tenants, in the order of the configuration.
    pub client_keys: Vec<ClientKeyStatus>,
    /// The last events of the process, newest first.
    pub events: Vec<Event>,
    /// This replica in its fleet; left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
}

/// The state of a tenant and of its circuit.
#[derive(Clone, Debug, Serialize)]
pub struct TenantState {
    /// The state of the tenant.
    #[serde(flatten)]
    pub tenant: TenantStatus,
    /// State of the tenant's circuit to Refold.
    pub circuit: Circuit,
    /// The trust in derived answers; `None` unless it has to be earned.
    pub derivation: Option<TrustStatus>,
    /// True if Refold may send webhooks.
    pub webhooks: bool,
    /// The time of the last webhook with a valid signature since the process started.
    pub last_webhook: Option<jiff::Timestamp>,
    /// The last check of an org key since the process started.
    pub key_check: Option<KeyCheck>,
}

/// The readiness of the gateway, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Readiness {
    /// True if at least one tenant is ready: a refused org key of one tenant must not end the traffic of the other tenants.
    pub ready: bool,
    /// The worst state of the tenants' circuits to Refold.
    pub circuit: Circuit,
    /// All tenants, in the order of the configuration.
    pub tenants: Vec<TenantReadiness>,
    /// The issuers of tokens whose keys could never be read, so that their tokens are answered 503. They do not make the gateway
    /// unready: its other callers are served.
    pub issuers_without_keys: Vec<Arc<str>>,
    /// This replica in its fleet; `None` without one. It never makes the gateway unready: a replica that is alone serves its share.
    pub fleet: Option<FleetStatus>,
}

/// The readiness of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantReadiness {
    /// Id in the configuration.
    pub id: String,
    /// True if its requests can be answered.
    pub ready: bool,
    /// False while Refold refuses every org key of the tenant.
    pub credential_accepted: bool,
    /// State of the upstream budget. An exhausted budget does not make a tenant unready: it recovers, and the cache
    /// goes on answering.
    pub budget: BudgetAvailability,
    /// State of the circuit to Refold. An open one does not make a tenant unready either.
    pub circuit: Circuit,
}

/// A query as the gateway reads it, for the explorer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The caller's tenant.
    pub tenant: String,
    /// The caller's linked account; `None` for a session token, which does not reveal it.
    pub linked_account: Option<String>,
    /// The caller's name.
    pub caller: String,
    /// The canonical query.
    pub canonical: String,
    /// The request target that goes to Refold.
    pub upstream: String,
}

impl Gateway {
    /// A snapshot of the gateway.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        let recent = self.observer.recent();
        let tenants = self.callers.tenants();
        let mut busiest: Vec<BusyAccount> = tenants.iter().flat_map(|tenant| tenant.busiest(BUSIEST, now)).collect();
        busiest.sort_by_key(|busy| std::cmp::Reverse(busy.requests));
        busiest.truncate(BUSIEST);
        // `log.linked_accounts` applies to the status page too: it hashes or omits linked accounts.
        let naming = self.config.log.linked_accounts;
        for busy in &mut busiest {
            busy.linked_account = busy.linked_account.as_deref().and_then(|id| naming.name(id)).map(Cow::into_owned);
        }
        Status {
            at: self.clock.wall(),
            uptime: now.since(crate::clock::Moment::default()).as_secs_f64(),
            traffic: recent.traffic(now),
            latency: recent.latency(now),
            cache: self.fetcher.store().usage(),
            circuit: self.worst_circuit(),
            tenants: tenants.iter().map(|tenant| self.tenant_state(tenant)).collect(),
            busiest,
            errors: recent.errors(now, naming),
            renewal_errors: recent.renewal_errors(now, naming),
            client_keys: self.callers.client_keys(now, naming),
            events: self.observer.events(naming),
            fleet: self.fleet_status(),
        }
    }

    /// The readiness of the gateway and of each tenant.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let of = |tenant: &Arc<Tenant>| {
            let TenantStatus { id, credential_accepted, budget, .. } = tenant.status();
            let ready = self.is_ready(tenant);
            // An open circuit does not count: the cache goes on answering, and sending callers elsewhere would turn an
            // outage of Refold into one of the gateway.
            let circuit = self.circuit(tenant);
            TenantReadiness { id, ready, credential_accepted, budget, circuit }
        };
        let tenants: Vec<TenantReadiness> = self.callers.tenants().iter().map(of).collect();
        let issuers = self.callers.issuer_keys().filter(|(_, keys)| *keys == KeyState::NeverRead);
        Readiness {
            ready: tenants.iter().any(|tenant| tenant.ready),
            circuit: self.worst_circuit(),
            tenants,
            issuers_without_keys: issuers.map(|(id, _)| Arc::clone(id)).collect(),
            fleet: self.fleet_status(),
        }
    }

    fn tenant_state(&self, tenant: &Tenant) -> TenantState {
        let (last_webhook, key_check) = self.observer.last_signals(tenant);
        TenantState {
            tenant: tenant.status(),
            circuit: self.circuit(tenant),
            derivation: self.derivation(tenant),
            webhooks: tenant.config.webhooks,
            last_webhook,
            key_check,
        }
    }

    fn is_ready(&self, tenant: &Tenant) -> bool {
        tenant.is_ready(self.config.upstream.verify_key)
    }

    fn circuit(&self, tenant: &Tenant) -> Circuit {
        self.fetcher.upstream().circuit(&tenant.config.id)
    }

    fn derivation(&self, tenant: &Tenant) -> Option<TrustStatus> {
        (self.config.cache.derive == Derive::Verified).then(|| tenant.trust().status(self.clock.now()))
    }

    fn derives(&self, tenant: &Tenant, kind: DerivationKind) -> bool {
        match self.config.cache.derive {
            Derive::Verified => tenant.trust().serves(DerivationKinds::default().with(kind), self.clock.now()),
            Derive::Trusted => true,
            Derive::Off => false,
        }
    }

    fn worst_circuit(&self) -> Circuit {
        let circuits = self.callers.tenants().iter().map(|tenant| self.circuit(tenant));
        circuits.max().unwrap_or(Circuit::Closed)
    }

    /// All metrics in Prometheus' text format, version 0.0.4. `certificates` are those of the listeners.
    #[must_use]
    pub fn metrics(&self, reloads: &Reloads, certificates: &[CertificateExpiry]) -> String {
        self.observer.prometheus_text(&ScrapeState {
            cache: self.fetcher.store().usage(),
            tenants: self
                .callers
                .tenants()
                .iter()
                .map(|tenant| ScrapedTenant {
                    tenant,
                    is_ready: self.is_ready(tenant),
                    circuit_open: self.circuit(tenant) != Circuit::Closed,
                    derivations: DerivationKind::ALL.map(|kind| (kind, self.derives(tenant, kind))).to_vec(),
                })
                .collect(),
            issuers: self.callers.issuer_keys().map(|(id, keys)| (&**id, keys == KeyState::Available)).collect(),
            fleet: self.scraped_fleet(),
            reloads,
            client_keys: self.callers.client_keys(self.clock.now(), AccountNaming::None),
            certificates,
        })
    }

    /// The reading of a request for a cacheable resource; `None` if the credential or the query is not accepted.
    #[must_use]
    pub fn explain(&self, connection: &ConnectionContext, head: &Parts) -> Option<Explained> {
        let headers = RequestHeaders::of(&head.headers);
        let caller = self.callers.identify(&headers, &connection.identity, self.clock.now()).ok()?;
        let routed = route(head, &self.config.server, &self.config.pass_through).ok()?;
        let Route::Endpoint(endpoint) = routed else { return None };
        let query = (&*connection.query_memo, &self.config.query);
        let Ok(Normalised::Question(parsed)) = normalise(endpoint, &caller, head, query) else { return None };
        let mut canonical = String::new();
        parsed.question.write_canonical(&mut canonical);
        Some(Explained {
            tenant: caller.tenant().config.id.to_string(),
            linked_account: caller.partition().linked_account_id().map(str::to_owned),
            caller: caller.name().to_owned(),
            canonical,
            upstream: parsed.question.upstream_target(self.config.upstream.dialect),
        })
    }
}
