//! Header values that differ from answer to answer.

use std::time::Duration;

use bytes::BufMut;
use http::HeaderValue;

use super::header_value::{Numbered, put_integer, written};
use super::{CacheOutcome, NO_STORE};
use crate::cache::Entry;
use crate::clock::Moment;
use crate::limit::BudgetUse;

/// `Age` (RFC 9111, 5.1).
pub(super) fn age(age: Duration) -> HeaderValue {
    static AGES: Numbered = Numbered::behind("");
    AGES.with(age.as_secs())
}

/// `Cache-Control` (RFC 9111, 5.2.2): for whoever asked and nobody else.
pub(super) fn cache_control(entry: &Entry) -> HeaderValue {
    static PRIVATE: Numbered = Numbered::behind("private, max-age=");
    if entry.no_store { NO_STORE } else { PRIVATE.with(entry.lifetime.as_secs()) }
}

/// `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, section 4).
pub(super) fn rate_limit(spent: BudgetUse) -> HeaderValue {
    written(|out| {
        out.put_slice(b"\"default\";r=");
        put_integer(out, u64::from(spent.remaining));
        out.put_slice(b";t=");
        put_integer(out, spent.reset);
    })
}

/// `Cache-Status` (RFC 9211).
pub(super) fn cache_status(result: CacheOutcome, entry: &Entry, now: Moment) -> HeaderValue {
    const TTL: &str = "postern; hit; ttl=";
    static HITS: Numbered = Numbered::behind(TTL);
    let (forward, collapsed) = match result {
        CacheOutcome::Hit => return HITS.with(seconds_left(entry, now)),
        CacheOutcome::Derived => {
            return written(|out| {
                out.put_slice(TTL.as_bytes());
                put_integer(out, seconds_left(entry, now));
                out.put_slice(b"; detail=derived");
            });
        }
        CacheOutcome::HitStale => {
            let over = entry.age(now).saturating_sub(entry.lifetime);
            return written(|out| {
                out.put_slice(TTL.as_bytes());
                out.put_slice(b"-");
                put_integer(out, over.as_secs().max(1));
            });
        }
        CacheOutcome::NotAsked | CacheOutcome::Bypass => ("bypass", false),
        CacheOutcome::Request => ("request", false),
        CacheOutcome::Miss { collapsed } => ("uri-miss", collapsed),
        CacheOutcome::Stale { collapsed } => ("stale", collapsed),
    };
    written(|out| {
        out.put_slice(b"postern; fwd=");
        out.put_slice(forward.as_bytes());
        out.put_slice(if entry.no_store { b"" } else { b"; stored" });
        out.put_slice(if collapsed { b"; collapsed" } else { b"" });
    })
}

/// How long it is still fresh, rounded up: 0 if and only if it is not.
fn seconds_left(entry: &Entry, now: Moment) -> u64 {
    let left = entry.lifetime.saturating_sub(entry.age(now));
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_values_fit() {
        let spent = BudgetUse { remaining: u32::MAX, reset: u64::MAX, refused: None };
        assert_eq!(rate_limit(spent), format!("\"default\";r={};t={}", u32::MAX, u64::MAX));
    }
}
