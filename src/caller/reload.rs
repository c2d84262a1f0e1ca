//! The callers after a reload.

use std::sync::Arc;

use super::api_key::ApiKeys;
use super::callers::Callers;
use super::certificate::Certificates;
use super::jwt::VerifiedTokens;
use super::tenants::Tenants;
use crate::config::{self, Config};
use crate::http_client::ClientSetupError;
use crate::tenant::{CachedEntries, Tenant, share_budgets};

impl Callers {
    /// Creates the callers of another configuration. The new configuration alone decides which credentials are valid; the
    /// state of tenants, client keys and issuers is kept as far as their settings allow.
    ///
    /// # Errors
    /// If the HTTP client for an issuer's keys can't be set up.
    pub fn reconfigured(&self, config: &Config, cached: CachedEntries) -> Result<Self, ClientSetupError> {
        let tenant = |tenant| self.reconfigured_tenant(tenant, cached);
        let mut tenants: Vec<_> = config.tenants.iter().map(tenant).collect();
        share_budgets(&mut tenants, self.tenants(), self.fleet.as_ref());
        let tenants: Vec<_> = tenants.into_iter().map(Arc::new).collect();
        let api_keys = ApiKeys::new(&tenants, &self.api_keys.states());
        let tenants = Tenants::new(tenants);
        let verified = if tenants.has_same_ids(&self.tenants) { VerifiedTokens::Keep } else { VerifiedTokens::Drop };
        Ok(Self {
            api_keys,
            issuers: self.issuers.reconfigured(&config.issuers, verified)?,
            certificates: Certificates::new(config),
            tenants,
            trusted_proxies: config.server.trusted_proxies.clone(),
            clock: self.clock.clone(),
            fleet: self.fleet.clone(),
        })
    }

    fn reconfigured_tenant(&self, config: &Arc<config::TenantConfig>, cached: CachedEntries) -> Tenant {
        match self.tenants.find(&config.id) {
            Some(previous) => previous.reconfigured(Arc::clone(config), cached),
            None => Tenant::new(Arc::clone(config), self.clock.clone()).in_fleet(self.fleet.as_ref()),
        }
    }

    /// Applies the limits of this configuration to the state that is shared with the previous one. Call it when these callers
    /// begin to be served.
    pub fn apply_limits(&self) {
        self.tenants().iter().for_each(|tenant| tenant.apply_limits());
    }
}
