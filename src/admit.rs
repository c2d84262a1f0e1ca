//! Admission of an identified caller: its budgets, and its permission to write.

use http::HeaderValue;

use crate::caller::{Caller, Credential};
use crate::clock::Moment;
use crate::config::Access;
use crate::error::{ClientError, Reason};
use crate::limit::BudgetUse;
use crate::tenant::TokenStatus;

/// Takes one request off the caller's budgets. `budget` receives the figures for the `RateLimit` and `RateLimit-Policy` headers,
/// also if the request is refused. Part of the hit path.
///
/// # Errors
/// 429 with `Retry-After` if a budget is exhausted.
pub fn admit(caller: &Caller, budget: &mut Option<(BudgetUse, HeaderValue)>, now: Moment) -> Result<(), ClientError> {
    // Unproven session tokens share one budget, which limits their upstream requests.
    if caller.partition().token_status(now) != TokenStatus::Accepted {
        return Ok(());
    }
    let own = match caller.credential() {
        Credential::Grant(grant) => grant.budget.as_deref().map(|budget| budget.spend(now)),
        Credential::Jwt(_) | Credential::OrgKey(_) | Credential::SessionToken(_) => None,
    };
    // A client key that has exhausted its own budget takes nothing off the linked account's, which it shares with others.
    let used = match own {
        Some(own) if own.refused.is_some() => own,
        _ => caller.tenant().spend(caller.partition(), now),
    };
    *budget = Some((used, caller.tenant().rate_limit_policy().clone()));
    match used.refused {
        None => Ok(()),
        Some(wait) => {
            let message = "too many requests for this linked account or key; slow down";
            Err(ClientError::new(Reason::RateLimitExceeded, message).retry_after(wait))
        }
    }
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
