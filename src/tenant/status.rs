//! How a tenant stands, for whoever watches.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::Tenant;
use crate::clock::Moment;
use crate::config::TenantMode;
use crate::limit::BudgetStatus;

/// How long a refused org key makes a tenant not ready.
const REFUSAL_COUNTS_FOR: Duration = Duration::from_mins(1);

/// How a tenant stands.
#[derive(Clone, Debug, Serialize)]
pub struct TenantStatus {
    /// Its name in the configuration.
    pub id: String,
    /// What its callers present.
    pub mode: &'static str,
    /// Whether Refold has taken the org key when it was last asked.
    pub credential_accepted: bool,
    /// Whether a fetch could leave now.
    pub budget: BudgetState,
    /// The budget of its org key.
    pub upstream: BudgetStatus,
    /// Linked accounts that somebody has asked for lately.
    pub linked_accounts: usize,
}

/// Whether a fetch could leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetState {
    /// It could.
    Free,
    /// Others wait already.
    Waiting,
    /// Refold has asked for a pause.
    Held,
}

/// A linked account, and how much it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// Whose it is.
    pub tenant: String,
    /// Its id, as far as it may be seen.
    pub linked_account: Option<String>,
    /// About how many requests it made in the last minute.
    pub requests: u64,
}

impl Tenant {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> TenantStatus {
        let upstream = self.upstream_budget.status();
        TenantStatus {
            id: self.config.id.to_string(),
            mode: match self.config.mode {
                TenantMode::Inject => "inject",
                TenantMode::Validate => "validate",
            },
            credential_accepted: self.credential_accepted(),
            budget: match &upstream {
                held if held.paused_for > 0.0 => BudgetState::Held,
                waiting if waiting.waiting > 0 => BudgetState::Waiting,
                _ => BudgetState::Free,
            },
            upstream,
            linked_accounts: self.accounts.len(),
        }
    }

    /// The linked accounts that have asked the most in the last minute, at most `most` of them, the busiest first.
    #[must_use]
    pub fn busiest(&self, most: usize, now: Moment) -> Vec<Busy> {
        let tenant = &self.config.id;
        let busy = |(id, requests)| Busy { tenant: tenant.to_string(), linked_account: Some(id), requests };
        self.accounts.busiest(most, now).into_iter().map(busy).collect()
    }

    /// Whether Refold has taken the org key when it was last asked with it on behalf of somebody who does not have it. A
    /// refusal counts for a minute: whoever gets no requests since it is not ready would never learn otherwise that the key
    /// is good again.
    #[must_use]
    pub fn credential_accepted(&self) -> bool {
        let counts = |until| self.clock.now() < Moment::from_nanos(until);
        !counts(self.credential_refused_until.load(Ordering::Relaxed))
    }

    /// Refold has taken the org key, or has not.
    pub fn set_credential_accepted(&self, accepted: bool) {
        let until = if accepted { 0 } else { (self.clock.now() + REFUSAL_COUNTS_FOR).as_nanos() };
        // A write that changes nothing would take the line of memory away from the other workers.
        if self.credential_refused_until.load(Ordering::Relaxed) != until {
            self.credential_refused_until.store(until, Ordering::Relaxed);
        }
    }
}
