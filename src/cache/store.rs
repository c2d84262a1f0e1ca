//! The store of all entries, bounded by memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::Serialize;

use super::entry::Entry;
use super::key::CacheKey;
use crate::clock::{Clock, Moment};
use crate::config::WhenCutOff;
use crate::fleet::LocalTrust;

/// Stores the entries of all partitions in one cache, and evicts the least recently used ones. Dropped entries are never
/// used again, so they leave first; an eviction by frequency (TinyLFU) keeps them instead, and refuses the entries that take
/// their place under new keys. A read takes no lock that a writer can hold for long. Clones
/// share the same entries.
#[derive(Clone, Debug)]
pub struct Store {
    /// Tells whether the entries are current; `None` for a process that is alone by its configuration.
    fleet: Option<(LocalTrust, WhenCutOff)>,
    entries: Option<Cache<CacheKey, Arc<Entry>, foldhash::fast::RandomState>>,
}

/// A replica that can't know what the other replicas of its fleet have dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// The moment at which it could still know.
    pub since: Moment,
    /// The use of its entries.
    pub policy: WhenCutOff,
    /// True if the fleet's server answers all the same.
    pub is_connected: bool,
}

impl CutOff {
    /// Returns whether the replica may answer with what it holds, as if it were stale. While the server answers, it is asked: an answer
    /// that may be older than a drop is for replicas that can't know better.
    #[must_use]
    pub fn may_use_held(&self) -> bool {
        self.policy != WhenCutOff::Refuse && !self.is_connected
    }
}

/// Expires an entry when it can be neither served nor revalidated, however often it is weighed again.
struct EntryExpiry(Clock);

impl EntryExpiry {
    fn time_left(&self, entry: &Entry) -> Duration {
        (entry.request_time + entry.retention()).since(self.0.now())
    }
}

/// Memory of a key in the store and of the store's own bookkeeping for it, in bytes: `benches/scale capacity` compares the sum with
/// the resident memory.
const BOOKKEEPING: usize = 1_000;

fn weight(key: &CacheKey, entry: &Arc<Entry>) -> u32 {
    u32::try_from(BOOKKEEPING + key.heap_size() + entry.weight()).unwrap_or(u32::MAX)
}

impl Expiry<CacheKey, Arc<Entry>> for EntryExpiry {
    fn expire_after_create(&self, _: &CacheKey, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(self.time_left(entry))
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.time_left(entry))
    }
}

/// Usage figures of the store, for the status page and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes in use.
    pub bytes: u64,
    /// Capacity in bytes; 0 if caching is off.
    pub capacity: u64,
    /// Number of entries.
    pub entries: u64,
}

impl Store {
    /// An empty store for `capacity` bytes; 0 turns caching off. `evicted` is called for each entry that is removed to make
    /// room for others.
    #[must_use]
    pub fn new(
        capacity: u64,
        clock: &Clock,
        fleet: Option<(LocalTrust, WhenCutOff)>,
        evicted: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let entries = (capacity > 0).then(|| {
            Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(capacity)
                .weigher(weight)
                .expire_after(EntryExpiry(clock.clone()))
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evicted();
                    }
                })
                .build_with_hasher(foldhash::fast::RandomState::default())
        });
        Self { fleet, entries }
    }

    /// The entry of a key, fresh or stale. Part of the hit path.
    #[must_use]
    pub fn get(&self, key: &CacheKey) -> Option<Arc<Entry>> {
        self.entries.as_ref()?.get(key)
    }

    /// The state of a replica that can't know what the other replicas have dropped; `None` if the entries are current. Part of the
    /// hit path.
    #[must_use]
    pub fn cut_off(&self, now: Moment) -> Option<CutOff> {
        let (trust, policy) = self.fleet.as_ref()?;
        trust.lost_at(now).map(|since| CutOff { since, policy: *policy, is_connected: trust.is_connected(now) })
    }

    /// True if an entry may be used as an answer without asking for a newer one.
    #[must_use]
    pub fn is_current(&self, entry: &Entry, now: Moment) -> bool {
        entry.is_fresh(now) && self.cut_off(now).is_none()
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

    /// Counts the memory of a stored entry anew, after its body has been encoded.
    pub fn weigh_again(&self, key: CacheKey, entry: &Entry) {
        let Some(entries) = &self.entries else { return };
        entries.entry(key).and_compute_with(|stored| match stored {
            Some(stored) if stored.value().shares_body_with(entry) => Op::Put(stored.into_value()),
            _ => Op::Nop,
        });
    }

    /// Removes the entry of a key.
    pub fn remove(&self, key: &CacheKey) {
        if let Some(entries) = &self.entries {
            // In turn with the other changes of this entry, so that none of them brings it back.
            entries.entry_by_ref(key).and_compute_with(|_| Op::Remove);
        }
    }

    /// Current usage figures. Not for the hit path: runs the maintenance that writers have postponed.
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
    use crate::cache::Coding;
    use crate::executions::{ForwardedParameters, PathId, Progress, Question, ValidatedBody};

    const LIFETIME: Duration = Duration::from_secs(5);
    const START: Moment = Moment::from_nanos(0);

    fn clock() -> Clock {
        Clock::manual(jiff::Timestamp::UNIX_EPOCH)
    }

    fn store() -> Store {
        Store::new(1 << 20, &clock(), None, || {})
    }

    fn key(id: &str) -> CacheKey {
        CacheKey::of_one_account(Question::Execution(
            PathId::parse(id).expect("a plain id"),
            ForwardedParameters::default(),
        ))
    }

    fn requested_at(request_time: Moment) -> Entry {
        let body = ValidatedBody { body: Bytes::from_static(b"{}"), progress: Progress::Settled, total: None };
        Entry::new(&body, LIFETIME, request_time, request_time)
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
    fn an_entry_counts_the_codings_that_were_made_of_it() {
        let (store, key) = (store(), key("a"));
        let text = Bytes::from("{\"docs\":[]} ".repeat(1_000));
        let body = ValidatedBody { body: text, progress: Progress::Settled, total: None };
        let entry = Arc::new(Entry::new(&body, LIFETIME, START, START));
        store.put_if_newer(key.clone(), Arc::clone(&entry), START);
        let plain = store.usage().bytes;
        assert!((13_000..16_000).contains(&plain), "{plain}");
        entry.encode(Coding::Gzip);
        let replaced = requested_at(START);
        store.weigh_again(key.clone(), &replaced);
        assert_eq!(store.usage().bytes, plain, "another entry was encoded");
        store.weigh_again(key.clone(), &entry);
        let usage = store.usage();
        assert!(usage.bytes > plain && usage.entries == 1, "{usage:?}");
        store.remove(&key);
        store.weigh_again(key, &entry);
        assert_eq!(store.usage().entries, 0, "a removed entry does not come back");
    }

    #[test]
    fn an_entry_that_is_weighed_again_is_kept_no_longer() {
        let (clock, key) = (clock(), key("a"));
        let expiry = EntryExpiry(clock.clone());
        let (entry, created) = (Arc::new(requested_at(START)), tokio::time::Instant::now().into_std());
        let retention = entry.retention();
        assert_eq!(expiry.expire_after_create(&key, &entry, created), Some(retention));
        for passed in [1, 2] {
            clock.advance(Duration::from_secs(1));
            let left = retention.saturating_sub(Duration::from_secs(passed));
            assert_eq!(expiry.expire_after_update(&key, &entry, created, Some(left)), Some(left));
        }
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
