//! The callers after a reload.

use std::sync::Arc;

use super::api_key::ApiKeys;
use super::callers::Callers;
use super::certificate::Certificates;
use super::jwt::VerifiedTokens;
use super::tenants::Tenants;
use crate::config::{self, Config};
use crate::http_client::ClientSetupError;
use crate::limit::UpstreamBudget;
use crate::tenant::{CachedEntries, Tenant, shares_org_key};

impl Callers {
    /// Creates the callers of another configuration. The new configuration alone decides which credentials are valid; the
    /// state of tenants, client keys and issuers is kept as far as their settings allow.
    ///
    /// # Errors
    /// If the HTTP client for an issuer's keys can't be set up.
    pub fn reconfigured(&self, config: &Config, cached: CachedEntries) -> Result<Self, ClientSetupError> {
        let tenant = |tenant| Arc::new(self.reconfigured_tenant(tenant, config, cached));
        let tenants: Vec<_> = config.tenants.iter().map(tenant).collect();
        let api_keys = ApiKeys::new(&tenants, &self.api_keys.budgets());
        let tenants = Tenants::new(tenants);
        let verified = if tenants.has_same_ids(&self.tenants) { VerifiedTokens::Keep } else { VerifiedTokens::Drop };
        Ok(Self {
            api_keys,
            issuers: self.issuers.reconfigured(&config.issuers, verified)?,
            certificates: Certificates::new(config),
            tenants,
            clock: self.clock.clone(),
        })
    }

    fn reconfigured_tenant(&self, config: &Arc<config::Tenant>, all: &Config, cached: CachedEntries) -> Tenant {
        let same_id = self.tenants.find(&config.id);
        let mut tenant = match same_id {
            Some(previous) => previous.reconfigured(Arc::clone(config), cached),
            None => Tenant::new(Arc::clone(config), self.clock.clone()),
        };
        // Refold counts requests by org key. So a renamed tenant keeps its org's budget, and a tenant that becomes another org
        // does not.
        let is_removed = |previous: &Tenant| all.tenants.iter().all(|tenant| tenant.id != previous.config.id);
        let removed = self.tenants().iter().filter(|previous| is_removed(previous));
        let same_org = same_id.into_iter().chain(removed).find(|previous| shares_org_key(&previous.config, config));
        tenant.upstream_budget = match same_org {
            Some(previous) => previous.upstream_budget.clone(),
            None => UpstreamBudget::new(config.limits.upstream, self.clock.clone()),
        };
        tenant
    }

    /// Applies the limits of this configuration to the state that is shared with the previous one. Call it when these callers
    /// begin to be served.
    pub fn apply_limits(&self) {
        self.tenants().iter().for_each(|tenant| tenant.apply_limits());
    }
}
