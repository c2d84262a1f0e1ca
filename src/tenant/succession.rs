//! A tenant after the configuration has changed: what is kept of what was known of it, and what its settings do not allow to
//! keep.
//!
//! What is kept is shared with the tenant before, whose last requests may still be under way: a stop that they carry out
//! drops pages for both, and what they spend is spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::number::number;
use super::org_keys::OrgKeys;
use super::partition::Epoch;
use super::{MAX_UNPROVEN, Tenant, count, policy, quarter, tokens};
use crate::config::{self, Secret};
use crate::limit::ClientBudget;

impl Tenant {
    /// This tenant with other settings. `answers_hold` says whether what Refold has answered until now is what it would
    /// answer to the same question from now on.
    #[must_use]
    pub fn successor(&self, config: Arc<config::Tenant>, answers_hold: bool) -> Self {
        // Without a key in common it is another org, whatever its name.
        let answers_hold = answers_hold && shares_org_key(&self.config, &config);
        let same_room = config.limits.client.max_partitions == self.config.limits.client.max_partitions;
        let probation = quarter(config.limits.upstream.rate());
        Self {
            upstream_budget: self.upstream_budget.clone(),
            probation: if probation == self.probation.rate() {
                Arc::clone(&self.probation)
            } else {
                Arc::new(ClientBudget::new(probation))
            },
            // With other names for the epochs nothing that is in the cache, or is on its way there, is found again.
            account_epoch: if answers_hold { Arc::clone(&self.account_epoch) } else { Arc::new(Epoch::new()) },
            token_epoch: if answers_hold { Arc::clone(&self.token_epoch) } else { Arc::new(Epoch::new()) },
            accounts: Arc::clone(&self.accounts),
            accepted_tokens: if answers_hold && same_room {
                self.accepted_tokens.clone()
            } else {
                tokens(config.limits.client.max_partitions)
            },
            unproven_tokens: if answers_hold { self.unproven_tokens.clone() } else { tokens(MAX_UNPROVEN) },
            // Another key has not been refused yet.
            credential_refused_until: AtomicU64::new(if keys(&self.config) == keys(&config) {
                self.credential_refused_until.load(Ordering::Relaxed)
            } else {
                0
            }),
            number: number(&config.id),
            org_keys: OrgKeys::successor(&self.org_keys, &config),
            rate_limit_policy: policy(config.limits.client.rate()),
            clock: self.clock.clone(),
            config,
        }
    }

    /// Brings what is shared with the tenant before in line with these settings: from now on they hold.
    pub fn take_over(&self) {
        self.upstream_budget.set_limits(self.config.limits.upstream);
        self.accounts.set_capacity(count(self.config.limits.client.max_partitions));
    }
}

/// Whether two tenants can be the same org: they have a key in common.
#[must_use]
pub fn shares_org_key(one: &config::Tenant, other: &config::Tenant) -> bool {
    keys(one).into_iter().flatten().any(|key| keys(other).into_iter().flatten().any(|other| other == key))
}

fn keys(tenant: &config::Tenant) -> [Option<&Secret>; 2] {
    [Some(&tenant.org_key), tenant.org_key_next.as_ref()]
}
