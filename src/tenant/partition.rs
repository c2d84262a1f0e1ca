//! Whose answers belong together: a linked account's, or a session token's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::list_size::ListSize;
use crate::clock::Moment;
use crate::config;
use crate::limit::{BudgetUse, ClientBudget, FlowId};
use crate::window_counter::LastMinuteCounter;

/// A linked account or a session token of one tenant: whose answers are nobody else's. What a hit needs of it stands
/// together.
#[derive(Debug)]
#[repr(C)]
pub struct Partition {
    id: AtomicU64,
    /// When somebody last asked for it, in nanoseconds on the clock.
    last_seen: AtomicU64,
    /// How often.
    requests: LastMinuteCounter,
    /// What it may ask. Another one when the configuration grants something else.
    budget: ArcSwap<ClientBudget>,
    pub(super) holder: Holder,
    /// How long its list of executions is.
    pub list_size: ListSize,
    line: FlowId,
    /// Held while the upstream is asked for the first time.
    verdict: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) enum Holder {
    LinkedAccount(Arc<str>),
    SessionToken { accepted: AtomicBool, refused_until: AtomicU64 },
}

impl Holder {
    /// A session token that the upstream has not seen yet.
    pub(super) fn unproven_token() -> Self {
        Self::SessionToken { accepted: AtomicBool::new(false), refused_until: AtomicU64::new(0) }
    }
}

/// The one request of an unproven token that is on its way to the upstream.
#[derive(Debug)]
pub struct OnProbation<'a> {
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

/// Names a partition between two drops of its entries. No other partition has, had or will have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionId(u64);

/// The time between two drops of everything that a tenant's linked accounts, or its session tokens, have in the cache. No
/// other has, had or will have the same name.
#[derive(Debug)]
pub(super) struct Epoch(AtomicU64);

impl Epoch {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(unused()))
    }

    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.0.store(unused(), Ordering::Release);
    }
}

/// A number that names nothing yet, and will name nothing else.
fn unused() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Partition {
    pub(super) fn new(holder: Holder, rate: config::Rate) -> Self {
        Self {
            id: AtomicU64::new(unused()),
            // Ids are never used again, so neither is the line's name.
            line: unused(),
            verdict: tokio::sync::Mutex::default(),
            holder,
            last_seen: AtomicU64::new(0),
            requests: LastMinuteCounter::default(),
            list_size: ListSize::default(),
            budget: ArcSwap::from_pointee(ClientBudget::new(rate)),
        }
    }

    /// Takes one request off its budget, if it is there. A budget of another rate is a new one.
    pub(super) fn spend(&self, rate: config::Rate, now: Moment) -> BudgetUse {
        let budget = self.budget.load();
        if budget.rate() == rate {
            return budget.spend(now);
        }
        let budget = Arc::new(ClientBudget::new(rate));
        self.budget.store(Arc::clone(&budget));
        budget.spend(now)
    }

    /// Its present id.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        PartitionId(self.id.load(Ordering::Acquire))
    }

    /// Its line at the upstream budget: another one for each linked account and session token.
    #[must_use]
    pub fn line(&self) -> FlowId {
        self.line
    }

    /// Drops everything cached for it, in O(1): what was stored under the id until now, or will be by a fetch that is
    /// already under way, is never looked at again.
    pub fn drop_entries(&self) {
        self.id.store(unused(), Ordering::Release);
    }

    /// Waits until no other request of an unproven token is on its way to the upstream.
    pub async fn go_first(&self) -> OnProbation<'_> {
        OnProbation { _turn: self.verdict.lock().await }
    }

    /// Somebody asks for it.
    pub(super) fn seen(&self, now: Moment) {
        self.last_seen.store(now.as_nanos(), Ordering::Relaxed);
        self.requests.add(now);
    }

    /// About how often somebody has asked for it in the last minute.
    pub(super) fn requests(&self, now: Moment) -> u64 {
        self.requests.get(now)
    }

    /// When somebody last asked for it.
    pub(super) fn last_seen(&self) -> Moment {
        Moment::from_nanos(self.last_seen.load(Ordering::Relaxed))
    }

    /// The linked account, unless this is a session token, which does not show it.
    #[must_use]
    pub fn linked_account_id(&self) -> Option<&str> {
        match &self.holder {
            Holder::LinkedAccount(id) => Some(id),
            Holder::SessionToken { .. } => None,
        }
    }

    /// What is known of who holds it.
    #[must_use]
    pub fn standing(&self, now: Moment) -> TokenStatus {
        match &self.holder {
            Holder::LinkedAccount(_) => TokenStatus::Known,
            Holder::SessionToken { refused_until, .. } if now.as_nanos() < refused_until.load(Ordering::Acquire) => {
                TokenStatus::Refused
            }
            Holder::SessionToken { accepted, .. } if accepted.load(Ordering::Acquire) => TokenStatus::Known,
            Holder::SessionToken { .. } => TokenStatus::Unproven,
        }
    }
}

/// Whether the holder of a partition is known to be who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStatus {
    /// Verified here, or accepted by the upstream a short time ago.
    Known,
    /// A session token that the upstream has not seen yet.
    Unproven,
    /// A session token that the upstream refused a moment ago.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_gets_an_id_that_nobody_had_when_its_entries_are_dropped() {
        let rate = crate::config::Rate { per_second: std::num::NonZeroU32::MIN, burst: std::num::NonZeroU32::MIN };
        let partition = |id: &str| Partition::new(Holder::LinkedAccount(id.into()), rate);
        let (one, other) = (partition("a"), partition("a"));
        let mut seen = vec![one.id(), other.id()];
        one.drop_entries();
        other.drop_entries();
        seen.extend([one.id(), other.id()]);
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
    }
}
