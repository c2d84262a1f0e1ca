//! Encodes entries on threads of their own, so that a worker never stops to compress.
//!
//! The work under way is bounded, and nothing waits for its turn: if the bound is reached, the response is plain, and a later
//! request for the entry tries again. One thread encodes an entry in a coding.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

use super::encoding::Coding;
use super::entry::Entry;
use super::key::CacheKey;
use super::store::Store;
use crate::offload::processors;

/// Encodes the entries of a store, a bounded number at once. Clones share the bound.
#[derive(Clone, Debug)]
pub struct Encoder {
    store: Store,
    permits: Arc<Semaphore>,
}

impl Encoder {
    /// Makes an encoder that uses half of the processors, so that the workers keep the others.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self::with_permits(store, (processors() / 2).max(1))
    }

    fn with_permits(store: Store, at_once: usize) -> Self {
        Self { store, permits: Arc::new(Semaphore::new(at_once)) }
    }

    /// An encoder for the entries of another store, with the same bound.
    #[must_use]
    pub fn for_store(&self, store: Store) -> Self {
        Self { store, permits: Arc::clone(&self.permits) }
    }

    /// Encodes the entry of a key, and returns when that is done; at once if the entry is encoded already or too small, if another
    /// request has begun to encode it, or if the bound is reached.
    pub async fn encode(&self, key: &CacheKey, entry: &Arc<Entry>, coding: Coding) {
        if let Some(work) = self.start(key, entry, coding) {
            // After a panic the response is plain.
            let _ = work.await;
        }
    }

    /// Starts to encode the entry of a key, for the requests that follow. Part of the hit path.
    pub fn start(&self, key: &CacheKey, entry: &Arc<Entry>, coding: Coding) -> Option<JoinHandle<()>> {
        if !entry.lacks_encoding(coding) {
            return None;
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        if !entry.claim_encoding(coding) {
            return None;
        }
        let (store, key, entry) = (self.store.clone(), key.clone(), Arc::clone(entry));
        Some(spawn_blocking(move || {
            let _permit = permit;
            entry.encode(coding);
            store.weigh_again(key, &entry);
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock::{Clock, Moment};
    use crate::executions::{ForwardedParameters, PathId, Progress, Question, ValidatedBody};

    fn encoder(at_once: usize) -> Encoder {
        Encoder::with_permits(Store::new(1 << 20, &Clock::system(), None, || {}), at_once)
    }

    fn key() -> CacheKey {
        let id = PathId::parse("a").expect("a plain id");
        CacheKey::of_one_account(Question::Execution(id, ForwardedParameters::default()))
    }

    fn entry(size: usize) -> Arc<Entry> {
        let body = ValidatedBody { body: Bytes::from(vec![b' '; size]), progress: Progress::Settled, total: None };
        Arc::new(Entry::new(&body, Duration::from_secs(5), Moment::from_nanos(1), Moment::from_nanos(2)))
    }

    #[tokio::test]
    async fn an_entry_is_encoded_in_each_coding_once() {
        let encoder = encoder(1);
        let entry = entry(100_000);
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            encoder.encode(&key(), &entry, coding).await;
            assert!(entry.encoded(coding).is_some(), "{coding:?}");
            assert!(encoder.start(&key(), &entry, coding).is_none(), "{coding:?} again");
        }
    }

    #[tokio::test]
    async fn beyond_the_bound_an_entry_stays_plain_until_a_later_request() {
        let encoder = encoder(2);
        let busy = encoder.clone().permits.acquire_many_owned(2).await.expect("it is open");
        let entry = entry(100_000);
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            // Returns without a wait for the busy ones.
            encoder.encode(&key(), &entry, coding).await;
            assert!(entry.lacks_encoding(coding), "{coding:?}");
        }
        drop(busy);
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            encoder.encode(&key(), &entry, coding).await;
            assert!(entry.encoded(coding).is_some(), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn an_entry_is_not_encoded_by_two_requests_at_once() {
        let encoder = encoder(2);
        let entry = entry(100_000);
        let first = encoder.start(&key(), &entry, Coding::Gzip).expect("it is free");
        assert!(encoder.start(&key(), &entry, Coding::Gzip).is_none());
        first.await.expect("no panic");
        let small = self::entry(1000);
        assert!(encoder.start(&key(), &small, Coding::Gzip).is_none());
        assert_eq!(encoder.permits.available_permits(), 2);
    }
}
