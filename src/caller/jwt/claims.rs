//! What a verified token says: whether it is for us and valid now, for whom it asks, and what it may do.

use serde_json::Value;

use crate::caller::checked_account;
use crate::config::{Access, ClaimPath, Issuer};

/// The claims of a token.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Value);

/// Why a token whose signature is good is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Its time is over.
    Expired,
    /// Anything else; nobody is told what.
    Other,
}

impl Claims {
    /// The claim at a path: the member of that very name if there is one (names can have dots in them), else the path's
    /// members inside each other.
    pub(super) fn at(&self, path: &ClaimPath) -> Option<&Value> {
        let path = path.0.as_ref();
        self.0.get(path).or_else(|| path.split('.').try_fold(&self.0, |value, name| value.get(name)))
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// Checks `aud`, `exp` and `nbf` (RFC 7519, 4.1); `now` is in seconds since 1970. Gives the second from which the
    /// token is refused, the leeway in it.
    pub(super) fn check(&self, issuer: &Issuer, now: i64) -> Result<i64, Unusable> {
        let audience = match self.0.get("aud") {
            Some(Value::String(one)) => issuer.audience.contains(one),
            Some(Value::Array(several)) => {
                several.iter().filter_map(Value::as_str).any(|one| issuer.audience.iter().any(|ours| ours == one))
            }
            _ => false,
        };
        let leeway = i64::try_from(issuer.leeway.as_secs()).unwrap_or(0);
        let over = self.seconds("exp")?.ok_or(Unusable::Other)?.saturating_add(leeway);
        let early = self.seconds("nbf")?.is_some_and(|from| now < from.saturating_sub(leeway));
        if !audience || early {
            return Err(Unusable::Other);
        }
        if now >= over { Err(Unusable::Expired) } else { Ok(over) }
    }

    /// A NumericDate; fractions of a second are cut off.
    fn seconds(&self, name: &str) -> Result<Option<i64>, Unusable> {
        #[expect(clippy::cast_possible_truncation, reason = "bounded before it is cut")]
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match (value.as_i64(), value.as_f64()) {
                (Some(whole), _) => Ok(Some(whole)),
                (None, Some(fraction)) if fraction.abs() < 1e15 => Ok(Some(fraction as i64)),
                _ => Err(Unusable::Other),
            },
        }
    }

    /// The linked accounts it names: one, or a list. Empty if it names none.
    pub(super) fn linked_accounts(&self, issuer: &Issuer) -> Vec<Box<str>> {
        let usable = |value: &Value| {
            let id = value.as_str().filter(|id| !id.is_empty())?;
            checked_account(id).ok().map(Box::from)
        };
        match self.at(&issuer.linked_account_claim) {
            Some(Value::Array(several)) => several.iter().filter_map(usable).collect(),
            Some(one) => usable(one).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// What it may do: write only if its scope (RFC 8693, 4.2: a list in a string; or an array) has the configured word.
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
