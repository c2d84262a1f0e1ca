//! The session tokens of a tenant that callers have sent lately. Postern can't verify them, so it records the upstream's
//! verdict on each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use moka::sync::Cache;

use super::partition::{Owner, Partition, TokenStatus};
use crate::clock::Moment;
use crate::config::Rate;

/// Time for which the upstream's acceptance of a session token is trusted.
const ACCEPTED_FOR: Duration = Duration::from_mins(1);
/// Time for which a session token is refused here after the upstream has refused it.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Maximum number of session tokens that are remembered and not accepted.
const MAX_UNPROVEN: u64 = 1024;

/// Longest time for which a token's pause after an upstream 429 is remembered.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// SHA-256 of a session token.
pub type TokenDigest = [u8; 32];

/// The upstream's decision about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamVerdict {
    /// The upstream answered 2xx or 304.
    Accepted,
    /// The upstream answered 401.
    Refused,
}

/// The partitions of session tokens. Accepted tokens and others are bounded separately, so that invented tokens never displace
/// good ones.
#[derive(Clone, Debug)]
pub(super) struct SessionTokens {
    accepted: Partitions,
    unproven: Partitions,
    paused: Pauses,
    paused_unproven: Pauses,
}

/// The ends of the pauses that the upstream has asked tokens for with a 429. Longer than a token is remembered otherwise.
type Pauses = Cache<TokenDigest, Moment, foldhash::fast::RandomState>;
type Partitions = Cache<TokenDigest, Arc<Partition>, foldhash::fast::RandomState>;

impl SessionTokens {
    /// Creates an empty table for so many accepted tokens.
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            accepted: bounded(capacity, ACCEPTED_FOR),
            unproven: bounded(MAX_UNPROVEN, ACCEPTED_FOR),
            paused: bounded(capacity, LONGEST_PAUSE),
            paused_unproven: bounded(MAX_UNPROVEN, LONGEST_PAUSE),
        }
    }

    /// Returns a table that shares the unproven tokens and the pauses with this one, and has no accepted tokens.
    pub(super) fn with_capacity(&self, capacity: u64) -> Self {
        Self { accepted: bounded(capacity, ACCEPTED_FOR), ..self.clone() }
    }

    /// The approximate number of tokens.
    pub(super) fn len(&self) -> u64 {
        self.accepted.entry_count() + self.unproven.entry_count()
    }

    /// The approximate number of accepted tokens.
    pub(super) fn accepted_len(&self) -> u64 {
        self.accepted.entry_count()
    }

    /// Returns the partition of a token, and creates it if there is none.
    pub(super) fn get(&self, digest: &TokenDigest, rate: Rate) -> Arc<Partition> {
        match self.accepted.get(digest) {
            Some(partition) => partition,
            None => self.unproven.get_with(*digest, || Arc::new(Partition::new(Owner::unproven_token(), rate))),
        }
    }

    /// Returns whether the upstream has accepted a token lately.
    pub(super) fn is_accepted(&self, digest: &TokenDigest) -> bool {
        self.accepted.contains_key(digest)
    }

    /// Pauses a token of this status until a moment.
    pub(super) fn pause(&self, digest: TokenDigest, status: TokenStatus, until: Moment) {
        match status {
            TokenStatus::Accepted => self.paused.insert(digest, until),
            TokenStatus::Unproven | TokenStatus::Refused => self.paused_unproven.insert(digest, until),
        }
    }

    /// Returns the end of a token's last pause.
    pub(super) fn paused_until(&self, digest: &TokenDigest) -> Option<Moment> {
        self.paused.get(digest).max(self.paused_unproven.get(digest))
    }

    /// Records that the upstream has accepted a token: it is accepted here for [`ACCEPTED_FOR`], and an earlier refusal ends.
    pub(super) fn accept(&self, digest: TokenDigest, partition: &Arc<Partition>) {
        if let Owner::SessionToken { accepted, refused_until } = &partition.owner {
            refused_until.store(0, Ordering::Release);
            // Each acceptance starts the time anew, so a token that is in use does not become unproven again.
            self.accepted.insert(digest, Arc::clone(partition));
            if !accepted.swap(true, Ordering::AcqRel) {
                self.unproven.invalidate(&digest);
            }
        }
    }

    /// Drops a token's entries, and refuses the token for [`REFUSED_FOR`] from `now` on.
    pub(super) fn refuse(&self, digest: TokenDigest, partition: &Arc<Partition>, now: Moment) {
        if let Owner::SessionToken { accepted, refused_until } = &partition.owner {
            refused_until.store((now + REFUSED_FOR).as_nanos(), Ordering::Release);
            partition.drop_entries();
            if accepted.swap(false, Ordering::AcqRel) {
                self.unproven.insert(digest, Arc::clone(partition));
                self.accepted.invalidate(&digest);
            }
        }
    }
}

fn bounded<V: Clone + Send + Sync + 'static>(
    capacity: u64,
    kept_for: Duration,
) -> Cache<TokenDigest, V, foldhash::fast::RandomState> {
    Cache::builder()
        .max_capacity(capacity)
        .time_to_live(kept_for)
        .build_with_hasher(foldhash::fast::RandomState::default())
}
