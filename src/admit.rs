//! Whether a known caller may ask now, and may do what it asks for.

use http::HeaderValue;

use crate::caller::{Caller, Credential};
use crate::clock::Moment;
use crate::config::Access;
use crate::error::{ClientError, Reason};
use crate::limit::Admission;
use crate::tenant::TokenStatus;

/// The admission by a client budget, and the value of `RateLimit-Policy` for that budget.
pub type Budget = (Admission, HeaderValue);

/// Takes the request off the caller's budgets, and lets it pass if they are not spent.
///
/// # Errors
/// 429 with the time to wait.
pub fn admit(caller: &Caller, budget: &mut Option<Budget>, now: Moment) -> Result<(), ClientError> {
    // A token that nobody vouches for has no budget of its own to show.
    if caller.partition().standing(now) != TokenStatus::Known {
        return Ok(());
    }
    let own = match caller.credential() {
        Credential::ClientKey(key) => key.budget.as_deref().map(|budget| budget.spend(now)),
        Credential::Jwt(_) | Credential::OrgKey(_) | Credential::SessionToken(_) => None,
    };
    // A key that has spent its own budget takes nothing off its linked account's, which others share.
    let spent = match own {
        Some(own) if own.refused.is_some() => own,
        _ => caller.tenant().spend(caller.partition(), now),
    };
    *budget = Some((spent, caller.tenant().rate_limit_policy().clone()));
    match spent.refused {
        None => Ok(()),
        Some(wait) => {
            let message = "too many requests for this linked account or key; slow down";
            Err(ClientError::new(Reason::RateLimitExceeded, message).retry_after(wait))
        }
    }
}

/// Lets pass who may change something.
///
/// # Errors
/// 403 for a credential that may only read.
pub fn must_write(caller: &Caller) -> Result<(), ClientError> {
    if caller.access() == Access::ReadWrite {
        return Ok(());
    }
    Err(ClientError::new(Reason::ReadOnlyCredentials, "this credential may read and nothing else"))
}
