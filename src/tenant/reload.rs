//! A tenant after a reload: the state that it keeps, and the state that the changed settings invalidate.
//!
//! Kept state is shared with the previous [`Tenant`], whose last requests may still be in flight: entries that these
//! requests drop are dropped for both tenants, and these requests count against the shared budgets.

use std::sync::Arc;

use super::interned_id::intern;
use super::partition::Epoch;
use super::policies::Policies;
use super::session_tokens::SessionTokens;
use super::{Tenant, capacity, probation_limits};
use crate::config::{self, Secret};

/// Decides whether a reload keeps the cached entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedEntries {
    /// Refold's responses to the same requests are still the same, so entries stay valid.
    Keep,
    /// The upstream or the meaning of requests has changed, so no entry is found again.
    Drop,
}

impl Tenant {
    /// Creates this tenant with other settings, and with new upstream budgets, until
    /// [`share_budgets`](super::share_budgets) puts back those of its org keys. The tenant stays as it is until [`Tenant::apply_limits`] is called on the
    /// new one.
    #[must_use]
    pub fn reconfigured(&self, config: Arc<config::TenantConfig>, cached: CachedEntries) -> Self {
        // A tenant without a common key is another org, whatever its id.
        let keeps_entries = cached == CachedEntries::Keep && shares_org_key(&self.config, &config);
        let epoch = |epoch: &Arc<Epoch>| if keeps_entries { Arc::clone(epoch) } else { Arc::new(Epoch::new()) };
        Self {
            probation_budget: self.probation_budget.clone(),
            account_epoch: epoch(&self.account_epoch),
            token_epoch: epoch(&self.token_epoch),
            accounts: Arc::clone(&self.accounts),
            session_tokens: if !keeps_entries {
                SessionTokens::new(config.limits.client.max_partitions)
            } else if config.limits.client.max_partitions == self.config.limits.client.max_partitions {
                self.session_tokens.clone()
            } else {
                self.session_tokens.with_capacity(config.limits.client.max_partitions)
            },
            key_checks: Arc::clone(&self.key_checks),
            trust: if keeps_entries { Arc::clone(&self.trust) } else { Arc::default() },
            interned_id: intern(&config.id),
            org_keys: self.org_keys.reconfigured(&config, &self.clock),
            policies: Policies::new(config.limits.client.rate(), config.limits.upstream.rate()),
            client_budgets: self.client_budgets.clone(),
            clock: self.clock.clone(),
            fleet: self.fleet.clone(),
            config,
        }
    }

    /// Applies these settings' limits to the state that is shared with the previous tenant. Call it when this tenant begins
    /// to serve.
    pub fn apply_limits(&self) {
        for key in self.org_keys.all() {
            key.budget.budget.set_limits(key.budget.limits);
        }
        self.probation_budget.set_limits(probation_limits(self.config.limits.upstream));
        self.accounts.set_capacity(capacity(self.config.limits.client.max_partitions));
    }
}

/// Returns whether two tenants have an org key in common, so that they can be the same org.
#[must_use]
pub fn shares_org_key(one: &config::TenantConfig, other: &config::TenantConfig) -> bool {
    org_keys(one).into_iter().flatten().any(|key| org_keys(other).into_iter().flatten().any(|other| other == key))
}

fn org_keys(tenant: &config::TenantConfig) -> [Option<&Secret>; 2] {
    [Some(&tenant.org_key), tenant.org_key_next.as_ref()]
}
