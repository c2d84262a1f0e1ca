//! The claims of a token whose signature is valid: audience, lifetime, linked accounts and scope.

use serde_json::Value;

use crate::caller::linked_account;
use crate::config::{Access, ClaimPath, Issuer};

/// The claims of a token.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Value);

/// The reason why a token with a valid signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("the claim `aud` names none of the issuer's audiences")]
    Audience,
    #[error("the token has no claim `exp`")]
    NoExpiry,
    #[error("the claim `exp` lies in the past")]
    Expired,
    #[error("the claim `nbf` lies in the future")]
    NotYetValid,
    #[error("the claim `{0}` is not a NumericDate")]
    NotADate(&'static str),
}

impl Claims {
    /// Returns the claim at a path.
    pub(super) fn at(&self, path: &ClaimPath) -> Option<&Value> {
        path.find(&self.0)
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// Checks `aud`, `exp` and `nbf` (RFC 7519, 4.1). `now` is in seconds since 1970, and so is the result: the end of the
    /// token's validity, including the leeway.
    pub(super) fn check(&self, issuer: &Issuer, now: i64) -> Result<i64, ClaimError> {
        let is_audience = match self.0.get("aud") {
            Some(Value::String(one)) => issuer.audience.contains(one),
            Some(Value::Array(several)) => {
                several.iter().filter_map(Value::as_str).any(|one| issuer.audience.iter().any(|ours| ours == one))
            }
            _ => false,
        };
        let leeway = i64::try_from(issuer.leeway.as_secs()).unwrap_or(0);
        let end = self.seconds("exp")?.ok_or(ClaimError::NoExpiry)?.saturating_add(leeway);
        let is_early = self.seconds("nbf")?.is_some_and(|start| now < start.saturating_sub(leeway));
        // Expiry is checked last: only the holder of an otherwise valid token learns that it has expired.
        if !is_audience {
            Err(ClaimError::Audience)
        } else if is_early {
            Err(ClaimError::NotYetValid)
        } else if now >= end {
            Err(ClaimError::Expired)
        } else {
            Ok(end)
        }
    }

    /// Reads a NumericDate (RFC 7519, 2); fractions of a second are cut off.
    fn seconds(&self, name: &'static str) -> Result<Option<i64>, ClaimError> {
        #[expect(clippy::cast_possible_truncation, reason = "bounded before it is cut")]
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match (value.as_i64(), value.as_f64()) {
                (Some(whole), _) => Ok(Some(whole)),
                (None, Some(fraction)) if fraction.abs() < 1e15 => Ok(Some(fraction as i64)),
                _ => Err(ClaimError::NotADate(name)),
            },
        }
    }

    /// Returns the linked accounts that the token names: one, or a list. Invalid ids are ignored.
    pub(super) fn linked_accounts(&self, issuer: &Issuer) -> Vec<Box<str>> {
        let valid = |value: &Value| {
            let id = value.as_str().filter(|id| !id.is_empty())?;
            linked_account::check(id).ok().map(Box::from)
        };
        match self.at(&issuer.linked_account_claim) {
            Some(Value::Array(several)) => several.iter().filter_map(valid).collect(),
            Some(one) => valid(one).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Returns the permitted operations: writes only if the scope, a string of words (RFC 8693, 4.2) or an array, contains the
    /// configured word.
    pub(super) fn access(&self, issuer: &Issuer) -> Access {
        let Some(word) = &issuer.write_scope else { return Access::Read };
        let may_write = match self.at(&issuer.scope_claim) {
            Some(Value::String(words)) => words.split(' ').any(|one| one == &**word),
            Some(Value::Array(words)) => words.iter().any(|one| one.as_str() == Some(word)),
            _ => false,
        };
        if may_write { Access::ReadWrite } else { Access::Read }
    }

    pub(super) fn subject(&self) -> &str {
        self.0.get("sub").and_then(Value::as_str).unwrap_or("")
    }
}
