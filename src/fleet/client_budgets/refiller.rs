//! Refills the leases of client budgets, on the fleet's thread.
//!
//! Leases that run low are refilled together every 50 ms; a request that waits is asked for at once. One call has up to 64
//! budgets. A request that has waited for too long is gone: its replica has decided without the server.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::budget::{LeasedBudget, Request};
use super::refill::{Pending, RefillCall};
use crate::clock::Moment;
use crate::fleet::phase::Phase;

/// Interval between two calls for leases that run low.
const TOP_UP_INTERVAL: Duration = Duration::from_millis(50);
/// Pause after a call without an answer.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Most budgets in one call.
const LARGEST_BATCH: usize = 64;
/// Most calls at the same time.
const MOST_CALLS: usize = 4;

/// Refills leases for as long as it is polled.
#[derive(Debug)]
pub(in crate::fleet) struct Refiller {
    requests: mpsc::Receiver<Request>,
    call: RefillCall,
    /// By the address of the budget.
    pending: HashMap<usize, Pending>,
    /// The calls under way; each returns the budgets that it could not serve.
    calls: JoinSet<Vec<Pending>>,
    next_top_up: Moment,
    next_try: Moment,
}

impl Refiller {
    pub(super) fn new(requests: mpsc::Receiver<Request>, call: RefillCall) -> Self {
        let start = Moment::default();
        let (pending, calls) = (HashMap::new(), JoinSet::new());
        Self { requests, call, pending, calls, next_top_up: start, next_try: start }
    }

    /// Serves the requests of the budgets.
    pub(in crate::fleet) async fn run(mut self) {
        let replica = Arc::clone(&self.call.replica);
        let clock = &replica.status.clock;
        loop {
            let wake = self.wake();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.accept(request),
                    None => return,
                },
                Some(unserved) = self.calls.join_next() => self.put_back(unserved.unwrap_or_default(), clock.now()),
                () = clock.sleep_until(wake.unwrap_or_default()), if wake.is_some() => {}
            }
            let now = clock.now();
            while let Ok(request) = self.requests.try_recv() {
                self.accept(request);
            }
            self.dispatch(now);
        }
    }

    fn accept(&mut self, request: Request) {
        match request {
            Request::TopUp(budget) => self.pending_of(budget).is_top_up = true,
            Request::Ask(budget, reply) => {
                self.call.replica.status.metrics.client_waits.inc();
                let tops_up = budget.begin_top_up();
                let pending = self.pending_of(budget);
                pending.is_top_up |= tops_up;
                pending.waiters.push_back(reply);
            }
        }
    }

    fn pending_of(&mut self, budget: Arc<LeasedBudget>) -> &mut Pending {
        let address = Arc::as_ptr(&budget).addr();
        let new = || Pending { budget, waiters: VecDeque::new(), is_top_up: false, owed: 0 };
        self.pending.entry(address).or_insert_with(new)
    }

    /// Keeps the requests that a call could not serve.
    fn put_back(&mut self, unserved: Vec<Pending>, now: Moment) {
        if unserved.is_empty() {
            return;
        }
        self.next_try = now + RETRY_INTERVAL;
        for Pending { budget, mut waiters, .. } in unserved {
            let pending = self.pending_of(budget);
            // They came before those that have come since.
            waiters.append(&mut pending.waiters);
            pending.waiters = waiters;
        }
    }

    fn is_alone(&self) -> bool {
        matches!(self.call.replica.status.phase(), Phase::Alone { .. })
    }

    /// Returns when something is due, if no request comes and no call ends before.
    fn wake(&self) -> Option<Moment> {
        if self.pending.is_empty() || self.calls.len() >= MOST_CALLS {
            return None;
        }
        let has_waiters = self.pending.values().any(|pending| !pending.waiters.is_empty());
        Some(if has_waiters { self.next_try } else { self.next_top_up })
    }

    /// Does what is due.
    fn dispatch(&mut self, now: Moment) {
        self.forget_the_gone();
        if self.is_alone() {
            self.decide_alone(now);
            self.next_try = now + RETRY_INTERVAL;
            return;
        }
        while self.calls.len() < MOST_CALLS {
            let batch = self.due(now);
            if batch.is_empty() {
                return;
            }
            self.next_top_up = now + TOP_UP_INTERVAL;
            self.calls.spawn(self.call.clone().run(batch));
        }
    }

    /// Takes out the budgets that the server is to be asked about now.
    fn due(&mut self, now: Moment) -> Vec<Pending> {
        let has_waiters = |pending: &Pending| !pending.waiters.is_empty();
        let is_urgent = now >= self.next_try && self.pending.values().any(has_waiters);
        if !is_urgent && now < self.next_top_up {
            return Vec::new();
        }
        let mut addresses: Vec<usize> = self.pending.keys().copied().collect();
        addresses.sort_by_key(|address| !self.pending.get(address).is_some_and(has_waiters));
        addresses.truncate(LARGEST_BATCH);
        addresses.iter().filter_map(|address| self.pending.remove(address)).collect()
    }

    /// Serves the requests that wait from the share of a replica that is alone.
    fn decide_alone(&mut self, now: Moment) {
        for pending in self.pending.values_mut() {
            let budget = Arc::clone(&pending.budget);
            if std::mem::take(&mut pending.is_top_up) {
                budget.end_top_up();
            }
            while let Some(waiter) = pending.waiters.pop_front() {
                let Some(decision) = budget.spend_alone(now) else {
                    // The server has just come back.
                    pending.waiters.push_front(waiter);
                    break;
                };
                // Fails if the caller is gone.
                let _ = waiter.send(decision);
            }
        }
        self.pending.retain(|_, pending| !pending.waiters.is_empty());
    }

    /// Removes the requests whose callers are gone, or which were decided without the server.
    fn forget_the_gone(&mut self) {
        for pending in self.pending.values_mut() {
            pending.waiters.retain(|waiter| !waiter.is_closed());
        }
        self.pending.retain(|_, pending| pending.is_top_up || !pending.waiters.is_empty());
    }
}
