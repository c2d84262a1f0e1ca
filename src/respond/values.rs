//! Header values that differ between responses. Part of the hit path.

use std::time::Duration;

use bytes::BufMut;
use http::HeaderValue;

use super::fields::NO_STORE;
use super::header_value::{NumberedValues, formatted, put_integer};
use crate::admit::Budgets;
use crate::cache::{CacheOutcome, Entry};
use crate::clock::Moment;

/// `Age` (RFC 9111, 5.1).
pub(super) fn age(age: Duration) -> HeaderValue {
    static AGES: NumberedValues = NumberedValues::with_text("");
    AGES.get(age.as_secs())
}

/// `Cache-Control` (RFC 9111, 5.2.2); `private`, since a response is for one caller only.
pub(super) fn cache_control(outcome: CacheOutcome, entry: &Entry) -> HeaderValue {
    static PRIVATE: NumberedValues = NumberedValues::with_text("private, max-age=");
    match outcome {
        _ if entry.no_store => NO_STORE,
        // It counts as stale.
        CacheOutcome::HitCutOff => PRIVATE.get(0),
        _ => PRIVATE.get(entry.lifetime.as_secs()),
    }
}

/// `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, section 4).
pub(super) fn rate_limit(budgets: &Budgets) -> HeaderValue {
    formatted(|out| {
        let mut separator = "";
        for (policy, state) in budgets.states() {
            out.put_slice(separator.as_bytes());
            out.put_slice(policy.name().as_bytes());
            out.put_slice(b";r=");
            put_integer(out, u64::from(state.remaining));
            out.put_slice(b";t=");
            put_integer(out, u64::from(state.reset));
            separator = ", ";
        }
    })
}

/// `Cache-Status` (RFC 9211).
pub(super) fn cache_status(outcome: CacheOutcome, entry: &Entry, now: Moment) -> HeaderValue {
    const TTL: &str = "postern; hit; ttl=";
    static HITS: NumberedValues = NumberedValues::with_text(TTL);
    let (forward, collapsed) = match outcome {
        CacheOutcome::Hit => return HITS.get(seconds_left(entry, now)),
        CacheOutcome::Derived | CacheOutcome::HitShared => {
            let detail: &[u8] = if outcome == CacheOutcome::Derived { b"; detail=derived" } else { b"; detail=fleet" };
            return formatted(|out| {
                out.put_slice(TTL.as_bytes());
                put_integer(out, seconds_left(entry, now));
                out.put_slice(detail);
            });
        }
        CacheOutcome::HitStale | CacheOutcome::HitCutOff => {
            let staleness = entry.age(now).saturating_sub(entry.lifetime);
            let detail: &[u8] =
                if outcome == CacheOutcome::HitCutOff { b"; detail=stale-cut-off" } else { b"; detail=stale" };
            return formatted(|out| {
                out.put_slice(TTL.as_bytes());
                out.put_slice(b"-");
                put_integer(out, staleness.as_secs().max(1));
                out.put_slice(detail);
            });
        }
        CacheOutcome::NotAsked | CacheOutcome::Bypass => ("bypass", false),
        CacheOutcome::Request => ("request", false),
        CacheOutcome::Miss { collapsed } => ("uri-miss", collapsed),
        CacheOutcome::Stale { collapsed } => ("stale", collapsed),
    };
    formatted(|out| {
        out.put_slice(b"postern; fwd=");
        out.put_slice(forward.as_bytes());
        out.put_slice(if entry.no_store { b"" } else { b"; stored" });
        out.put_slice(if collapsed { b"; collapsed" } else { b"" });
    })
}

/// Remaining freshness in seconds, rounded up: 0 exactly if the entry is stale.
fn seconds_left(entry: &Entry, now: Moment) -> u64 {
    let left = entry.lifetime.saturating_sub(entry.age(now));
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{BudgetState, Policy};

    #[test]
    fn the_longest_values_fit() {
        let longest = BudgetState { remaining: u32::MAX, reset: u32::MAX };
        let budgets = Budgets {
            policies: NO_STORE,
            partition: Some((Policy::Account, longest)),
            key: Some(longest),
            upstream: Some(longest),
        };
        let max = u32::MAX;
        let items = ["account", "key", "upstream"].map(|name| format!("\"{name}\";r={max};t={max}"));
        assert_eq!(rate_limit(&budgets), items.join(", "));
    }
}
