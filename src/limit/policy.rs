//! The policies that limit a caller, with their names in `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-11).

use http::HeaderValue;

use crate::config::Rate;

/// A policy that limits the requests of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The budget of a linked account.
    Account,
    /// The budget of a session token, whose linked account only Refold knows.
    Token,
    /// The budget of a client key.
    Key,
    /// The budget of an org key at Refold, which only fetches spend.
    Upstream,
}

impl Policy {
    /// The name in `RateLimit` and `RateLimit-Policy`, a string of structured fields (RFC 9651, 3.3.3).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "\"account\"",
            Self::Token => "\"token\"",
            Self::Key => "\"key\"",
            Self::Upstream => "\"upstream\"",
        }
    }
}

/// The state of a budget: the figures of `RateLimit` (section 4 of the draft).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetState {
    /// Requests that may follow at once: `r`.
    pub remaining: u32,
    /// Seconds until the whole burst is available again, rounded up: `t`.
    pub reset: u32,
}

/// Returns the value of `RateLimit-Policy` (section 3 of the draft): of each policy a quota, and the window in whole seconds in
/// which all of it is granted.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "digits and ASCII punctuation make a header value")]
pub fn policy_list(policies: &[(Policy, Rate)]) -> HeaderValue {
    let item = |(policy, rate): &(Policy, Rate)| {
        let (per_second, burst) = (rate.per_second.get(), rate.burst.get());
        // If the burst is less than a second's quota, the quota is the more useful figure.
        let (quota, window) = match burst.div_ceil(per_second) {
            1 => (per_second.max(burst), 1),
            window => (burst, window),
        };
        format!("{};q={quota};w={window}", policy.name())
    };
    let text = policies.iter().map(item).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(text).expect("digits and ASCII punctuation make a header value")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn the_policies_are_listed_with_quota_and_window() {
        let rate = |per_second, burst| {
            let number = |number| NonZeroU32::new(number).expect("not zero");
            Rate { per_second: number(per_second), burst: number(burst) }
        };
        let policies = [(Policy::Account, rate(50, 100)), (Policy::Key, rate(1, 3)), (Policy::Upstream, rate(20, 5))];
        assert_eq!(policy_list(&policies), "\"account\";q=100;w=2, \"key\";q=3;w=3, \"upstream\";q=20;w=1");
        assert_eq!(policy_list(&policies[..1]), "\"account\";q=100;w=2");
    }
}
