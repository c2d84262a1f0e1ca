//! Everybody who may ask, after the configuration has changed.

use std::sync::Arc;

use super::client_key::Keys;
use super::{Callers, by_name};
use crate::client::ClientSetupError;
use crate::config::{self, Config};
use crate::limit::UpstreamBudget;
use crate::tenant::{Tenant, shares_org_key};

impl Callers {
    /// Those that another configuration names. Who they are is decided by it alone; what was known of those who are still
    /// there is kept as far as their settings allow. `answers_hold`: see [`Tenant::successor`].
    ///
    /// # Errors
    /// If an issuer's key server can't be reached in the way that the configuration says.
    pub fn successor(&self, config: &Config, answers_hold: bool) -> Result<Self, ClientSetupError> {
        let tenant = |tenant| Arc::new(self.tenant_after(tenant, config, answers_hold));
        let tenants: Vec<_> = config.tenants.iter().map(tenant).collect();
        let ids =
            |tenants: &[Arc<Tenant>]| tenants.iter().map(|tenant| Arc::clone(&tenant.config.id)).collect::<Vec<_>>();
        Ok(Self {
            keys: Keys::new(&tenants, &self.keys.budgets(&self.tenants)),
            issuers: self.issuers.successor(&config.issuers, ids(&tenants) == ids(&self.tenants))?,
            certificates: by_name(config),
            tenants,
            clock: self.clock.clone(),
        })
    }

    fn tenant_after(&self, config: &Arc<config::Tenant>, all: &Config, answers_hold: bool) -> Tenant {
        let same_id = self.tenants.iter().find(|before| before.config.id == config.id);
        let mut tenant = match same_id {
            Some(before) => before.successor(Arc::clone(config), answers_hold),
            None => Tenant::new(Arc::clone(config), self.clock.clone()),
        };
        // Refold counts by org key: what was spent under a name that is gone is spent, and by another org is not.
        let goes = |before: &Tenant| all.tenants.iter().all(|tenant| tenant.id != before.config.id);
        let gone = self.tenants.iter().filter(|before| goes(before));
        let same_org = same_id.into_iter().chain(gone).find(|before| shares_org_key(&before.config, config));
        tenant.upstream_budget = match same_org {
            Some(before) => before.upstream_budget.clone(),
            None => UpstreamBudget::new(config.limits.upstream, self.clock.clone()),
        };
        tenant
    }

    /// From now on these are the ones: see [`Tenant::take_over`].
    pub fn take_over(&self) {
        self.tenants.iter().for_each(|tenant| tenant.take_over());
    }
}
