//! Encodes entries on threads of their own, so that a worker never stops to compress.
//!
//! The work under way is bounded, and nothing waits for its turn: if the bound is reached, the response is plain, and a later
//! request for the entry tries again. One thread encodes an entry in a coding.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

use super::encoding::Coding;
use super::entry::Entry;
use crate::offload::processors;

/// Encodes entries, a bounded number at once. Clones share the bound.
#[derive(Clone, Debug)]
pub struct Encoder(Arc<Semaphore>);

/// Encodes on half of the processors, so that the workers keep the others.
impl Default for Encoder {
    fn default() -> Self {
        Self::new((processors() / 2).max(1))
    }
}

impl Encoder {
    /// Makes an encoder of at most `at_once` entries at the same time.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once)))
    }

    /// Encodes an entry, and returns when that is done; at once if the entry is encoded already or too small, if another request
    /// has begun to encode it, or if the bound is reached.
    pub async fn encode(&self, entry: &Arc<Entry>, coding: Coding) {
        if let Some(work) = self.start(entry, coding) {
            // After a panic the response is plain.
            let _ = work.await;
        }
    }

    /// Starts to encode an entry, for the requests that follow. Part of the hit path.
    pub fn start(&self, entry: &Arc<Entry>, coding: Coding) -> Option<JoinHandle<()>> {
        if !entry.lacks_encoding(coding) {
            return None;
        }
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        if !entry.claim_encoding(coding) {
            return None;
        }
        let entry = Arc::clone(entry);
        Some(spawn_blocking(move || {
            let _permit = permit;
            entry.encode(coding);
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::clock::Moment;
    use crate::executions::{Progress, ValidatedBody};

    fn entry(size: usize) -> Arc<Entry> {
        let body = ValidatedBody { body: Bytes::from(vec![b' '; size]), progress: Progress::Settled, total: None };
        Arc::new(Entry::new(&body, Duration::from_secs(5), Moment::from_nanos(1), Moment::from_nanos(2)))
    }

    #[tokio::test]
    async fn an_entry_is_encoded_in_each_coding_once() {
        let encoder = Encoder::new(1);
        let entry = entry(100_000);
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            encoder.encode(&entry, coding).await;
            assert!(entry.encoded.get(coding).is_some(), "{coding:?}");
            assert!(encoder.start(&entry, coding).is_none(), "{coding:?} again");
        }
    }

    #[tokio::test]
    async fn beyond_the_bound_an_entry_stays_plain_until_a_later_request() {
        let encoder = Encoder::new(2);
        let busy = encoder.clone().0.acquire_many_owned(2).await.expect("it is open");
        let entry = entry(100_000);
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            // Returns without a wait for the busy ones.
            encoder.encode(&entry, coding).await;
            assert!(entry.lacks_encoding(coding), "{coding:?}");
        }
        drop(busy);
        for coding in [Coding::Zstd, Coding::Brotli, Coding::Gzip] {
            encoder.encode(&entry, coding).await;
            assert!(entry.encoded.get(coding).is_some(), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn an_entry_is_not_encoded_by_two_requests_at_once() {
        let encoder = Encoder::new(2);
        let entry = entry(100_000);
        let first = encoder.start(&entry, Coding::Gzip).expect("it is free");
        assert!(encoder.start(&entry, Coding::Gzip).is_none());
        first.await.expect("no panic");
        let small = self::entry(1000);
        assert!(encoder.start(&small, Coding::Gzip).is_none());
        assert_eq!(encoder.0.available_permits(), 2);
    }
}
