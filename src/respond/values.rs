//! Header values that differ from answer to answer.

use std::time::Duration;

use bytes::BufMut;
use http::HeaderValue;

use super::{CacheResult, NO_STORE};
use crate::cache::Entry;
use crate::clock::Moment;
use crate::header_value::{Numbered, put_integer, written};
use crate::limit::Spent;

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
pub(super) fn rate_limit(spent: Spent) -> HeaderValue {
    written(|out| {
        out.put_slice(b"\"default\";r=");
        put_integer(out, u64::from(spent.remaining));
        out.put_slice(b";t=");
        put_integer(out, spent.reset);
    })
}

/// `Cache-Status` (RFC 9211).
pub(super) fn cache_status(result: CacheResult, entry: &Entry, now: Moment) -> HeaderValue {
    const TTL: &str = "postern; hit; ttl=";
    static HITS: Numbered = Numbered::behind(TTL);
    let (forward, collapsed) = match result {
        CacheResult::Hit => return HITS.with(seconds_left(entry, now)),
        CacheResult::Derived => {
            return written(|out| {
                out.put_slice(TTL.as_bytes());
                put_integer(out, seconds_left(entry, now));
                out.put_slice(b"; detail=derived");
            });
        }
        CacheResult::HitStale => {
            let over = entry.age(now).saturating_sub(entry.lifetime);
            return written(|out| {
                out.put_slice(TTL.as_bytes());
                out.put_slice(b"-");
                put_integer(out, over.as_secs().max(1));
            });
        }
        CacheResult::NotAsked | CacheResult::Bypass => ("bypass", false),
        CacheResult::Request => ("request", false),
        CacheResult::Miss { collapsed } => ("uri-miss", collapsed),
        CacheResult::Stale { collapsed } => ("stale", collapsed),
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
        let spent = Spent { remaining: u32::MAX, reset: u64::MAX, refused: None };
        assert_eq!(rate_limit(spent), format!("\"default\";r={};t={}", u32::MAX, u64::MAX));
    }
}
