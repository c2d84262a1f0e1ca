//! Admission of an identified caller: its budgets, and its permission to write.

use std::time::Duration;

use http::HeaderValue;

use crate::caller::{Caller, Credential};
use crate::clock::Moment;
use crate::config::Access;
use crate::error::{ClientError, Reason};
use crate::limit::{BudgetQuestion, BudgetState, BudgetUse, Policy, Spending};
use crate::tenant::TokenStatus;

/// The budgets of a known caller: the values of `RateLimit-Policy` and `RateLimit`.
#[derive(Debug)]
pub struct Budgets {
    /// `RateLimit-Policy`: all policies that apply to the caller.
    pub policies: HeaderValue,
    /// The state of the linked account's or the session token's budget; `None` if the key's budget has refused the request
    /// before.
    pub partition: Option<(Policy, BudgetState)>,
    /// The state of the client key's own budget, if it has one.
    pub key: Option<BudgetState>,
    /// The state of the budget at Refold, if the request has spent from it or was refused by it.
    pub upstream: Option<BudgetState>,
}

impl Budgets {
    /// The items of `RateLimit`.
    pub fn states(&self) -> impl Iterator<Item = (Policy, BudgetState)> {
        let of = |policy, state: Option<BudgetState>| state.map(|state| (policy, state));
        [self.partition, of(Policy::Key, self.key), of(Policy::Upstream, self.upstream)].into_iter().flatten()
    }
}

/// The reason for which a request is not admitted.
#[derive(Debug)]
pub enum NotAdmitted {
    /// 429 with `Retry-After`: a budget is exhausted.
    Refused(ClientError),
    /// The fleet's server has to decide about a budget. [`decided`] records its decision; then call [`admit`] again.
    Undecided(Policy, BudgetQuestion),
}

/// Takes one request off the caller's budgets. `budgets` receives the figures for the `RateLimit` and `RateLimit-Policy` headers,
/// also if the request is refused. A budget that `budgets` has figures of is not asked again. Part of the hit path.
///
/// # Errors
/// If a budget is exhausted, or the fleet's server has to be asked.
pub fn admit(caller: &Caller, budgets: &mut Option<Budgets>, now: Moment) -> Result<(), NotAdmitted> {
    // Unproven session tokens share one budget, which limits their upstream requests.
    if caller.partition().token_status(now) != TokenStatus::Accepted {
        return Ok(());
    }
    let (tenant, partition) = (caller.tenant(), caller.partition());
    let own = match caller.credential() {
        Credential::Grant(grant) => grant.budget.as_ref(),
        Credential::Jwt(_) | Credential::OrgKey(_) | Credential::SessionToken(_) => None,
    };
    let budgets = budgets.get_or_insert_with(|| {
        // Here, since a request that waits for the fleet's server is identified and admitted anew.
        partition.count_request(now);
        let policies = own.map_or_else(|| tenant.policies().of_partition(partition), |own| &own.policies).clone();
        Budgets { policies, partition: None, key: None, upstream: None }
    });
    // A client key that has exhausted its own budget takes nothing off the linked account's, which it shares with others.
    if let (Some(own), None) = (own, budgets.key) {
        budgets.take(Policy::Key, own.budget.spend(now))?;
    }
    match budgets.partition {
        None => budgets.take(partition.policy(), tenant.spend(partition, now)),
        Some(_) => Ok(()),
    }
}

/// Records the decision of the fleet's server about a budget.
///
/// # Errors
/// 429 with `Retry-After` if the budget is exhausted.
pub fn decided(budgets: &mut Option<Budgets>, policy: Policy, used: BudgetUse) -> Result<(), ClientError> {
    budgets.as_mut().map_or(Ok(()), |budgets| budgets.record(policy, used))
}

impl Budgets {
    fn take(&mut self, policy: Policy, spending: Spending) -> Result<(), NotAdmitted> {
        match spending {
            Spending::Decided(used) => self.record(policy, used).map_err(NotAdmitted::Refused),
            Spending::Ask(question) => Err(NotAdmitted::Undecided(policy, question)),
        }
    }

    fn record(&mut self, policy: Policy, used: BudgetUse) -> Result<(), ClientError> {
        match policy {
            Policy::Key => self.key = Some(used.state),
            Policy::Account | Policy::Token | Policy::Upstream => self.partition = Some((policy, used.state)),
        }
        used.refused.map_or(Ok(()), |wait| Err(exceeded(policy, wait)))
    }
}

/// The error of a request that exceeds a budget of its caller.
#[cold]
fn exceeded(policy: Policy, wait: Duration) -> ClientError {
    let message = match policy {
        Policy::Key => "this client key has used up its own budget; wait for the seconds in Retry-After, and send less",
        Policy::Token => {
            "this session token has used up its budget; wait for the seconds in Retry-After, and send less"
        }
        Policy::Account | Policy::Upstream => {
            "the callers of this linked account have used up its budget; wait for the seconds in Retry-After, and send less"
        }
    };
    ClientError::new(Reason::RateLimitExceeded, message).retry_after(wait)
}

/// Checks that the caller may write.
///
/// # Errors
/// 403 for a read-only credential.
pub fn must_write(caller: &Caller) -> Result<(), ClientError> {
    match caller.access() {
        Access::ReadWrite => Ok(()),
        Access::Read => Err(ClientError::new(Reason::ReadOnlyCredentials, "this credential is read-only")),
    }
}
