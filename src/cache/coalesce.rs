//! One fetch per key, however many callers wait for it (request collapsing, RFC 9211 calls them `collapsed`).
//!
//! The first caller becomes the leader and gets a [`Flight`]; it hands it to a task of its own, so the fetch goes on when
//! the leader or any other caller leaves. Only misses come here.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::entry::Entry;
use super::key::CacheKey;
use crate::error::{ClientError, Reason};

type Outcome = Result<Arc<Entry>, ClientError>;
type Shard<N> = HashMap<CacheKey, (watch::Receiver<Option<Outcome>>, N), foldhash::fast::RandomState>;

const SHARDS: usize = 16;

/// The fetches under way, each with a note of the leader's for those who wait.
#[derive(Debug)]
pub struct Flights<N> {
    shards: [Mutex<Shard<N>>; SHARDS],
    hasher: foldhash::fast::RandomState,
}

/// The part of a caller in a fetch.
#[derive(Debug)]
pub enum Joined<N> {
    /// It has to fetch.
    Leads(Flight<N>, Waiter),
    /// Somebody fetches already, and has left this note.
    Waits(Waiter, N),
}

/// The right and the duty to fetch a key. However it ends, those who wait are told.
#[derive(Debug)]
pub struct Flight<N> {
    flights: Arc<Flights<N>>,
    key: CacheKey,
    outcome: watch::Sender<Option<Outcome>>,
}

/// Waits for the end of a fetch.
#[derive(Debug)]
pub struct Waiter(watch::Receiver<Option<Outcome>>);

impl<N> Default for Flights<N> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: foldhash::fast::RandomState::default() }
    }
}

impl<N> Flights<N> {
    /// Joins the fetch of a key, or starts it.
    #[must_use]
    pub fn join(self: &Arc<Self>, key: &CacheKey, note: N) -> Joined<N>
    where
        N: Clone,
    {
        let mut shard = self.shard(key);
        if let Some((outcome, note)) = shard.get(key) {
            return Joined::Waits(Waiter(outcome.clone()), note.clone());
        }
        let (sender, receiver) = watch::channel(None);
        shard.insert(key.clone(), (receiver.clone(), note));
        let flight = Flight { flights: Arc::clone(self), key: key.clone(), outcome: sender };
        Joined::Leads(flight, Waiter(receiver))
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard<N>> {
        let index = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % SHARDS;
        // Insert and remove leave the map sound even if a panic came in between.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N> Flight<N> {
    /// Ends the fetch. Whatever the outcome is, put it into the store first: who comes later looks there.
    pub fn land(self, outcome: Outcome) {
        // Nobody may be left to hear it.
        let _ = self.outcome.send(Some(outcome));
    }
}

impl<N> Drop for Flight<N> {
    fn drop(&mut self) {
        self.flights.shard(&self.key).remove(&self.key);
    }
}

impl Waiter {
    /// The end of the fetch.
    ///
    /// # Errors
    /// What the fetch ended with; every waiter hears the same.
    pub async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(abandoned),
            // The leader's task has died.
            Err(_) => abandoned(),
        }
    }
}

fn abandoned() -> Outcome {
    let message = "the fetch from Refold was given up; try again";
    Err(ClientError::new(Reason::Overloaded, message).retry_after(std::time::Duration::from_secs(1)))
}
