//! Request collapsing: concurrent requests for one cache key share one fetch (`collapsed` in RFC 9211). Only misses and
//! renewals come here.
//!
//! The first request becomes the leader. It hands its [`Leader`] to a task of its own, so the fetch goes on when its
//! request, or any other, is cancelled. A fetch that still waits for its upstream permit is of no use once no request waits
//! for it: [`Demand`] reports when the last waiting follower has left, and when one joins.

use std::collections::HashMap;
use std::future::pending;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::Arc;

use super::entry::Entry;
use super::key::CacheKey;
use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, Notify, PoisonError, watch};
use crate::tenant::OrgKey;

type FetchResult = Result<Arc<Entry>, ClientError>;
type Shard<C> = HashMap<CollapseKey, SharedFetch<C>, foldhash::fast::RandomState>;

const SHARDS: usize = 16;

/// Identifies a shared fetch by the cache key and, if the caller presented an org key itself, that org key.
///
/// The collapse key contains the org key because the upstream's response also says whether that key is valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CollapseKey {
    cache_key: CacheKey,
    presented_org_key: Option<OrgKey>,
}

impl CollapseKey {
    /// The collapse key of a caller's request for a cache key.
    #[must_use]
    pub fn new(caller: &Caller, cache_key: &CacheKey) -> Self {
        Self { cache_key: cache_key.clone(), presented_org_key: caller.own_org_key() }
    }
}

/// All fetches in progress, by collapse key. Each has a context that its leader gives to the followers, such as a trace context.
#[derive(Debug)]
pub struct Group<C> {
    shards: [Mutex<Shard<C>>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug)]
struct SharedFetch<C> {
    state: Arc<FetchState>,
    leader_context: C,
}

/// The state that the leader and the followers of a fetch share.
#[derive(Debug)]
struct FetchState {
    result: watch::Sender<Option<FetchResult>>,
    waiting: WaitingFollowers,
    /// True once the fetch uses the answer of another one, which may have begun before.
    depends: AtomicBool,
}

/// The number of followers that wait for a fetch; listening ones do not count.
#[derive(Debug, Default)]
struct WaitingFollowers {
    count: AtomicUsize,
    /// Notified when the count changes to or from zero.
    changed: Notify,
}

impl WaitingFollowers {
    fn add(&self) {
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changed.notify_waiters();
        }
    }

    fn remove(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_waiters();
        }
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

impl Default for FetchState {
    fn default() -> Self {
        Self { result: watch::Sender::new(None), waiting: WaitingFollowers::default(), depends: AtomicBool::new(false) }
    }
}

/// The role of a request in a fetch.
#[derive(Debug)]
pub enum Role<C> {
    /// The request starts the fetch.
    Leads {
        /// To be handed to the task that fetches.
        leader: Leader<C>,
        /// Receives the result.
        follower: Follower,
    },
    /// Another request's fetch is in progress.
    Follows {
        /// Receives the result.
        follower: Follower,
        /// The context that the leader joined with.
        leader_context: C,
    },
}

/// Decides if a follower counts as demand for the fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Participation {
    /// A request waits for the result.
    Waits,
    /// No request waits for the result, as with a renewal in the background.
    Listens,
}

/// The right and the duty to fetch a key. If it is dropped without a result, the followers receive an error.
#[derive(Debug)]
pub struct Leader<C> {
    group: Arc<Group<C>>,
    key: CollapseKey,
    state: Arc<FetchState>,
}

/// Receives the result of a fetch.
#[derive(Debug)]
pub struct Follower {
    state: Arc<FetchState>,
    participation: Participation,
    result: watch::Receiver<Option<FetchResult>>,
}

/// Reports whether a request waits for a fetch.
#[derive(Debug)]
pub struct Demand(Option<Arc<FetchState>>);

impl<C> Default for Group<C> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: foldhash::fast::RandomState::default() }
    }
}

impl<C> Group<C> {
    /// Joins the fetch of a key, or starts it with `leader_context`, which later followers receive. `may_follow` decides about the
    /// fetch in progress by its leader's context, and by whether it depends on another fetch; one that it rejects goes on by itself.
    #[must_use]
    pub fn join(
        self: &Arc<Self>,
        key: CollapseKey,
        participation: Participation,
        leader_context: C,
        may_follow: impl FnOnce(&C, bool) -> bool,
    ) -> Role<C>
    where
        C: Clone,
    {
        let mut shard = self.shard(&key);
        let present = shard.get(&key);
        let present = present.filter(|one| may_follow(&one.leader_context, one.state.depends.load(Ordering::Acquire)));
        if let Some(SharedFetch { state, leader_context }) = present {
            let follower = Follower::new(state, participation);
            return Role::Follows { follower, leader_context: leader_context.clone() };
        }
        let state = Arc::new(FetchState::default());
        shard.insert(key.clone(), SharedFetch { state: Arc::clone(&state), leader_context });
        self.lead(key, state, participation)
    }

    /// Starts a fetch that no other request can join.
    #[must_use]
    pub fn lead_unshared(self: &Arc<Self>, key: CollapseKey, participation: Participation) -> Role<C> {
        self.lead(key, Arc::default(), participation)
    }

    fn lead(self: &Arc<Self>, key: CollapseKey, state: Arc<FetchState>, participation: Participation) -> Role<C> {
        let follower = Follower::new(&state, participation);
        Role::Leads { leader: Leader { group: Arc::clone(self), key, state }, follower }
    }

    fn shard(&self, key: &CollapseKey) -> MutexGuard<'_, Shard<C>> {
        let index = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % SHARDS;
        // Insert and remove leave the map valid even if a panic poisoned the lock.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Leader<C> {
    /// The demand for this fetch.
    #[must_use]
    pub fn demand(&self) -> Demand {
        Demand(Some(Arc::clone(&self.state)))
    }

    /// Ends the fetch and gives its result to the followers. Update the store first: later requests look there.
    pub fn complete(self, result: FetchResult) {
        self.state.result.send_replace(Some(result));
    }

    /// Cancels the fetch, unless a request waits for it.
    ///
    /// # Errors
    /// The leader itself, if a request has begun to wait in the meantime: the fetch has to go on.
    pub fn cancel_without_demand(self) -> Result<(), Self> {
        // Followers join under this lock too.
        let mut shard = self.group.shard(&self.key);
        if !self.state.waiting.is_empty() {
            drop(shard);
            return Err(self);
        }
        self.remove_from(&mut shard);
        Ok(())
    }

    fn remove_from(&self, shard: &mut Shard<C>) {
        // After a cancelled fetch another one of the same key can be in its place.
        if shard.get(&self.key).is_some_and(|fetch| Arc::ptr_eq(&fetch.state, &self.state)) {
            shard.remove(&self.key);
        }
    }
}

impl<C> Drop for Leader<C> {
    fn drop(&mut self) {
        self.remove_from(&mut self.group.shard(&self.key));
        // Without a result the fetch was cancelled, or its task has panicked.
        self.state.result.send_if_modified(|result| {
            let missing = result.is_none();
            if missing {
                *result = Some(cancelled());
            }
            missing
        });
    }
}

impl Follower {
    fn new(state: &Arc<FetchState>, participation: Participation) -> Self {
        if participation == Participation::Waits {
            state.waiting.add();
        }
        Self { result: state.result.subscribe(), state: Arc::clone(state), participation }
    }

    /// Turns a listening follower into a waiting one.
    pub fn start_waiting(&mut self) {
        if self.participation == Participation::Listens {
            self.participation = Participation::Waits;
            self.state.waiting.add();
        }
    }

    /// Turns a waiting follower into a listening one.
    pub fn stop_waiting(&mut self) {
        if self.participation == Participation::Waits {
            self.participation = Participation::Listens;
            self.state.waiting.remove();
        }
    }

    /// Another follower of the same fetch, which only listens.
    #[must_use]
    pub fn listener(&self) -> Self {
        Self::new(&self.state, Participation::Listens)
    }

    /// Waits for the result of the fetch. Cancel safe: a cancelled wait can be repeated.
    ///
    /// # Errors
    /// The error that the fetch ended with; every follower receives the same.
    pub async fn result(&mut self) -> FetchResult {
        match self.result.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(cancelled),
            Err(_) => cancelled(),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.participation == Participation::Waits {
            self.state.waiting.remove();
        }
    }
}

impl Demand {
    /// The demand of one request that waits to the end of a fetch of its own.
    #[must_use]
    pub fn constant() -> Self {
        Self(None)
    }

    /// Notes that the fetch uses the answer of another one.
    pub fn depends_on_another(&self) {
        if let Some(state) = &self.0 {
            state.depends.store(true, Ordering::Release);
        }
    }

    /// Waits until no request waits for the fetch.
    pub async fn lost(&self) {
        self.until(WaitingFollowers::is_empty).await;
    }

    /// Waits until a request waits for the fetch.
    pub async fn gained(&self) {
        self.until(|waiting| !waiting.is_empty()).await;
    }

    async fn until(&self, reached: impl Fn(&WaitingFollowers) -> bool) {
        let Some(FetchState { waiting, .. }) = self.0.as_deref() else { return pending().await };
        loop {
            let mut changed = pin!(waiting.changed.notified());
            // Registered before the count is read, so that a change in between is not missed.
            changed.as_mut().enable();
            if reached(waiting) {
                return;
            }
            changed.await;
        }
    }
}

fn cancelled() -> FetchResult {
    let message = "the fetch from Refold was given up; try again";
    Err(ClientError::new(Reason::Overloaded, message).retry_after(std::time::Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::{ForwardedParameters, PathId, Question};

    fn key() -> CollapseKey {
        let question = Question::Execution(PathId::parse("a").expect("a valid id"), ForwardedParameters::default());
        CollapseKey { cache_key: CacheKey::of_one_account(question), presented_org_key: None }
    }

    fn lead(group: &Arc<Group<u8>>, participation: Participation, context: u8) -> (Leader<u8>, Follower) {
        match group.join(key(), participation, context, |_, _| true) {
            Role::Leads { leader, follower } => (leader, follower),
            Role::Follows { .. } => panic!("a fetch is in progress"),
        }
    }

    fn follow(group: &Arc<Group<u8>>, participation: Participation) -> (Follower, u8) {
        match group.join(key(), participation, 0, |_, _| true) {
            Role::Follows { follower, leader_context } => (follower, leader_context),
            Role::Leads { .. } => panic!("no fetch is in progress"),
        }
    }

    #[tokio::test]
    async fn followers_receive_the_leaders_context_and_result() {
        let group = Arc::new(Group::default());
        let (leader, mut first) = lead(&group, Participation::Waits, 7);
        let (mut second, context) = follow(&group, Participation::Waits);
        assert_eq!(context, 7);
        leader.complete(Err(ClientError::new(Reason::UpstreamTimeout, "late")));
        for follower in [&mut first, &mut second] {
            assert!(follower.result().await.expect_err("it failed").is(Reason::UpstreamTimeout));
        }
        lead(&group, Participation::Waits, 8).0.complete(cancelled());
    }

    #[tokio::test]
    async fn a_fetch_that_a_request_may_not_follow_goes_on_beside_its_own() {
        let group = Arc::new(Group::default());
        let (first, mut waiting) = lead(&group, Participation::Waits, 7);
        first.demand().depends_on_another();
        let may_follow = |context: &u8, depends: bool| {
            assert_eq!((*context, depends), (7, true));
            false
        };
        let joined = group.join(key(), Participation::Waits, 8, may_follow);
        let Role::Leads { leader: second, .. } = joined else { panic!("it may not follow") };
        first.complete(cancelled());
        waiting.result().await.expect_err("it failed");
        let (_, context) = follow(&group, Participation::Waits);
        assert_eq!(context, 8, "the end of the first leaves the second in its place");
        drop(second);
        lead(&group, Participation::Waits, 9).0.complete(cancelled());
    }

    #[tokio::test]
    async fn only_a_waiting_follower_keeps_a_fetch_from_being_cancelled() {
        let group = Arc::new(Group::default());
        let (leader, follower) = lead(&group, Participation::Listens, 7);
        let (waiting, _) = follow(&group, Participation::Waits);
        let leader = leader.cancel_without_demand().expect_err("a follower waits");
        drop(waiting);
        let mut listener = follower.listener();
        leader.cancel_without_demand().expect("no follower waits");
        assert!(listener.result().await.is_err());
    }

    #[tokio::test]
    async fn demand_is_gained_when_a_listener_starts_to_wait() {
        let group = Arc::new(Group::default());
        let (leader, mut follower) = lead(&group, Participation::Listens, 7);
        let demand = leader.demand();
        demand.lost().await;
        follower.start_waiting();
        demand.gained().await;
        drop(follower);
        demand.lost().await;
    }
}
