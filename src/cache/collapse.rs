//! One fetch per question and org key, however many callers wait for it (request collapsing, RFC 9211 calls them `collapsed`).
//!
//! The first caller becomes the leader and gets a [`Leader`]; it hands it to a task of its own, so the fetch goes on when
//! the leader or any other caller leaves. As long as the upstream was not asked yet, a fetch without callers is of no use to
//! anybody: [`Demand`] tells when the last has left, and when somebody joins. Only misses come here.

use std::collections::HashMap;
use std::future::pending;
use std::hash::BuildHasher;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::entry::Entry;
use super::key::CacheKey;
use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::tenant::OrgKey;

type Outcome = Result<Arc<Entry>, ClientError>;
type Shard<N> = HashMap<CollapseKey, (Arc<Shared>, N), foldhash::fast::RandomState>;

const SHARDS: usize = 16;

/// What callers have in common who share a fetch: what they ask, and whether they have shown an org key of their own, since
/// how it ends says something of that key too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CollapseKey {
    key: CacheKey,
    shown: Option<OrgKey>,
}

impl CollapseKey {
    /// That of a caller who asks for what is kept under a key.
    #[must_use]
    pub fn new(caller: &Caller, key: &CacheKey) -> Self {
        Self { key: key.clone(), shown: caller.shown_org_key() }
    }
}

/// The fetches under way, each with a note of the leader's for those who wait.
#[derive(Debug)]
pub struct Group<N> {
    shards: [Mutex<Shard<N>>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

/// What a fetch and those who wait for it share.
#[derive(Debug)]
struct Shared {
    outcome: watch::Sender<Option<Outcome>>,
    waiting: Waiting,
}

/// How many wait for a fetch.
#[derive(Debug, Default)]
struct Waiting {
    number: AtomicUsize,
    /// Somebody waits, or nobody does any longer.
    turned: Notify,
}

impl Waiting {
    fn one_more(&self) {
        if self.number.fetch_add(1, Ordering::AcqRel) == 0 {
            self.turned.notify_waiters();
        }
    }

    fn one_less(&self) {
        if self.number.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.turned.notify_waiters();
        }
    }

    fn is_nobody(&self) -> bool {
        self.number.load(Ordering::Acquire) == 0
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self { outcome: watch::Sender::new(None), waiting: Waiting::default() }
    }
}

/// The part of a caller in a fetch.
#[derive(Debug)]
pub enum Joined<N> {
    /// It has to fetch.
    Leads(Leader<N>, Follower),
    /// Somebody fetches already, and has left this note.
    Waits(Follower, N),
}

/// The right and the duty to fetch a key. However it ends, those who wait are told.
#[derive(Debug)]
pub struct Leader<N> {
    group: Arc<Group<N>>,
    key: CollapseKey,
    shared: Arc<Shared>,
}

/// Waits for the end of a fetch.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    listens: bool,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// Whether somebody waits for a fetch.
#[derive(Debug)]
pub struct Demand(Option<Arc<Shared>>);

impl<N> Default for Group<N> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: foldhash::fast::RandomState::default() }
    }
}

impl<N> Group<N> {
    /// Joins the fetch of a key, or starts it. Whoever only listens does not count as somebody who waits.
    #[must_use]
    pub fn join(self: &Arc<Self>, key: CollapseKey, listens: bool, note: N) -> Joined<N>
    where
        N: Clone,
    {
        let mut shard = self.shard(&key);
        if let Some((under_way, note)) = shard.get(&key) {
            return Joined::Waits(Follower::of(under_way, listens), note.clone());
        }
        let begun = Arc::new(Shared::default());
        shard.insert(key.clone(), (Arc::clone(&begun), note));
        self.lead(key, begun, listens)
    }

    /// Starts a fetch that nobody else can join.
    #[must_use]
    pub fn alone(self: &Arc<Self>, key: CollapseKey, listens: bool) -> Joined<N> {
        self.lead(key, Arc::default(), listens)
    }

    fn lead(self: &Arc<Self>, key: CollapseKey, shared: Arc<Shared>, listens: bool) -> Joined<N> {
        let waiter = Follower::of(&shared, listens);
        Joined::Leads(Leader { group: Arc::clone(self), key, shared }, waiter)
    }

    fn shard(&self, key: &CollapseKey) -> MutexGuard<'_, Shard<N>> {
        let index = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % SHARDS;
        // Insert and remove leave the map sound even if a panic came in between.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N> Leader<N> {
    /// Whether somebody waits.
    #[must_use]
    pub fn interest(&self) -> Demand {
        Demand(Some(Arc::clone(&self.shared)))
    }

    /// Ends the fetch. Whatever the outcome is, put it into the store first: who comes later looks there.
    pub fn land(self, outcome: Outcome) {
        self.shared.outcome.send_replace(Some(outcome));
    }

    /// Gives the fetch up if nobody waits for it; gives it back if somebody has joined in the last moment.
    #[must_use]
    pub fn give_up(self) -> Option<Self> {
        let mut shard = self.group.shard(&self.key);
        // Who joins does so under the same lock.
        if !self.shared.waiting.is_nobody() {
            drop(shard);
            return Some(self);
        }
        self.leave(&mut shard);
        None
    }

    /// Another flight of the same key may have begun since this one was given up.
    fn leave(&self, shard: &mut Shard<N>) {
        if shard.get(&self.key).is_some_and(|(shared, _)| Arc::ptr_eq(shared, &self.shared)) {
            shard.remove(&self.key);
        }
    }
}

impl<N> Drop for Leader<N> {
    fn drop(&mut self) {
        self.leave(&mut self.group.shard(&self.key));
        // The task that fetched has died.
        self.shared.outcome.send_if_modified(|outcome| {
            let lost = outcome.is_none();
            if lost {
                *outcome = Some(abandoned());
            }
            lost
        });
    }
}

impl Follower {
    fn of(shared: &Arc<Shared>, listens: bool) -> Self {
        let mut waiter = Self { outcome: shared.outcome.subscribe(), shared: Arc::clone(shared), listens: true };
        if !listens {
            waiter.wait();
        }
        waiter
    }

    /// Counts as somebody who waits from now on.
    pub fn wait(&mut self) {
        if std::mem::take(&mut self.listens) {
            self.shared.waiting.one_more();
        }
    }

    /// Another follower of the same fetch, whose presence does not count as demand.
    #[must_use]
    pub fn listener(&self) -> Self {
        Self::of(&self.shared, true)
    }

    /// The end of the fetch. Can be given up and asked for again.
    ///
    /// # Errors
    /// What the fetch ended with; every waiter hears the same.
    pub async fn outcome(&mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(abandoned),
            Err(_) => abandoned(),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if !self.listens {
            self.shared.waiting.one_less();
        }
    }
}

impl Demand {
    /// That of somebody who does not share their fetch with anybody, and waits to its end.
    #[must_use]
    pub fn of_one() -> Self {
        Self(None)
    }

    /// Waits until nobody waits any longer.
    pub async fn lost(&self) {
        self.until(Waiting::is_nobody).await;
    }

    /// Waits until somebody waits.
    pub async fn gained(&self) {
        self.until(|waiting| !waiting.is_nobody()).await;
    }

    async fn until(&self, reached: impl Fn(&Waiting) -> bool) {
        let Some(Shared { waiting, .. }) = self.0.as_deref() else { return pending().await };
        loop {
            let mut turned = pin!(waiting.turned.notified());
            // What turns after the look is not missed.
            turned.as_mut().enable();
            if reached(waiting) {
                return;
            }
            turned.await;
        }
    }
}

fn abandoned() -> Outcome {
    let message = "the fetch from Refold was given up; try again";
    Err(ClientError::new(Reason::Overloaded, message).retry_after(std::time::Duration::from_secs(1)))
}
