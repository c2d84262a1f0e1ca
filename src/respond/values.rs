//! Header values that differ with each answer. Those with one small number in them are made once for the process, the
//! others are written on the stack and copied once.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::BufMut;
use http::HeaderValue;

use super::CacheResult;
use crate::cache::Entry;
use crate::clock::Moment;
use crate::limit::Spent;

/// `Age` (RFC 9111, 5.1).
pub(super) fn age(age: Duration) -> HeaderValue {
    static AGES: LazyLock<Numbered> = LazyLock::new(|| Numbered::behind(""));
    AGES.with(age.as_secs())
}

/// `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11, section 4).
pub(super) fn rate_limit(spent: Spent) -> HeaderValue {
    written::<64>(|out| {
        out.put_slice(b"\"default\";r=");
        put_integer(out, u64::from(spent.remaining));
        out.put_slice(b";t=");
        put_integer(out, spent.reset);
    })
}

/// `Cache-Status` (RFC 9211).
pub(super) fn cache_status(result: CacheResult, entry: &Entry, now: Moment) -> HeaderValue {
    static HITS: LazyLock<Numbered> = LazyLock::new(|| Numbered::behind("postern; hit; ttl="));
    let (forward, collapsed) = match result {
        CacheResult::Hit => return HITS.with(seconds_left(entry, now)),
        CacheResult::Derived => {
            return written::<64>(|out| {
                out.put_slice(b"postern; hit; ttl=");
                put_integer(out, seconds_left(entry, now));
                out.put_slice(b"; detail=derived");
            });
        }
        CacheResult::HitStale => {
            let over = entry.age(now).saturating_sub(entry.lifetime);
            return written::<64>(|out| {
                out.put_slice(b"postern; hit; ttl=-");
                put_integer(out, over.as_secs().max(1));
            });
        }
        CacheResult::NotAsked | CacheResult::Bypass => ("bypass", false),
        CacheResult::Request => ("request", false),
        CacheResult::Miss { collapsed } => ("uri-miss", collapsed),
        CacheResult::Stale { collapsed } => ("stale", collapsed),
    };
    written::<64>(|out| {
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

/// Values that end with a number, the usual ones ready.
struct Numbered {
    text: &'static str,
    ready: Vec<HeaderValue>,
}

impl Numbered {
    /// Numbers that are ready: seconds up to more than the longest lifetime that answers have by default.
    const READY: u64 = 1024;

    /// A text and a number.
    fn behind(text: &'static str) -> Self {
        // One text for all, for as long as the process runs: a value that stands in it is cloned without counting.
        let mut ends = Vec::new();
        let mut all = String::new();
        for number in 0..Self::READY {
            all.push_str(text);
            all.push_str(itoa::Buffer::new().format(number));
            ends.push(all.len());
        }
        let mut rest: &'static str = all.leak();
        let mut before = 0;
        let mut cut = |end: usize| {
            let (value, others) = rest.split_at(end - before);
            (rest, before) = (others, end);
            HeaderValue::from_static(value)
        };
        Self { text, ready: ends.into_iter().map(&mut cut).collect() }
    }

    fn with(&self, number: u64) -> HeaderValue {
        match usize::try_from(number).ok().and_then(|index| self.ready.get(index)) {
            Some(ready) => ready.clone(),
            None => written::<64>(|out| {
                out.put_slice(self.text.as_bytes());
                put_integer(out, number);
            }),
        }
    }
}

/// A value of at most `N` bytes, all of them visible ASCII.
fn written<const N: usize>(write: impl FnOnce(&mut &mut [u8])) -> HeaderValue {
    let mut text = [0; N];
    let mut rest = &mut text[..];
    write(&mut rest);
    let length = N - rest.len();
    HeaderValue::from_bytes(&text[..length]).unwrap_or(HeaderValue::from_static(""))
}

fn put_integer(out: &mut &mut [u8], number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_alike_whether_or_not_they_were_ready() {
        let numbered = Numbered::behind("ttl=");
        for number in [0, 1, 9, 10, 1023, 1024, 1025, u64::MAX] {
            assert_eq!(numbered.with(number), format!("ttl={number}"));
        }
    }

    #[test]
    fn the_longest_values_fit() {
        let spent = Spent { remaining: u32::MAX, reset: u64::MAX, refused: None };
        assert_eq!(rate_limit(spent), format!("\"default\";r={};t={}", u32::MAX, u64::MAX));
        let long = Numbered::behind("postern; hit; ttl=").with(u64::MAX);
        assert!(long.len() + "; detail=derived".len() <= 64, "{long:?}");
    }
}
