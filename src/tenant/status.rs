//! The state of a tenant, for the status page, metrics and readiness.

use serde::Serialize;

use super::Tenant;
use crate::clock::Moment;
use crate::config::TenantMode;
use crate::limit::BudgetStatus;

/// The state of a tenant.
#[derive(Clone, Debug, Serialize)]
pub struct TenantStatus {
    /// The tenant's id in the configuration.
    pub id: String,
    /// The kind of key that callers send: `inject` or `validate`.
    pub mode: &'static str,
    /// False while Refold refuses every configured org key.
    pub credential_accepted: bool,
    /// The availability of the upstream budget.
    pub budget: BudgetAvailability,
    /// The upstream budget in numbers.
    pub upstream: BudgetStatus,
    /// Number of linked accounts that were requested lately.
    pub linked_accounts: usize,
}

/// The availability of the upstream budget for a new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum BudgetAvailability {
    /// A request can be sent at once.
    #[serde(rename = "free")]
    Available,
    /// Requests wait in the queue.
    #[serde(rename = "waiting")]
    Queueing,
    /// All requests are paused after an upstream 429.
    #[serde(rename = "held")]
    Paused,
}

/// A linked account and its number of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusyAccount {
    /// The tenant's id.
    pub tenant: String,
    /// The linked account's id, as far as the configuration allows it in logs.
    pub linked_account: Option<String>,
    /// The approximate number of requests in the last minute.
    pub requests: u64,
}

impl Tenant {
    /// Returns the present state.
    #[must_use]
    pub fn status(&self) -> TenantStatus {
        let upstream = self.upstream_budget().status();
        TenantStatus {
            id: self.config.id.to_string(),
            mode: match self.config.mode {
                TenantMode::Inject => "inject",
                TenantMode::Validate => "validate",
            },
            credential_accepted: self.credential_accepted(),
            budget: match &upstream {
                status if status.paused_for > 0.0 => BudgetAvailability::Paused,
                status if status.waiting > 0 => BudgetAvailability::Queueing,
                _ => BudgetAvailability::Available,
            },
            upstream,
            linked_accounts: self.accounts.len(),
        }
    }

    /// Returns the linked accounts with the most requests in the last minute, at most `limit` of them, the busiest first.
    #[must_use]
    pub fn busiest(&self, limit: usize, now: Moment) -> Vec<BusyAccount> {
        let tenant = &self.config.id;
        let busy = |(id, requests)| BusyAccount { tenant: tenant.to_string(), linked_account: Some(id), requests };
        self.accounts.busiest(limit, now).into_iter().map(busy).collect()
    }
}
