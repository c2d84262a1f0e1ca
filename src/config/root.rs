//! The whole configuration: one field for each table of the file, and the checks that need more than one table.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admin::{AdminAddress, AdminConfig};
use super::cache::Cache;
use super::cors::CorsConfig;
use super::diagnostic::Finding;
use super::diff::WrittenConfig;
use super::endpoint::Endpoint;
use super::fleet::FleetConfig;
use super::issuer::{Issuer, TenantOf};
use super::limits::Limits;
use super::listener::ListenerConfig;
use super::log::Log;
use super::named_server::NamedServer;
use super::pass_through::PassThrough;
use super::resolver::Resolver;
use super::server::ServerConfig;
use super::setting_path::{Findings, SettingPath};
use super::tenant::{TenantConfig, TenantMode, UniqueValues};
use super::tenant_ref::TenantRef;
use super::traces::Traces;
use super::upstream::UpstreamConfig;
use crate::executions::QueryPolicy;

/// The configuration of Postern.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Postern")]
pub struct Config {
    /// Sockets for callers. If omitted, there is one on 127.0.0.1:8080.
    #[serde(default = "ListenerConfig::defaults")]
    #[schemars(with = "Option<Vec<ListenerConfig>>", !default)]
    pub listeners: Vec<ListenerConfig>,
    /// The listener for operators: probes, metrics, status page, purge.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Limits for callers' connections and requests.
    #[serde(default)]
    pub server: ServerConfig,
    /// The address of Refold, and limits for requests to it.
    #[serde(default)]
    pub upstream: UpstreamConfig,
    /// Handling of query parameters.
    #[serde(default)]
    pub query: QueryPolicy,
    /// The cache that all tenants share.
    #[serde(default)]
    pub cache: Cache,
    /// Budgets of callers, and of requests to Refold.
    #[serde(default)]
    pub limits: Limits,
    /// Refold orgs and environments; at least one.
    #[serde(default)]
    #[schemars(!default, length(min = 1))]
    pub tenants: Vec<Arc<TenantConfig>>,
    /// Issuers whose JWTs are accepted (Authorization: Bearer).
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Browser pages of other origins that may use the gateway. If omitted, none.
    pub cors: Option<CorsConfig>,
    /// Requests of the rest of the API that are forwarded: authenticated, limited, with the org key, never cached. All others
    /// are answered 404.
    #[serde(default)]
    pub pass_through: Vec<Arc<PassThrough>>,
    /// The access log: one JSON line per request, on standard error.
    #[serde(default)]
    pub log: Log,
    /// Export of spans by OTLP over HTTP; none without an endpoint.
    #[serde(default)]
    pub traces: Traces,
    /// Redis or Valkey, on which several replicas share the budgets at Refold. If omitted, this process has them for itself.
    pub fleet: Option<Arc<FleetConfig>>,
    #[serde(skip)]
    pub(super) written: WrittenConfig,
    /// Doubtful settings, each with the time from which it is.
    #[serde(skip)]
    pub(super) remarks: Vec<(Option<Timestamp>, Finding)>,
    /// The servers that the settings name, with their places.
    #[serde(skip)]
    pub(super) servers: Vec<NamedServer>,
}

impl Config {
    /// The configuration in effect as JSON: the file, defaults and overrides together, in the form of the file. Secrets show
    /// only their sources.
    ///
    /// # Panics
    /// Never: a configuration has no map with keys other than texts.
    #[must_use]
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a configuration can be written as JSON")
    }

    /// Checks everything that needs more than one setting or the file system, and resolves secrets, paths and references.
    pub(super) fn check(&mut self, resolver: &Resolver<'_>, findings: &mut Findings) {
        let root = SettingPath::default();
        self.check_tenants(&root, resolver, findings);
        self.check_listeners(&root.key("listeners"), resolver, findings);
        for (index, issuer) in self.issuers.iter_mut().enumerate() {
            findings.note(issuer.check(&root.key("issuers").index(index), &self.tenants, resolver));
        }
        self.check_that_tenants_have_callers(&root.key("tenants"), findings);
        if self.query.max_limit == 0 {
            findings.note(Err(root.key("query").key("max_limit").refuse("a limit is at least 1")));
        }
        self.server.resolve();
        findings.note(self.upstream.check(&root.key("upstream"), resolver));
        findings.note(self.admin.check(&root.key("admin"), resolver));
        self.check_that_addresses_are_disjoint(&root, findings);
        if let Some(cors) = &mut self.cors {
            findings.note(cors.check(&root.key("cors")));
        }
        findings.note(self.traces.check(&root.key("traces"), resolver));
        if let Some(fleet) = &mut self.fleet {
            findings.note(Arc::make_mut(fleet).check(&root.key("fleet"), resolver));
        }
    }

    fn check_tenants(&mut self, root: &SettingPath, resolver: &Resolver<'_>, findings: &mut Findings) {
        if self.tenants.is_empty() {
            findings.note(Err(root.miss("there is no [[tenants]] table; at least one is needed")));
        }
        let has_client_ca = self.listeners.iter().any(ListenerConfig::has_client_ca);
        let mut seen = UniqueValues::new(has_client_ca);
        for (index, tenant) in self.tenants.iter_mut().enumerate() {
            let at = root.key("tenants").index(index);
            Arc::make_mut(tenant).check(&at, resolver, &mut seen, findings);
        }
    }

    fn check_listeners(&mut self, at: &SettingPath, resolver: &Resolver<'_>, findings: &mut Findings) {
        if self.listeners.is_empty() {
            findings.note(Err(at.miss("the list of listeners is empty; at least one is needed")));
        }
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            listener.check(&at.index(index), &self.tenants, resolver, findings);
        }
    }

    /// Checks that each connection reaches exactly one listener, the admin listener among them.
    fn check_that_addresses_are_disjoint(&self, root: &SettingPath, findings: &mut Findings) {
        let refuse = |at: &SettingPath, other: &Endpoint, owner: &str| {
            let address = &other.address;
            let message =
                format!("this address overlaps {address}, the address of {owner}; each connection needs exactly one");
            at.key("address").refuse(message)
        };
        let endpoints: Vec<Endpoint> = self.listeners.iter().map(ListenerConfig::endpoint).collect();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let at = root.key("listeners").index(index);
            if let Some(other) = endpoints[..index].iter().find(|other| other.overlaps(endpoint)) {
                findings.note(Err(refuse(&at, other, "another listener")));
            }
            let Some(admin) = self.admin.endpoint().filter(|admin| admin.overlaps(endpoint)) else { continue };
            // The defaults do not overlap, so one of the two addresses is written somewhere.
            findings.note(Err(if self.admin.address == AdminAddress::default() {
                refuse(&at, &admin, "the admin listener")
            } else {
                refuse(&root.key("admin"), endpoint, "a listener")
            }));
        }
    }

    fn check_that_tenants_have_callers(&self, at: &SettingPath, findings: &mut Findings) {
        let of_listeners = self.listeners.iter().flat_map(|listener| {
            listener.session_tokens.iter().chain(listener.trusted.as_ref().map(|trusted| &trusted.tenant))
        });
        let of_issuers = self.issuers.iter().filter_map(|issuer| match issuer.tenant_setting() {
            Some(TenantOf::Fixed(tenant)) => Some(tenant),
            _ => None,
        });
        let named: Vec<_> = of_listeners.chain(of_issuers).map(TenantRef::id).collect();
        let any_tenant = self.issuers.iter().any(|issuer| matches!(issuer.tenant_setting(), Some(TenantOf::Claim(_))));
        for (index, tenant) in self.tenants.iter().enumerate() {
            let has_callers = tenant.mode == TenantMode::Validate
                || !tenant.client_keys.is_empty()
                || !tenant.client_certificates.is_empty()
                || any_tenant
                || named.contains(&&tenant.id);
            if !has_callers {
                let message = "this tenant has no callers: it has no [[tenants.client_keys]], and no listener and no issuer is for it";
                findings.note(Err(at.index(index).key("id").miss(message)));
            }
        }
    }
}
