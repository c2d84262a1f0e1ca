//! What the cache did for a request.

/// What the cache did for a request (RFC 9211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// The request did not get as far as the cache.
    NotAsked,
    /// Answered from it.
    Hit,
    /// Answered from it, though it is no longer fresh: while it is fetched anew, or since it can't be.
    HitStale,
    /// Made of other answers in it.
    Derived,
    /// Fetched, since there was nothing: `fwd=uri-miss`.
    Miss {
        /// Somebody else's fetch was shared.
        collapsed: bool,
    },
    /// Fetched, since what there was is no longer fresh: `fwd=stale`.
    Stale {
        /// Somebody else's fetch was shared.
        collapsed: bool,
    },
    /// Fetched, since the request wanted so: `fwd=request`.
    Request,
    /// Never cached: `fwd=method`.
    Bypass,
}

impl CacheOutcome {
    /// Its name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotAsked => "none",
            Self::Hit => "hit",
            Self::HitStale => "hit_stale",
            Self::Derived => "derived",
            Self::Miss { .. } => "miss",
            Self::Stale { .. } => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
        }
    }
}
