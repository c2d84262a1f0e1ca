//! A table by session token.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// SHA-256 of a session token.
pub type TokenDigest = [u8; 32];

type Rows<V> = Cache<TokenDigest, V, foldhash::fast::RandomState>;

/// A bounded table of values by session token. It takes no memory before its first value, since most tenants have no session
/// tokens. Clones share the values.
#[derive(Clone, Debug)]
pub(super) struct TokenTable<V>(Arc<Inner<V>>);

struct Inner<V> {
    rows: OnceLock<Rows<V>>,
    capacity: u64,
    /// Time after which a value is dropped. Without it, the values that were not used for the longest time are dropped when there
    /// are too many.
    lifetime: Option<Duration>,
}

impl<V> fmt::Debug for Inner<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenTable").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl<V: Clone + Send + Sync + 'static> TokenTable<V> {
    /// Creates an empty table for so many values, each of which is dropped after a lifetime.
    pub(super) fn with_lifetime(capacity: u64, lifetime: Duration) -> Self {
        Self(Arc::new(Inner { rows: OnceLock::new(), capacity, lifetime: Some(lifetime) }))
    }

    /// Creates an empty table for so many values.
    pub(super) fn new(capacity: u64) -> Self {
        Self(Arc::new(Inner { rows: OnceLock::new(), capacity, lifetime: None }))
    }

    fn rows(&self) -> &Rows<V> {
        self.0.rows.get_or_init(|| {
            let builder = Cache::builder().max_capacity(self.0.capacity);
            let builder = match self.0.lifetime {
                Some(lifetime) => builder.time_to_live(lifetime),
                None => builder.eviction_policy(EvictionPolicy::lru()),
            };
            builder.build_with_hasher(foldhash::fast::RandomState::default())
        })
    }

    /// Returns the value of a token.
    pub(super) fn get(&self, digest: &TokenDigest) -> Option<V> {
        self.0.rows.get()?.get(digest)
    }

    /// Returns the value of a token, and makes it if there is none.
    pub(super) fn get_with(&self, digest: &TokenDigest, make: impl FnOnce() -> V) -> V {
        self.rows().get_with(*digest, make)
    }

    /// Sets the value of a token.
    pub(super) fn insert(&self, digest: TokenDigest, value: V) {
        self.rows().insert(digest, value);
    }

    /// Removes the value of a token.
    pub(super) fn remove(&self, digest: &TokenDigest) {
        if let Some(rows) = self.0.rows.get() {
            rows.invalidate(digest);
        }
    }

    /// The approximate number of values.
    pub(super) fn len(&self) -> u64 {
        self.0.rows.get().map_or(0, Cache::entry_count)
    }

    /// All values with their tokens, at one moment or another of this call.
    pub(super) fn all(&self) -> impl Iterator<Item = (TokenDigest, V)> {
        self.0.rows.get().into_iter().flat_map(|rows| rows.iter().map(|(digest, value)| (*digest, value)))
    }
}
