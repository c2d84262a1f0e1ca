//! Where entries are kept, bounded by bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;
use serde::Serialize;

use super::entry::Entry;
use super::key::CacheKey;
use crate::clock::Moment;

/// The entries of all partitions in one TinyLFU cache. Reading takes no lock that a writer can hold for long. Cheap to clone;
/// clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    entries: Option<Cache<CacheKey, Arc<Entry>, foldhash::fast::RandomState>>,
}

/// An entry is of use for a while after it has gone stale: the upstream may say that it is still true.
const KEPT_FOR_RENEWAL: Duration = Duration::from_mins(1);

struct Usefulness;

impl Expiry<CacheKey, Arc<Entry>> for Usefulness {
    fn expire_after_create(&self, _: &CacheKey, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.lifetime + entry.stale_for.max(KEPT_FOR_RENEWAL))
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.lifetime + entry.stale_for.max(KEPT_FOR_RENEWAL))
    }
}

/// What is in the cache, for whoever watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes in use.
    pub bytes: u64,
    /// Bytes that may be; 0 if nothing is cached.
    pub capacity: u64,
    /// Answers.
    pub entries: u64,
}

impl Store {
    /// An empty store for `capacity` bytes; 0 keeps nothing. Whenever an entry has to make room for others, `evicted` is
    /// called.
    #[must_use]
    pub fn new(capacity: u64, evicted: impl Fn() + Send + Sync + 'static) -> Self {
        let entries = (capacity > 0).then(|| {
            Cache::builder()
                .max_capacity(capacity)
                .weigher(|key: &CacheKey, entry: &Arc<Entry>| key.heap_size().saturating_add(entry.weight()))
                .expire_after(Usefulness)
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evicted();
                    }
                })
                .build_with_hasher(foldhash::fast::RandomState::default())
        });
        Self { entries }
    }

    /// The entry under a key, fresh or not.
    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.entries.as_ref()?.get(key)
    }

    /// Stores an entry, unless the stored one is fresh and was requested later. An entry with `no_store` is not stored and
    /// removes an older one.
    ///
    /// Two fetches of one key can end at the same time in two workers, so comparing and writing are one step: moka runs
    /// the computations of one key one after the other, under a lock of that key alone, which reads do not take.
    pub fn put_if_newer(&self, key: CacheKey, entry: Arc<Entry>, now: Moment) {
        let Some(entries) = &self.entries else { return };
        entries.entry(key).and_compute_with(|stored| {
            let newer = |stored: &Entry| stored.request_time > entry.request_time && stored.is_fresh(now);
            match stored {
                Some(stored) if newer(stored.value()) => Op::Nop,
                _ if entry.no_store => Op::Remove,
                _ => Op::Put(entry),
            }
        });
    }

    /// Forgets an entry.
    pub fn remove(&self, key: &CacheKey) {
        if let Some(entries) = &self.entries {
            entries.invalidate(key);
        }
    }

    /// What is in it, up to date. Not for the hit path: what writers have left to be done is done first.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let Some(entries) = &self.entries else { return Usage::default() };
        entries.run_pending_tasks();
        Usage {
            bytes: entries.weighted_size(),
            capacity: entries.policy().max_capacity().unwrap_or(0),
            entries: entries.entry_count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use bytes::Bytes;

    use super::*;
    use crate::executions::{Document, PathId, Progress, Question};

    const LIFETIME: Duration = Duration::from_secs(5);
    const START: Moment = Moment::from_nanos(0);

    fn store() -> Store {
        Store::new(1 << 20, || {})
    }

    fn key(id: &str) -> CacheKey {
        CacheKey::of_one_account(Question::Document(PathId::parse(id).expect("a plain id")))
    }

    fn requested_at(request_time: Moment) -> Entry {
        let document = Document { body: Bytes::from_static(b"{}"), progress: Progress::Settled, total: None };
        Entry::new(&document, LIFETIME, request_time, request_time)
    }

    fn stored(store: &Store, key: &CacheKey) -> Option<Moment> {
        store.get(key).map(|entry| entry.request_time)
    }

    #[test]
    fn an_older_entry_replaces_a_newer_one_only_when_that_is_stale() {
        let (store, key) = (store(), key("a"));
        let (older, newer) = (START + Duration::from_secs(1), START + Duration::from_secs(2));
        store.put_if_newer(key.clone(), requested_at(newer).into(), newer);
        store.put_if_newer(key.clone(), requested_at(older).into(), newer);
        assert_eq!(stored(&store, &key), Some(newer));
        store.put_if_newer(key.clone(), requested_at(older).not_stored().into(), newer);
        assert_eq!(stored(&store, &key), Some(newer));
        store.put_if_newer(key.clone(), requested_at(older).into(), newer + LIFETIME);
        assert_eq!(stored(&store, &key), Some(older));
    }

    #[test]
    fn an_entry_with_no_store_removes_an_older_one() {
        let (store, key) = (store(), key("a"));
        store.put_if_newer(key.clone(), requested_at(START).into(), START);
        store.put_if_newer(key.clone(), requested_at(START).not_stored().into(), START);
        assert_eq!(stored(&store, &key), None);
    }

    #[test]
    fn the_newest_of_entries_put_at_once_wins() {
        const WRITERS: u64 = 4;
        let (store, barrier) = (store(), Barrier::new(usize::try_from(WRITERS).expect("a small number")));
        let keys: Vec<CacheKey> = (0..500).map(|round| key(&round.to_string())).collect();
        std::thread::scope(|scope| {
            for writer in 1..=WRITERS {
                let (store, barrier, keys) = (&store, &barrier, &keys);
                scope.spawn(move || {
                    for key in keys {
                        let entry = Arc::new(requested_at(Moment::from_nanos(writer)));
                        barrier.wait();
                        store.put_if_newer(key.clone(), entry, Moment::from_nanos(WRITERS));
                    }
                });
            }
        });
        for key in &keys {
            assert_eq!(stored(&store, key), Some(Moment::from_nanos(WRITERS)), "{key:?}");
        }
    }
}
