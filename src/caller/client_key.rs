//! Client keys: keys in `x-api-key` that Postern issued, of which the configuration has the SHA-256.

use std::collections::HashMap;
use std::sync::Arc;

use super::grant::Grant;
use crate::config::ClientKey;
use crate::limit::ClientBudget;
use crate::tenant::Tenant;

/// Budgets of client keys by tenant id and key name. They outlive a reload.
#[derive(Debug, Default)]
pub(super) struct KeyBudgets(HashMap<(Arc<str>, Arc<str>), Arc<ClientBudget>>);

impl KeyBudgets {
    /// Adds the budget of a tenant's key, if it has one.
    pub(super) fn insert(&mut self, tenant: &Tenant, key: &Grant) {
        if let Some(budget) = &key.budget {
            self.0.insert((Arc::clone(&tenant.config.id), Arc::clone(&key.name)), Arc::clone(budget));
        }
    }

    /// Returns the budget of a configured key: the previous one if its name and rate are unchanged, since a reload must not
    /// restore what the key has spent.
    fn of(&self, tenant: &Tenant, key: &ClientKey) -> Option<Arc<ClientBudget>> {
        let rate = key.budget()?;
        let previous = self.0.get(&(Arc::clone(&tenant.config.id), Arc::clone(&key.name)));
        let unchanged = previous.filter(|budget| budget.rate() == rate).map(Arc::clone);
        Some(unchanged.unwrap_or_else(|| Arc::new(ClientBudget::new(rate))))
    }
}

/// Returns a tenant's client keys: the SHA-256 of each and its permissions.
pub(super) fn grants(tenant: &Tenant, budgets: &KeyBudgets) -> impl Iterator<Item = ([u8; 32], Grant)> {
    tenant.config.client_keys.iter().map(|key| {
        let grant = Grant {
            name: Arc::clone(&key.name),
            access: key.access,
            budget: budgets.of(tenant, key),
            linked_accounts: key.linked_accounts.clone(),
            expires: key.expires,
            may_be_of_org: true,
        };
        (key.sha256, grant)
    })
}
