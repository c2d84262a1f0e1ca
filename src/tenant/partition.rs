//! The unit of isolation: a linked account or a session token, with its budget and its share of the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::list_size::ListSize;
use crate::clock::Moment;
use crate::config;
use crate::limit::{ClientBudget, FlowId, Policy, Spending};
use crate::window_counter::LastMinuteCounter;

/// A linked account or a session token of one tenant. No two partitions share cached responses. The fields that a cache hit
/// reads come first and are adjacent.
#[derive(Debug)]
#[repr(C)]
pub struct Partition {
    id: AtomicU64,
    /// When a caller was last identified as its owner, in nanoseconds on the clock.
    last_seen: AtomicU64,
    requests: LastMinuteCounter,
    /// Budget for requests to Postern, replaced when the configured rate changes.
    budget: ArcSwap<ClientBudget>,
    pub(super) owner: Owner,
    /// Length of the linked account's list of executions.
    pub list_size: ListSize,
    flow_id: FlowId,
    /// Locked while a request of an unproven session token is at the upstream, so that there is one at a time.
    probation: tokio::sync::Mutex<()>,
    /// The name in the fleet, the same on all replicas; `None` without a fleet, and for a session token.
    fleet_name: Option<Box<str>>,
    /// The latest generation in the fleet that was seen.
    fleet_generation: AtomicU64,
}

/// The linked account or session token that a partition belongs to.
#[derive(Debug)]
pub(super) enum Owner {
    LinkedAccount(Arc<str>),
    /// The moments until which the upstream's last verdicts hold, in nanoseconds on the clock, and whether it accepted the token
    /// within the last day.
    SessionToken {
        accepted_until: AtomicU64,
        refused_until: AtomicU64,
        was_accepted: AtomicBool,
    },
}

/// The identity of a partition's owner, which stays the same when the partition is evicted and created anew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Witness {
    /// A linked account, by its id.
    LinkedAccount(Arc<str>),
    /// A session token, whose linked account only Refold knows.
    SessionToken(FlowId),
}

impl Owner {
    /// Creates a session token on which the upstream has given no verdict lately.
    pub(super) fn unproven_token(was_accepted: bool) -> Self {
        Self::SessionToken {
            accepted_until: AtomicU64::new(0),
            refused_until: AtomicU64::new(0),
            was_accepted: AtomicBool::new(was_accepted),
        }
    }
}

/// The state of the credential behind a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// Authenticated by Postern, or a session token that the upstream has accepted a short time ago.
    Accepted,
    /// A session token that the upstream has neither accepted nor refused lately.
    Unproven,
    /// A session token that the upstream has refused a moment ago.
    Refused,
}

/// Permits a request of an unproven session token to go to the upstream; only one permit per token exists at a time.
#[derive(Debug)]
pub struct ProbationPermit<'a> {
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

/// Identifies a partition until its entries are dropped. Unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionId(u64);

/// Part of the cache key that all linked accounts of a tenant share, or all its session tokens. Changing it drops the entries
/// of all of them at once.
#[derive(Debug)]
pub(super) struct Epoch(AtomicU64);

impl Epoch {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(unique_number()))
    }

    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Begins a new epoch, so that no entry of the old one is found again.
    pub(super) fn advance(&self) {
        self.0.store(unique_number(), Ordering::Release);
    }
}

/// Returns a number that was not returned before and is not returned again.
fn unique_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the flow of the linked account or session token whose SHA-256 digest this is. It is the same on all replicas of a fleet.
pub(super) fn flow_of(digest: &[u8; 32]) -> FlowId {
    let (first, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    FlowId::from_be_bytes(*first)
}

impl Partition {
    pub(super) fn new(owner: Owner, flow_id: FlowId, budget: ClientBudget) -> Self {
        Self {
            id: AtomicU64::new(unique_number()),
            flow_id,
            probation: tokio::sync::Mutex::default(),
            fleet_name: None,
            fleet_generation: AtomicU64::new(0),
            owner,
            last_seen: AtomicU64::new(0),
            requests: LastMinuteCounter::default(),
            list_size: ListSize::default(),
            budget: ArcSwap::from_pointee(budget),
        }
    }

    /// Gives the partition its name in the fleet.
    pub(super) fn named(mut self, fleet_name: Option<Box<str>>) -> Self {
        self.fleet_name = fleet_name;
        self
    }

    /// The name in the fleet, the same on all replicas; `None` without a fleet, and for a session token.
    #[must_use]
    pub fn fleet_name(&self) -> Option<&str> {
        self.fleet_name.as_deref()
    }

    /// Notes a generation in the fleet, and returns the latest that was seen.
    pub(super) fn saw_generation(&self, generation: u64) -> u64 {
        self.fleet_generation.fetch_max(generation, Ordering::AcqRel).max(generation)
    }

    /// Takes one request off the budget, if it has one left. A changed rate begins with a full budget, or in a fleet with what
    /// the server has of it.
    pub(super) fn spend(&self, rate: config::Rate, now: Moment) -> Spending {
        let budget = self.budget.load();
        if budget.rate() == rate {
            return budget.spend(now);
        }
        let budget = Arc::new(budget.with_rate(rate));
        self.budget.store(Arc::clone(&budget));
        budget.spend(now)
    }

    /// The policy that its budget is for.
    #[must_use]
    pub fn policy(&self) -> Policy {
        match &self.owner {
            Owner::LinkedAccount(_) => Policy::Account,
            Owner::SessionToken { .. } => Policy::Token,
        }
    }

    /// The present id, which changes when the entries are dropped.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        PartitionId(self.id.load(Ordering::Acquire))
    }

    /// The flow of this partition's requests in the queue for the upstream.
    #[must_use]
    pub fn flow_id(&self) -> FlowId {
        self.flow_id
    }

    /// Drops all entries of this partition, in O(1), by a new id: no later look-up finds an entry under the previous id,
    /// even if a fetch in flight stores it afterwards.
    pub fn drop_entries(&self) {
        self.id.store(unique_number(), Ordering::Release);
    }

    /// Waits until no other request of this unproven session token is at the upstream.
    pub async fn acquire_probation(&self) -> ProbationPermit<'_> {
        ProbationPermit { _guard: self.probation.lock().await }
    }

    /// Records that the partition is in use. Part of the hit path.
    pub(super) fn touch(&self, now: Moment) {
        self.last_seen.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Counts a request. Part of the hit path.
    pub fn count_request(&self, now: Moment) {
        self.requests.add(now);
    }

    /// The approximate number of requests in the last minute.
    pub(super) fn requests(&self, now: Moment) -> u64 {
        self.requests.get(now)
    }

    /// Time of the last request.
    pub(super) fn last_seen(&self) -> Moment {
        Moment::from_nanos(self.last_seen.load(Ordering::Relaxed))
    }

    /// The id of the linked account; `None` for a session token, whose linked account only Refold knows.
    #[must_use]
    pub fn linked_account_id(&self) -> Option<&str> {
        match &self.owner {
            Owner::LinkedAccount(id) => Some(id),
            Owner::SessionToken { .. } => None,
        }
    }

    /// The owner, as one that a comparison of derived responses with fetched ones comes from.
    #[must_use]
    pub fn witness(&self) -> Witness {
        match &self.owner {
            Owner::LinkedAccount(id) => Witness::LinkedAccount(Arc::clone(id)),
            Owner::SessionToken { .. } => Witness::SessionToken(self.flow_id),
        }
    }

    /// The state of the credential: a session token's, or `Accepted` for a linked account.
    #[must_use]
    pub fn token_status(&self, now: Moment) -> TokenStatus {
        match &self.owner {
            Owner::LinkedAccount(_) => TokenStatus::Accepted,
            Owner::SessionToken { refused_until, .. } if now.as_nanos() < refused_until.load(Ordering::Acquire) => {
                TokenStatus::Refused
            }
            Owner::SessionToken { accepted_until, .. } if now.as_nanos() < accepted_until.load(Ordering::Acquire) => {
                TokenStatus::Accepted
            }
            Owner::SessionToken { .. } => TokenStatus::Unproven,
        }
    }

    /// Returns true for a session token that the upstream accepted within the last day and has not refused since, and for a
    /// linked account.
    #[must_use]
    pub fn was_accepted(&self) -> bool {
        match &self.owner {
            Owner::LinkedAccount(_) => true,
            Owner::SessionToken { was_accepted, .. } => was_accepted.load(Ordering::Acquire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_entries_gives_a_partition_an_unused_id() {
        let rate = crate::config::Rate { per_second: std::num::NonZeroU32::MIN, burst: std::num::NonZeroU32::MIN };
        let partition = |id: &str| Partition::new(Owner::LinkedAccount(id.into()), 0, ClientBudget::new(rate));
        let (one, other) = (partition("a"), partition("a"));
        let mut seen = vec![one.id(), other.id()];
        one.drop_entries();
        other.drop_entries();
        seen.extend([one.id(), other.id()]);
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
    }
}
