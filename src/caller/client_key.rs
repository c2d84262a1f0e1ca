//! Client keys: keys in `x-api-key` that Postern issued, of which the configuration has the SHA-256.

use std::collections::HashMap;
use std::sync::Arc;

use super::credential_kind::CredentialKind;
use super::grant::{Grant, OwnBudget};
use super::key_usage::KeyUsage;
use crate::config::ClientKey;
use crate::fleet::client_budgets::BudgetOwner;
use crate::limit::ClientBudget;
use crate::tenant::Tenant;

/// Budgets and counts of client keys by tenant id and key name. They outlive a reload.
#[derive(Debug, Default)]
pub(super) struct KeyStates(HashMap<(Arc<str>, Arc<str>), KeyState>);

/// The state of a client key.
#[derive(Debug)]
struct KeyState {
    budget: Option<Arc<ClientBudget>>,
    usage: Option<Arc<KeyUsage>>,
}

impl KeyStates {
    /// Adds the state of a tenant's key.
    pub(super) fn insert(&mut self, tenant: &Tenant, key: &Grant) {
        let budget = key.budget.as_ref().map(|own| Arc::clone(&own.budget));
        let state = KeyState { budget, usage: key.usage.clone() };
        self.0.insert((Arc::clone(&tenant.config.id), Arc::clone(&key.name)), state);
    }

    /// Returns the budget of a configured key: the previous one if its name and rate are unchanged, since a reload must not
    /// restore what the key has spent.
    fn budget(&self, tenant: &Tenant, key: &ClientKey) -> Option<OwnBudget> {
        let rate = key.budget()?;
        let previous = self.get(tenant, key).and_then(|state| state.budget.as_ref());
        let unchanged = previous.filter(|budget| budget.rate() == rate).map(Arc::clone);
        let new = || Arc::new(tenant.client_budget(rate, BudgetOwner::ClientKey(&key.name)));
        let budget = unchanged.unwrap_or_else(new);
        Some(OwnBudget { budget, policies: tenant.policies().of_key(rate) })
    }

    /// Returns the counts of a configured key: the previous ones if there was a key of that name.
    fn usage(&self, tenant: &Tenant, key: &ClientKey) -> Arc<KeyUsage> {
        self.get(tenant, key).and_then(|state| state.usage.clone()).unwrap_or_default()
    }

    fn get(&self, tenant: &Tenant, key: &ClientKey) -> Option<&KeyState> {
        self.0.get(&(Arc::clone(&tenant.config.id), Arc::clone(&key.name)))
    }
}

/// Returns a tenant's client keys: the SHA-256 of each and its permissions.
pub(super) fn grants(tenant: &Tenant, states: &KeyStates) -> impl Iterator<Item = ([u8; 32], Grant)> {
    tenant.config.client_keys.iter().map(|key| {
        let grant = Grant {
            name: Arc::clone(&key.name),
            access: key.access,
            budget: states.budget(tenant, key),
            usage: Some(states.usage(tenant, key)),
            linked_accounts: key.linked_accounts.clone(),
            expires: key.expires,
            kind: CredentialKind::ClientKey,
        };
        (key.sha256, grant)
    })
}
