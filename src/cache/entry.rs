//! A cache entry: a response body, its entity tag, and the values that response headers are computed from.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_128;

use super::encoding::{Coding, EncodedBodies, EncodedBody};
use super::footprint::allocated;
use crate::clock::Moment;
use crate::config::Stale;
use crate::digest::Hex;
use crate::executions::{Progress, ValidatedBody};
use crate::tenant::{DerivationMark, Trust};

/// Pause after a failed renewal, in which the stale entry is served without another attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Time for which a stale entry is stored at least: with its validator the upstream can answer 304.
const VALIDATOR_RETENTION: Duration = Duration::from_mins(1);

/// A stored response.
///
/// The fields that a hit reads come first and next to each other, in this order: with thousands of entries hardly any of
/// them is in the processor's cache.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Entry {
    /// Time at which the request was sent to the upstream; `Age` counts from it.
    pub request_time: Moment,
    /// Freshness lifetime, from `request_time`.
    pub lifetime: Duration,
    /// The JSON text.
    pub body: Bytes,
    /// Strong entity tag (RFC 9110, 8.8.3): the hash of the body.
    pub etag: HeaderValue,
    /// The body in other content codings, from the first of them on; an entry renewed with the same body shares them.
    encoded: OnceLock<Arc<EncodedBodies>>,
    /// The upstream sent `Cache-Control: no-store`.
    pub no_store: bool,
    /// Another replica of the fleet has fetched it.
    pub from_fleet: bool,
    /// The mark of an entry that was not fetched, but derived from other entries.
    pub derived: Option<DerivationMark>,
    /// Time at which the upstream's response arrived.
    pub response_time: Moment,
    /// Number of items in the list of which this is a page; `None` for a single execution.
    pub total: Option<u64>,
    /// Shows whether the content can still change.
    pub progress: Progress,
    /// The upstream's own `ETag`, for conditional requests.
    pub validator: Option<HeaderValue>,
    /// Time for which the entry can be served stale after its lifetime.
    pub stale_for: Duration,
    retry_time: RetryTime,
    renewal: RenewalState,
}

/// Time before which no further renewal is attempted, in nanoseconds on the clock.
#[derive(Debug, Default)]
struct RetryTime(AtomicU64);

/// A clone is an entry of its own, whose renewal has not failed.
impl Clone for RetryTime {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// True while a [`RenewalClaim`] of the entry exists.
#[derive(Debug, Default)]
struct RenewalState(AtomicBool);

/// A clone is an entry of its own, whose renewal is unclaimed.
impl Clone for RenewalState {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The exclusive right to renew one stale entry; dropping it lets another reader claim the renewal.
#[derive(Debug)]
#[must_use = "dropping the claim releases it"]
pub struct RenewalClaim(Arc<Entry>);

impl Drop for RenewalClaim {
    fn drop(&mut self) {
        self.0.renewal.0.store(false, Ordering::Release);
    }
}

/// The ways in which an entry can be served at a moment (RFC 5861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servable {
    /// Served as it is.
    Fresh,
    /// Served stale while it is renewed in the background.
    WhileRevalidating,
    /// Served stale without another attempt, since a renewal has just failed.
    WhileFailing,
    /// Served stale only if it can't be renewed.
    IfError,
    /// Not served; the entry can only be revalidated.
    No,
}

impl Entry {
    /// An entry for a body that was requested at `request_time` and arrived at `response_time`.
    #[must_use]
    pub fn new(body: &ValidatedBody, lifetime: Duration, request_time: Moment, response_time: Moment) -> Self {
        let ValidatedBody { body, progress, total } = body;
        let (body, etag) = with_etag(body);
        Self {
            body,
            etag,
            request_time,
            response_time,
            total: *total,
            derived: None,
            lifetime,
            progress: *progress,
            validator: None,
            no_store: false,
            from_fleet: false,
            stale_for: Duration::ZERO,
            encoded: OnceLock::new(),
            retry_time: RetryTime::default(),
            renewal: RenewalState::default(),
        }
    }

    /// The entry after a revalidation at `request_time` that found it unchanged.
    #[must_use]
    pub fn renewed(&self, lifetime: Duration, request_time: Moment, response_time: Moment) -> Self {
        Self { request_time, lifetime, response_time, from_fleet: false, ..self.clone() }
    }

    /// Shares the body and its encodings with an older entry if the bodies are equal: comparing them costs far less than
    /// encoding again.
    #[must_use]
    pub fn sharing(mut self, older: &Self) -> Self {
        if self.body == older.body {
            self.body = older.body.clone();
            self.etag = older.etag.clone();
            self.encoded = older.encoded.clone();
        }
        self
    }

    /// Marks the entry as one that must not be stored.
    #[must_use]
    pub fn not_stored(mut self) -> Self {
        self.no_store = true;
        self.lifetime = Duration::ZERO;
        self
    }

    /// Time after the request until which the entry can be served or revalidated.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.lifetime + self.stale_for.max(VALIDATOR_RETENTION)
    }

    /// Time since the request for the entry was sent to the upstream.
    #[must_use]
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.request_time)
    }

    /// True within the freshness lifetime.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.age(now) < self.lifetime
    }

    /// True if the entry was derived in a way that has turned out to be wrong since. Part of the hit path.
    #[must_use]
    pub fn is_withdrawn(&self, trust: &Trust) -> bool {
        self.derived.is_some_and(|mark| !trust.is_current(mark))
    }

    /// The body in a coding, if it is encoded already and small enough. Part of the hit path.
    #[must_use]
    pub fn encoded(&self, coding: Coding) -> Option<&EncodedBody> {
        self.encoded.get()?.get(coding)
    }

    /// Encodes the body, once per coding. Blocks while another thread encodes the same.
    pub fn encode(&self, coding: Coding) {
        self.encoded.get_or_init(Arc::default).encode(coding, &self.body, &self.etag);
    }

    /// Claims the encoding of the body; true for one caller, and only if the body is large enough.
    #[must_use]
    pub fn claim_encoding(&self, coding: Coding) -> bool {
        EncodedBodies::is_worth_encoding(&self.body) && self.encoded.get_or_init(Arc::default).claim(coding)
    }

    /// True if the body is large enough to be encoded and this coding was not tried yet.
    #[must_use]
    pub fn lacks_encoding(&self, coding: Coding) -> bool {
        EncodedBodies::is_worth_encoding(&self.body)
            && !self.encoded.get().is_some_and(|bodies| bodies.is_tried(coding))
    }

    /// Decides how the entry can be served now. Part of the hit path.
    #[must_use]
    pub fn servable(&self, stale: &Stale, now: Moment) -> Servable {
        if self.is_fresh(now) {
            return Servable::Fresh;
        }
        self.servable_as_stale(stale, self.age(now).saturating_sub(self.lifetime), now)
    }

    /// Decides how the entry can be served by a replica that has been cut off from its fleet since a moment: as if it had been
    /// stale since then.
    #[must_use]
    pub fn servable_when_cut_off(&self, stale: &Stale, since: Moment, now: Moment) -> Servable {
        let age = self.age(now);
        let staleness = age.saturating_sub(self.lifetime).max(age.min(now.since(since)));
        self.servable_as_stale(stale, staleness, now)
    }

    fn servable_as_stale(&self, stale: &Stale, staleness: Duration, now: Moment) -> Servable {
        if staleness >= stale.while_revalidate.max(stale.if_error) {
            Servable::No
        } else if staleness < stale.if_error && now.as_nanos() < self.retry_time.0.load(Ordering::Relaxed) {
            Servable::WhileFailing
        } else if staleness < stale.while_revalidate {
            Servable::WhileRevalidating
        } else {
            Servable::IfError
        }
    }

    /// Claims the renewal of this entry; `None` while another reader holds the claim. Part of the hit path: takes no lock.
    #[must_use]
    pub fn claim_renewal(self: &Arc<Self>) -> Option<RenewalClaim> {
        let claimed = &self.renewal.0;
        // Most readers of a stale entry find it claimed; the load leaves its cache line shared between their processors.
        let free = !claimed.load(Ordering::Relaxed) && !claimed.swap(true, Ordering::Acquire);
        free.then(|| RenewalClaim(Arc::clone(self)))
    }

    /// Records a failed renewal: for a short time the entry is served without another attempt.
    pub fn record_failed_renewal(&self, now: Moment) {
        self.retry_time.0.store((now + RETRY_PAUSE).as_nanos(), Ordering::Relaxed);
    }

    /// Memory that the entry takes now, in bytes: with the codings that have been made of its body.
    #[must_use]
    pub fn weight(&self) -> usize {
        let encoded = self.encoded.get().map_or(0, |bodies| bodies.weight());
        allocated(size_of::<Self>()) + allocated(self.body.len() + self.etag.len()) + encoded
    }

    /// True if both entries have the same body and the same memory for codings of it.
    #[must_use]
    pub fn shares_body_with(&self, other: &Self) -> bool {
        self.body.as_ptr() == other.body.as_ptr()
    }
}

/// Copies a body and its entity tag into one allocation of their own. A hit then touches one reference count for both, and a
/// body that was part of a larger buffer does not keep that buffer in memory.
fn with_etag(body: &[u8]) -> (Bytes, HeaderValue) {
    // A collision could only affect the client's own partition, so the hash need not be cryptographic. It has no seed, so
    // that all replicas send the same tag.
    let hash = xxh3_128(body).to_be_bytes();
    let mut both = Vec::with_capacity(body.len() + 2 * hash.len() + 2);
    both.extend_from_slice(body);
    both.push(b'"');
    both.extend(Hex(&hash).digits());
    both.push(b'"');
    let mut body_part = Bytes::from(both);
    let etag = body_part.split_off(body.len());
    (body_part, HeaderValue::from_maybe_shared(etag).expect("hexadecimal digits in quotes are a header value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: &'static str, at: u64) -> Entry {
        let body =
            ValidatedBody { body: Bytes::from_static(body.as_bytes()), progress: Progress::Settled, total: None };
        Entry::new(&body, Duration::from_secs(5), Moment::from_nanos(at), Moment::from_nanos(at + 1))
    }

    #[test]
    fn entries_with_equal_bodies_share_encodings() {
        let text = r#"{"docs":[{"status":"COMPLETED"},{"status":"COMPLETED"}]}"#;
        let older = entry(text, 1);
        older.encode(Coding::Gzip);
        let newer = entry(text, 7).sharing(&older);
        assert_eq!(newer.request_time, Moment::from_nanos(7));
        assert_eq!(newer.body.as_ptr(), older.body.as_ptr());
        assert!(!newer.lacks_encoding(Coding::Gzip));
        let other = entry("{}", 7).sharing(&older);
        assert_eq!(other.body, "{}");
        assert!(other.etag != older.etag && other.encoded.get().is_none());
    }

    #[test]
    fn one_reader_at_a_time_claims_a_renewal() {
        let stale = Arc::new(entry("{}", 1));
        let claim = stale.claim_renewal().expect("unclaimed");
        assert!(stale.claim_renewal().is_none());
        let renewed = Arc::new(stale.renewed(Duration::from_secs(5), Moment::from_nanos(7), Moment::from_nanos(8)));
        assert!(renewed.claim_renewal().is_some(), "a renewed entry is unclaimed");
        drop(claim);
        assert!(stale.claim_renewal().is_some(), "a dropped claim is free again");
    }

    #[test]
    fn of_many_readers_one_claims_a_renewal() {
        const READERS: usize = 4;
        let barrier = std::sync::Barrier::new(READERS);
        for _ in 0..200 {
            let stale = Arc::new(entry("{}", 1));
            let claims: Vec<_> = std::thread::scope(|scope| {
                let readers: Vec<_> = (0..READERS)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            stale.claim_renewal()
                        })
                    })
                    .collect();
                readers.into_iter().filter_map(|reader| reader.join().expect("no panic")).collect()
            });
            assert_eq!(claims.len(), 1);
        }
    }

    #[test]
    fn the_etag_is_the_hash_of_the_body_alone() {
        let tag = entry("{}", 0).etag;
        assert_eq!(tag, format!("\"{:032x}\"", xxh3_128(b"{}")));
    }
}
