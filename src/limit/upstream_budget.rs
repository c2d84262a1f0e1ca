//! What Postern may ask of Refold: one GCRA quota per org key, given out fairly.
//!
//! Fetches that have to wait stand in one line per linked account, and the lines are served in turn (round-robin, see
//! `lines`), so an account that asks for much waits for itself. A wait is bounded in time, the number of waiters by
//! `max_queue`; where that is reached, whoever comes takes the place of the last in the longest line. An upstream 429 holds
//! all lines for as long as it says; after it the pace is halved and comes back step by step (additive increase,
//! multiplicative decrease).

mod lines;
mod status;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use self::lines::{Lines, Waiter};
pub use self::status::BudgetStatus;
use crate::clock::{Clock, Moment};
use crate::config::UpstreamLimits;
use crate::tally::{Ring, SECOND, unit};

/// After a 429 the pace is a share of what is configured, of 1,000. It is never less than this.
const LEAST_PACE: u32 = 100;
const FULL_PACE: u32 = 1000;
/// What each granted request gives back of the pace.
const PACE_STEP: u32 = 10;

/// Names a line of waiters.
pub type Line = u64;

/// Whether somebody waits for what is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A caller waits: served before all that nobody waits for.
    Foreground,
    /// An answer is renewed behind its readers' backs.
    Background,
}

/// How long a background fetch may wait for its turn: nobody waits for it, and what it renews is given meanwhile.
const BACKGROUND_WAIT: Duration = Duration::from_mins(1);

/// The budget of one org key at the upstream. Cheap to clone; clones are the same one.
#[derive(Clone, Debug)]
pub struct UpstreamBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    limits: ArcSwap<UpstreamLimits>,
    state: Mutex<State>,
    /// Slots that were taken, by the second.
    used: Ring<64>,
}

#[derive(Debug)]
struct State {
    /// GCRA's theoretical arrival time of the next request.
    arrival: Moment,
    /// No fetch before this: the upstream said so.
    held_until: Moment,
    /// The present pace, of 1,000.
    pace: u32,
    lines: Lines,
    /// A task gives out slots as long as somebody waits.
    dispatching: bool,
}

/// Fetches that wait for a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Somebody waits for these.
    pub callers: usize,
    /// Nobody waits for these.
    pub renewals: usize,
}

/// The budget is spent for longer than a fetch may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

impl UpstreamBudget {
    /// A full budget.
    #[must_use]
    pub fn new(limits: UpstreamLimits, clock: Clock) -> Self {
        let state = State {
            arrival: Moment::default(),
            held_until: Moment::default(),
            pace: FULL_PACE,
            lines: Lines::default(),
            dispatching: false,
        };
        let limits = ArcSwap::from_pointee(limits);
        Self(Arc::new(Inner { clock, limits, state: Mutex::new(state), used: Ring::default() }))
    }

    /// Grants something else from now on, also to those who wait. What was spent stays spent.
    pub fn set_limits(&self, limits: UpstreamLimits) {
        self.0.limits.store(Arc::new(limits));
    }

    /// Takes one request off, waiting for it in the caller's line if need be.
    ///
    /// # Errors
    /// At once, if the turn would come later than the configuration lets anybody wait or if too many wait already; later, if
    /// the upstream has asked for a pause meanwhile and the time is over.
    ///
    /// `renews` is when the answer that is to be renewed was asked for, or now if there is none.
    pub async fn acquire(&self, line: Line, urgency: Urgency, renews: Moment) -> Result<(), Exhausted> {
        let inner = &self.0;
        let waiting = {
            let now = inner.clock.now();
            let mut state = inner.state();
            if state.lines.waiting() == 0 && inner.take(&mut state, now) {
                return Ok(());
            }
            let retry_after = inner.turn_of(&state, line, urgency, now).since(now);
            let longest = match urgency {
                Urgency::Foreground => inner.limits.load().max_wait,
                Urgency::Background => BACKGROUND_WAIT,
            };
            let (lines, most) = (&mut state.lines, inner.limits.load().max_queue);
            if lines.waiting_for(urgency) >= most {
                lines.tidy(now);
            }
            let full = lines.waiting_for(urgency) >= most;
            if retry_after > longest || full && !lines.make_room(line, urgency) {
                return Err(Exhausted { retry_after });
            }
            let (slot, waiting) = oneshot::channel();
            state.lines.join(line, urgency, Waiter { slot, deadline: now + longest, renews });
            if !state.dispatching {
                state.dispatching = true;
                tokio::spawn(Arc::clone(inner).dispatch());
            }
            waiting
        };
        waiting.await.map_err(|_| {
            let now = inner.clock.now();
            Exhausted { retry_after: inner.turn_of(&inner.state(), line, urgency, now).since(now) }
        })
    }

    /// Stops new fetches for `pause`, also of those who wait: the upstream answered 429.
    pub fn hold(&self, pause: Duration) {
        let inner = &self.0;
        let until = inner.clock.now() + pause;
        let mut state = inner.state();
        // Several answers of one moment are one reason to slow down.
        if state.held_until < inner.clock.now() {
            state.pace = (state.pace / 2).max(LEAST_PACE);
        }
        state.held_until = state.held_until.max(until);
        // After the pause one request at a time: the burst is spent, or the upstream would not have refused.
        state.arrival = state.arrival.max(until + inner.tolerance());
    }

    /// How many wait now.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.0.state().lines.still_there()
    }
}

impl Inner {
    /// Time between two slots at the present pace.
    fn interval(&self, state: &State) -> Duration {
        self.full_interval() * FULL_PACE / state.pace
    }

    /// A hundredth longer than is granted. On their way requests come closer together, which spends what the upstream allows
    /// for a burst; so that comes back.
    fn full_interval(&self) -> Duration {
        Duration::from_secs(1) / self.limits.load().per_second.get() * 101 / 100
    }

    /// How far ahead of its time a request may come: what the burst allows but for one. Requests reach the upstream closer
    /// together than they left, and one slot apart is the leeway that keeps it from refusing them.
    fn tolerance(&self) -> Duration {
        self.full_interval() * self.limits.load().burst.get().saturating_sub(2)
    }

    /// When the next slot is.
    fn next_slot(&self, state: &State, now: Moment) -> Moment {
        (state.arrival.max(now) - self.tolerance()).max(state.held_until).max(now)
    }

    /// Takes a slot, if there is one now.
    fn take(&self, state: &mut State, now: Moment) -> bool {
        let free = self.next_slot(state, now) <= now;
        if free {
            state.arrival = state.arrival.max(now) + self.interval(state);
            state.pace = (state.pace + PACE_STEP).min(FULL_PACE);
            self.used.add(unit(now, SECOND));
        }
        free
    }

    /// When it would be the turn of one more in a line.
    fn turn_of(&self, state: &State, line: Line, urgency: Urgency, now: Moment) -> Moment {
        let before = state.lines.before(line, urgency);
        self.next_slot(state, now) + self.interval(state) * u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// Gives out slots until nobody waits.
    async fn dispatch(self: Arc<Self>) {
        loop {
            let next = {
                let now = self.clock.now();
                let mut state = self.state();
                state.lines.tidy(now);
                while state.lines.waiting() > 0 && self.next_slot(&state, now) <= now {
                    let Some(waiter) = state.lines.next() else { break };
                    // One that leaves between the look and this has wasted nobody's slot but its own line's turn.
                    if waiter.slot.send(()).is_ok() {
                        self.take(&mut state, now);
                    }
                }
                if state.lines.waiting() == 0 {
                    state.dispatching = false;
                    return;
                }
                let deadline = state.lines.deadlines().min();
                let slot = self.next_slot(&state, now);
                deadline.map_or(slot, |deadline| deadline.min(slot))
            };
            self.clock.sleep_until(next).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock; were it otherwise, the numbers would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
