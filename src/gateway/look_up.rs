//! The cache step: which stored entry may answer a request, if any.

use std::sync::Arc;

use crate::cache::{CacheKey, CacheOutcome, Directives, Entry, Servable, Store};
use crate::clock::Moment;
use crate::config::Stale;
use crate::error::{ClientError, Reason};

/// The result of looking a question up in the cache.
pub(super) enum Lookup {
    /// The entry is served as it is.
    Hit(Arc<Entry>, CacheOutcome),
    /// The entry is stale; it is served and renewed in the background (RFC 5861, 3).
    Renewable(Arc<Entry>),
    /// Refold has to answer.
    Miss {
        /// The entry to fall back on while Refold fails, and to revalidate.
        stale: Option<Arc<Entry>>,
        /// `Request` if the request's own `Cache-Control` ruled the entry out, else `NotAsked`.
        outcome: CacheOutcome,
    },
}

/// Looks a question up, as the request's directives and the tenant's stale windows allow. Part of the hit path.
pub(super) fn look_up(store: &Store, key: &CacheKey, directives: &Directives, windows: &Stale, now: Moment) -> Lookup {
    let miss = |stale| Lookup::Miss { stale, outcome: CacheOutcome::NotAsked };
    let Some(entry) = store.get(key) else { return miss(None) };
    match directives.accept(&entry, now) {
        // A response that the request's directives rule out is no fallback either.
        Some(false) => return Lookup::Miss { stale: None, outcome: CacheOutcome::Request },
        Some(true) => return Lookup::Hit(entry, CacheOutcome::HitStale),
        None => {}
    }
    match entry.usable(windows, now) {
        Servable::Fresh => Lookup::Hit(entry, CacheOutcome::Hit),
        Servable::WhileFailing => Lookup::Hit(entry, CacheOutcome::HitStale),
        Servable::WhileRevalidating => Lookup::Renewable(entry),
        Servable::IfError | Servable::No => miss(Some(entry)),
    }
}

/// The error for a request that takes only a cached response (RFC 9111, 5.2.1.7) when there is none.
pub(super) fn not_cached() -> ClientError {
    ClientError::new(Reason::NotCached, "no cached response satisfies the request's Cache-Control")
}
