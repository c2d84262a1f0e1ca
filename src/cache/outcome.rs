//! The cache's part in a response, as reported in `Cache-Status`, logs and metrics.

/// The cache's part in a response (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// The request ended before the cache was looked up.
    NotAsked,
    /// Served fresh from the cache.
    Hit,
    /// Served stale from the cache: during a renewal, after a failed one, or because the request's `max-stale` accepts it.
    HitStale,
    /// Served from the cache while this replica is cut off from its fleet, and can't know what the other replicas have dropped.
    HitCutOff,
    /// Served fresh from the second level of the cache, which the replicas of the fleet share.
    HitShared,
    /// Derived from other entries in the cache.
    Derived,
    /// Fetched because nothing was stored: `fwd=uri-miss`.
    Miss {
        /// The request shared another request's fetch.
        collapsed: bool,
    },
    /// Fetched because the stored entry was stale: `fwd=stale`.
    Stale {
        /// The request shared another request's fetch.
        collapsed: bool,
    },
    /// Fetched because of the request's own directives: `fwd=request`.
    Request,
    /// Never cached: `fwd=method`.
    Bypass,
}

impl CacheOutcome {
    /// The outcome's name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "none",
            Self::Hit => "hit",
            Self::HitStale => "hit_stale",
            Self::HitCutOff => "hit_cut_off",
            Self::HitShared => "hit_shared",
            Self::Derived => "derived",
            Self::Miss { .. } => "miss",
            Self::Stale { .. } => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
        }
    }
}
