//! The cache step: which stored entry may answer a request, if any.

use std::sync::Arc;

use crate::cache::{Acceptance, CacheKey, CacheOutcome, CutOff, Directives, Entry, RenewalClaim, Servable, Store};
use crate::clock::Moment;
use crate::config::Stale;
use crate::error::{ClientError, Reason};
use crate::tenant::Tenant;

/// The result of looking a question up in the cache.
pub(super) enum Lookup {
    /// The entry is served as it is.
    Hit(Arc<Entry>, CacheOutcome),
    /// The entry is stale: this request serves it and holds the claim to renew it in the background (RFC 5861, 3).
    Renewable(Arc<Entry>, RenewalClaim, CacheOutcome),
    /// Refold has to answer.
    Miss {
        /// The stale entry: the fetch revalidates it, and it is served if the fetch fails and its stale window allows it.
        stale: Option<Arc<Entry>>,
        /// `Request` if the request's own `Cache-Control` ruled the entry out, else `NotAsked`.
        outcome: CacheOutcome,
    },
}

/// Looks a question up, as the request's directives and the tenant's stale windows allow. Whether the replica is cut off was found out
/// before the key was made. Part of the hit path.
pub(super) fn look_up(
    store: &Store,
    key: &CacheKey,
    directives: &Directives,
    tenant: &Tenant,
    (now, cut_off): (Moment, Option<CutOff>),
) -> Lookup {
    let miss = |stale| Lookup::Miss { stale, outcome: CacheOutcome::NotAsked };
    let entry = store.get(key).filter(|entry| !entry.is_withdrawn(tenant.trust()));
    let Some(entry) = entry else { return miss(None) };
    if let Some(cut_off) = cut_off {
        return look_up_cut_off(entry, cut_off, directives, (&tenant.config.stale, now));
    }
    match directives.judge(&entry, now) {
        // A response that the request's directives rule out is no fallback either.
        Acceptance::Rejected => return Lookup::Miss { stale: None, outcome: CacheOutcome::Request },
        Acceptance::Accepted => return Lookup::Hit(entry, CacheOutcome::HitStale),
        Acceptance::ByLifetime => {}
    }
    match entry.servable(&tenant.config.stale, now) {
        Servable::Fresh => Lookup::Hit(entry, CacheOutcome::Hit),
        Servable::WhileFailing => Lookup::Hit(entry, CacheOutcome::HitStale),
        // One reader claims the renewal of a stale entry; for the others it is a hit.
        Servable::WhileRevalidating => match entry.claim_renewal() {
            Some(claim) => Lookup::Renewable(entry, claim, CacheOutcome::HitStale),
            None => Lookup::Hit(entry, CacheOutcome::HitStale),
        },
        Servable::IfError | Servable::No => miss(Some(entry)),
    }
}

/// Looks a question up on a replica that can't know what the others have dropped.
#[cold]
fn look_up_cut_off(
    entry: Arc<Entry>,
    cut_off: CutOff,
    directives: &Directives,
    (stale, now): (&Stale, Moment),
) -> Lookup {
    if !cut_off.may_use_held() {
        return Lookup::Miss { stale: None, outcome: CacheOutcome::NotAsked };
    }
    if directives.may_reject_fresh() {
        return Lookup::Miss { stale: None, outcome: CacheOutcome::Request };
    }
    match entry.servable_when_cut_off(stale, cut_off.since, now) {
        Servable::Fresh | Servable::WhileFailing => Lookup::Hit(entry, CacheOutcome::HitCutOff),
        Servable::WhileRevalidating => match entry.claim_renewal() {
            Some(claim) => Lookup::Renewable(entry, claim, CacheOutcome::HitCutOff),
            None => Lookup::Hit(entry, CacheOutcome::HitCutOff),
        },
        Servable::IfError | Servable::No => Lookup::Miss { stale: Some(entry), outcome: CacheOutcome::NotAsked },
    }
}

/// The error for a request that takes only a cached response (RFC 9111, 5.2.1.7) when there is none.
pub(super) fn not_cached() -> ClientError {
    ClientError::new(Reason::NotCached, "no cached response satisfies the request's Cache-Control")
}
