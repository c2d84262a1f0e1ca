//! Where entries are kept, bounded by bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use serde::Serialize;

use super::entry::Entry;
use super::key::CacheKey;

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

    /// Keeps an entry in the place of the one before it. If the upstream does not want it kept, neither is.
    pub fn put(&self, key: CacheKey, entry: Arc<Entry>) {
        match &self.entries {
            Some(entries) if entry.no_store => entries.invalidate(&key),
            Some(entries) => entries.insert(key, entry),
            None => {}
        }
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
