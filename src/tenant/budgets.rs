//! Org keys' budgets: Refold counts requests by org key, so tenants with a key in common share its budget.

use std::collections::HashMap;
use std::sync::Arc;

use super::Tenant;
use super::org_keys::KeyBudget;
use super::policies::Policies;
use crate::config::UpstreamLimits;
use crate::digest::sha256;
use crate::fleet::Fleet;
use crate::limit::UpstreamBudget;

/// Gives all tenants that have an org key in common one budget for it, and continues the budgets that `previous` tenants have
/// for their keys. New budgets are shared with the other replicas of the fleet, if there is one. To be called before the tenants
/// serve.
pub fn share_budgets(tenants: &mut [Tenant], previous: &[Arc<Tenant>], fleet: Option<&Fleet>) {
    let mut budgets: HashMap<[u8; 32], UpstreamBudget> = HashMap::new();
    for key in previous.iter().flat_map(|tenant| tenant.org_keys.all()) {
        budgets.insert(sha256(key.secret.expose().as_bytes()), key.budget.budget.clone());
    }
    let mut limits: HashMap<[u8; 32], UpstreamLimits> = HashMap::new();
    for tenant in tenants.iter() {
        for key in tenant.org_keys.all() {
            let digest = sha256(key.secret.expose().as_bytes());
            budgets.entry(digest).or_insert_with(|| key.budget.budget.clone());
            let own = tenant.config.limits.upstream;
            limits.entry(digest).and_modify(|limits| *limits = limits.lowest(own)).or_insert(own);
        }
    }
    for key in tenants.iter_mut().flat_map(|tenant| tenant.org_keys.all_mut()) {
        let digest = sha256(key.secret.expose().as_bytes());
        let (Some(budget), Some(limits)) = (budgets.get(&digest), limits.get(&digest)) else { continue };
        key.budget = KeyBudget { budget: budget.clone(), limits: *limits };
    }
    for tenant in tenants.iter_mut() {
        tenant.policies = Policies::new(tenant.config.limits.client.rate(), tenant.org_keys.limits().rate());
    }
    // A new budget has the limits of the first tenant that has its key.
    let is_new = |budget: &UpstreamBudget| {
        let mut kept = previous.iter().flat_map(|tenant| tenant.org_keys.all());
        !kept.any(|key| key.budget.budget.is_same(budget))
    };
    for key in tenants.iter().flat_map(|tenant| tenant.org_keys.all()) {
        if is_new(&key.budget.budget) {
            key.budget.budget.set_limits(key.budget.limits);
            if let Some(fleet) = fleet {
                key.budget.budget.share(fleet, &sha256(key.secret.expose().as_bytes()));
            }
        }
    }
}
