//! An answer as it is kept: the body, its tag, and what the other headers of an answer follow from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_128;

use super::encoding::{Coding, Codings};
use crate::clock::Moment;
use crate::config::Stale;
use crate::executions::{Document, Progress};

/// Pause after a refetch that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// An answer that can be given more than once. What a hit needs of it stands together: with thousands of entries hardly any
/// of it is in the processor's cache.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Entry {
    /// When the upstream was asked: what `Age` counts from.
    pub request_time: Moment,
    /// How long it is fresh.
    pub lifetime: Duration,
    /// The JSON text.
    pub body: Bytes,
    /// Strong entity tag (RFC 9110, 8.8.3): the hash of the body.
    pub etag: HeaderValue,
    /// The body in other codings; a renewed entry has those that were made.
    pub codings: Arc<Codings>,
    /// The upstream asked for it not to be kept.
    pub no_store: bool,
    /// When its answer was there.
    pub response_time: Moment,
    /// How many there are in the list of which it is a page.
    pub total: Option<u64>,
    /// It was not fetched: it follows from others that were in the cache.
    pub derived: bool,
    /// Whether what it shows can still change.
    pub progress: Progress,
    /// The upstream's own `ETag`, to ask whether anything changed.
    pub validator: Option<HeaderValue>,
    /// How long it is of use after it has ceased to be fresh.
    pub stale_for: Duration,
    failed: Failed,
    renewal: RenewalState,
}

/// When a refetch is worth trying again, in nanoseconds on the clock.
#[derive(Debug, Default)]
struct Failed(AtomicU64);

/// Another entry, which has not failed yet.
impl Clone for Failed {
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

/// What can be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servable {
    /// Given as it is.
    Fresh,
    /// Given as it is, and fetched anew in the background.
    WhileRevalidating,
    /// Given as it is: it could not be fetched a moment ago.
    WhileFailing,
    /// Given only if it can't be fetched.
    IfError,
    /// Of use for its validator alone.
    No,
}

impl Entry {
    /// An answer that was asked for at `asked_at` and is here now.
    #[must_use]
    pub fn new(document: &Document, lifetime: Duration, asked_at: Moment, now: Moment) -> Self {
        let (body, etag) = kept(&document.body);
        Self {
            body,
            etag,
            request_time: asked_at,
            response_time: now,
            total: document.total,
            derived: false,
            lifetime,
            progress: document.progress,
            validator: None,
            no_store: false,
            stale_for: Duration::ZERO,
            codings: Arc::default(),
            failed: Failed::default(),
            renewal: RenewalState::default(),
        }
    }

    /// The same answer, asked for again at `asked_at` and found to be still true.
    #[must_use]
    pub fn renewed(&self, lifetime: Duration, asked_at: Moment, now: Moment) -> Self {
        Self { lifetime, request_time: asked_at, response_time: now, ..self.clone() }
    }

    /// Shares the body of an older entry, and what was coded of it, if nothing has changed: to code it anew costs far more than
    /// to compare.
    #[must_use]
    pub fn sharing(mut self, older: &Self) -> Self {
        if self.body == older.body {
            self.body = older.body.clone();
            self.etag = older.etag.clone();
            self.codings = Arc::clone(&older.codings);
        }
        self
    }

    /// Marks it as one that the upstream wants nobody to keep.
    #[must_use]
    pub fn not_stored(mut self) -> Self {
        self.no_store = true;
        self.lifetime = Duration::ZERO;
        self
    }

    /// How long ago the upstream was asked.
    #[must_use]
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.request_time)
    }

    /// Whether it may be given without asking the upstream.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.age(now) < self.lifetime
    }

    /// Makes the body in a coding, once.
    pub fn encode(&self, coding: Coding) {
        self.codings.make(coding, &self.body, &self.etag);
    }

    /// Whether the body in a coding is worth making, and whoever asks this is to have it made.
    #[must_use]
    pub fn claims(&self, coding: Coding) -> bool {
        Codings::worth_it(&self.body) && self.codings.claim(coding)
    }

    /// Whether the body in a coding is worth making and was not made yet.
    #[must_use]
    pub fn lacks(&self, coding: Coding) -> bool {
        Codings::worth_it(&self.body) && !self.codings.is_made(coding)
    }

    /// What can be done with it now (RFC 5861).
    #[must_use]
    pub fn usable(&self, stale: &Stale, now: Moment) -> Servable {
        let over = self.age(now).saturating_sub(self.lifetime);
        if self.is_fresh(now) {
            Servable::Fresh
        } else if over >= stale.while_revalidate.max(stale.if_error) {
            Servable::No
        } else if over < stale.if_error && now.as_nanos() < self.failed.0.load(Ordering::Relaxed) {
            Servable::WhileFailing
        } else if over < stale.while_revalidate {
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

    /// It could not be fetched anew: for a while nobody has to find out again.
    pub fn refetch_failed(&self, now: Moment) {
        self.failed.0.store((now + RETRY_PAUSE).as_nanos(), Ordering::Relaxed);
    }

    /// What it takes in memory, in bytes.
    #[must_use]
    pub fn weight(&self) -> u32 {
        // The key, the header values and the cache's own bookkeeping.
        const OVERHEAD: usize = 512;
        // As much again for what it may be coded to.
        let coded = if Codings::worth_it(&self.body) { self.body.len() } else { 0 };
        u32::try_from(self.body.len() + coded + OVERHEAD).unwrap_or(u32::MAX)
    }
}

/// A body and its entity tag, behind each other in an allocation of their own: a hit finds one count of references for both,
/// and a body that was a part of something larger does not keep all of that in memory.
fn kept(body: &[u8]) -> (Bytes, HeaderValue) {
    // Nobody gains by a collision with their own answer, so the fastest hash will do; the same on every replica.
    let tag = format!("\"{:032x}\"", xxh3_128(body));
    let mut both = Vec::with_capacity(body.len() + tag.len());
    both.extend_from_slice(body);
    both.extend_from_slice(tag.as_bytes());
    let mut kept = Bytes::from(both);
    let tag = kept.split_off(body.len());
    (kept, HeaderValue::from_maybe_shared(tag).unwrap_or(HeaderValue::from_static("\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(body: &'static str, at: u64) -> Entry {
        let document = Document { body: Bytes::from_static(body.as_bytes()), progress: Progress::Settled, total: None };
        Entry::new(&document, Duration::from_secs(5), Moment::from_nanos(at), Moment::from_nanos(at + 1))
    }

    #[test]
    fn an_entry_with_the_same_body_has_what_was_coded_of_it_and_another_has_not() {
        let text = r#"{"docs":[{"status":"COMPLETED"},{"status":"COMPLETED"}]}"#;
        let older = entry(text, 1);
        older.encode(Coding::Gzip);
        let newer = entry(text, 7).sharing(&older);
        assert_eq!(newer.request_time, Moment::from_nanos(7));
        assert_eq!(newer.body.as_ptr(), older.body.as_ptr());
        assert!(newer.codings.is_made(Coding::Gzip));
        let other = entry("{}", 7).sharing(&older);
        assert_eq!(other.body, "{}");
        assert!(other.etag != older.etag && !other.codings.is_made(Coding::Gzip));
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
    fn the_tag_is_the_hash_of_the_body_alone() {
        let tag = entry("{}", 0).etag;
        assert_eq!(tag, format!("\"{:032x}\"", xxh3_128(b"{}")));
    }
}
