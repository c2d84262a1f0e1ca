//! What Postern may ask of Refold: one GCRA quota per org key, with a bounded wait.
//!
//! A fetch reserves the next free slot and sleeps until it comes, so those who wait go in the order in which they came. A
//! fetch whose slot lies too far ahead, or that finds too many before it, is refused at once and told when to come back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::config::UpstreamRate;

/// The budget of one org key at the upstream.
#[derive(Debug)]
pub struct UpstreamBudget {
    clock: Clock,
    limits: UpstreamRate,
    /// Time between two slots at the sustained rate.
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// GCRA's theoretical arrival time of the next request.
    arrival: Moment,
    /// No fetch before this: the upstream said so.
    held_until: Moment,
    waiting: usize,
}

/// The budget is spent for longer than a fetch may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// When a slot will be free.
    pub retry_after: Duration,
}

impl UpstreamBudget {
    /// A full budget.
    #[must_use]
    pub fn new(limits: UpstreamRate, clock: Clock) -> Self {
        let interval = Duration::from_secs(1) / limits.rate.per_second.get();
        Self { clock, limits, interval, state: Mutex::default() }
    }

    /// Takes one request off, waiting for it if need be.
    ///
    /// # Errors
    /// At once, if the wait would be longer than the configuration allows or if too many wait already.
    pub async fn acquire(&self) -> Result<(), Exhausted> {
        let now = self.clock.now();
        let slot = self.reserve(now)?;
        if slot <= now {
            return Ok(());
        }
        let _waiting = Waiting(self);
        self.clock.sleep_until(slot).await;
        // The upstream may have asked for a pause meanwhile.
        loop {
            let held = self.state().held_until;
            if held <= self.clock.now() {
                return Ok(());
            }
            self.clock.sleep_until(held).await;
        }
    }

    /// Stops new fetches for `pause`: the upstream answered 429.
    pub fn hold(&self, pause: Duration) {
        let until = self.clock.now() + pause;
        let mut state = self.state();
        state.held_until = state.held_until.max(until);
        // After the pause one request at a time: the burst is spent, or the upstream would not have refused.
        state.arrival = state.arrival.max(until + self.tolerance());
    }

    fn reserve(&self, now: Moment) -> Result<Moment, Exhausted> {
        let mut state = self.state();
        let arrival = state.arrival.max(now);
        let slot = (arrival - self.tolerance()).max(state.held_until).max(now);
        let wait = slot.since(now);
        let queue_full = wait > Duration::ZERO && state.waiting >= self.limits.max_queue;
        if wait > self.limits.max_wait || queue_full {
            return Err(Exhausted { retry_after: wait });
        }
        state.arrival = arrival + self.interval;
        state.waiting += usize::from(wait > Duration::ZERO);
        Ok(slot)
    }

    /// How far ahead of its time a request may come: what the burst allows but for one. Requests reach the upstream closer
    /// together than they left, and one slot apart is the leeway that keeps it from refusing them.
    fn tolerance(&self) -> Duration {
        self.interval * self.limits.rate.burst.get().saturating_sub(2)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock; were it otherwise, the numbers would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a waiter until it goes, also when it is cancelled.
struct Waiting<'a>(&'a UpstreamBudget);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::config::Rate;

    fn budget(max_wait: Duration, max_queue: usize) -> (Clock, Arc<UpstreamBudget>) {
        let number = |n| NonZeroU32::new(n).expect("not zero");
        let rate = Rate { per_second: number(20), burst: number(5) };
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        (clock.clone(), Arc::new(UpstreamBudget::new(UpstreamRate { rate, max_wait, max_queue }, clock)))
    }

    /// How many of those who have asked so far were let through, once all tasks have run as far as they can.
    async fn settle() {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_wait_go_at_the_published_rate_after_the_burst() {
        let (clock, budget) = budget(Duration::from_secs(10), 100);
        let granted = Arc::new(Mutex::new(0));
        for _ in 0..30 {
            let (budget, granted) = (Arc::clone(&budget), Arc::clone(&granted));
            tokio::spawn(async move {
                budget.acquire().await.expect("the wait is short enough");
                *granted.lock().expect("no panic") += 1;
            });
        }
        settle().await;
        let count = || *granted.lock().expect("no panic");
        assert_eq!(count(), 4);
        clock.advance(Duration::from_millis(500));
        settle().await;
        assert_eq!(count(), 14);
        clock.advance(Duration::from_millis(800));
        settle().await;
        assert_eq!(count(), 30);
    }

    #[tokio::test]
    async fn a_wait_that_is_too_long_is_refused_at_once_with_the_time_of_the_next_slot() {
        let (_clock, budget) = budget(Duration::ZERO, 100);
        for _ in 0..4 {
            assert_eq!(budget.acquire().await, Ok(()));
        }
        assert_eq!(budget.acquire().await, Err(Exhausted { retry_after: Duration::from_millis(50) }));
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_waiter_that_leaves_makes_room() {
        let (clock, budget) = budget(Duration::from_secs(10), 1);
        for _ in 0..4 {
            assert_eq!(budget.acquire().await, Ok(()));
        }
        let waiter = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.acquire().await }
        });
        settle().await;
        assert!(budget.acquire().await.is_err());
        waiter.abort();
        settle().await;
        clock.advance(Duration::from_secs(1));
        assert_eq!(budget.acquire().await, Ok(()));
    }

    #[tokio::test]
    async fn an_upstream_429_holds_also_those_who_wait_already() {
        let (clock, budget) = budget(Duration::from_secs(10), 10);
        for _ in 0..4 {
            assert_eq!(budget.acquire().await, Ok(()));
        }
        let waiter = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.acquire().await }
        });
        settle().await;
        budget.hold(Duration::from_secs(3));
        clock.advance(Duration::from_millis(2999));
        settle().await;
        assert!(!waiter.is_finished());
        clock.advance(Duration::from_millis(1));
        settle().await;
        assert!(waiter.is_finished());
    }
}
