//! What Postern may ask of Refold: one GCRA quota per org key, given out fairly.
//!
//! Fetches that have to wait stand in one line per linked account, and the lines are served in turn (round-robin), so an
//! account that asks for much waits for itself. A wait is bounded in time, the number of waiters by `max_queue`. An upstream
//! 429 holds all lines for as long as it says; after it the pace is halved and comes back step by step (additive increase,
//! multiplicative decrease).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{Clock, Moment};
use crate::config::UpstreamRate;

/// After a 429 the pace is a share of what is configured, of 1,000. It is never less than this.
const LEAST_PACE: u32 = 100;
const FULL_PACE: u32 = 1000;
/// Lines of which it is remembered when they were served.
const REMEMBERED: usize = 8192;
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
    limits: UpstreamRate,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// GCRA's theoretical arrival time of the next request.
    arrival: Moment,
    /// No fetch before this: the upstream said so.
    held_until: Moment,
    /// The present pace, of 1,000.
    pace: u32,
    foreground: Lines,
    background: Lines,
    /// A task gives out slots as long as somebody waits.
    dispatching: bool,
}

/// Waiters in their lines.
#[derive(Debug, Default)]
struct Lines {
    /// Whose turn it is: the one that was served the longest ago.
    turns: BTreeSet<(u64, Line)>,
    /// Counts those that were served, and who when.
    turn: u64,
    served: HashMap<Line, u64, foldhash::fast::RandomState>,
    waiters: HashMap<Line, VecDeque<Waiter>, foldhash::fast::RandomState>,
    waiting: usize,
}

#[derive(Debug)]
struct Waiter {
    slot: oneshot::Sender<()>,
    /// It goes away then.
    deadline: Moment,
    /// When what it renews was asked for; within a line the oldest goes first.
    renews: Moment,
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
    pub fn new(limits: UpstreamRate, clock: Clock) -> Self {
        let state = State {
            arrival: Moment::default(),
            held_until: Moment::default(),
            pace: FULL_PACE,
            foreground: Lines::default(),
            background: Lines::default(),
            dispatching: false,
        };
        Self(Arc::new(Inner { clock, limits, state: Mutex::new(state) }))
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
            if state.waiting() == 0 && inner.take(&mut state, now) {
                return Ok(());
            }
            let retry_after = inner.turn_of(&state, line, urgency, now).since(now);
            let longest = match urgency {
                Urgency::Foreground => inner.limits.max_wait,
                Urgency::Background => BACKGROUND_WAIT,
            };
            if retry_after > longest || state.waiting() >= inner.limits.max_queue {
                return Err(Exhausted { retry_after });
            }
            let (slot, waiting) = oneshot::channel();
            state.lines(urgency).join(line, Waiter { slot, deadline: now + longest, renews });
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

    /// The present pace: 1 is what is configured, less after the upstream answered 429.
    #[must_use]
    pub fn pace(&self) -> f64 {
        f64::from(self.0.state().pace) / f64::from(FULL_PACE)
    }

    /// Fetches that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.state().waiting()
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.foreground.waiting + self.background.waiting
    }

    fn lines(&mut self, urgency: Urgency) -> &mut Lines {
        match urgency {
            Urgency::Foreground => &mut self.foreground,
            Urgency::Background => &mut self.background,
        }
    }

    fn deadlines(&self) -> impl Iterator<Item = Moment> {
        let all = [&self.foreground, &self.background];
        all.into_iter().flat_map(|lines| lines.waiters.values().flatten()).map(|waiter| waiter.deadline)
    }

    /// The next in turn; those that somebody waits for first.
    fn next(&mut self) -> Option<Waiter> {
        self.foreground.next().or_else(|| self.background.next())
    }
}

impl Lines {
    fn join(&mut self, line: Line, waiter: Waiter) {
        let waiters = self.waiters.entry(line).or_default();
        if waiters.is_empty() {
            // One that nobody knows stands at the end: names can be made up.
            self.turns.insert((self.served.get(&line).copied().unwrap_or(self.turn), line));
        }
        waiters.push_back(waiter);
        self.waiting += 1;
    }

    /// How many would be served before one more in a line: the lines go round, so those behind the same number in other
    /// lines do not count.
    fn before(&self, line: Line) -> usize {
        let own = self.waiters.get(&line).map_or(0, VecDeque::len);
        let before = |(other, waiters): (&Line, &VecDeque<Waiter>)| {
            if *other == line { own } else { waiters.len().min(own + 1) }
        };
        self.waiters.iter().map(before).sum()
    }

    /// The next waiter in turn who is still there.
    fn next(&mut self) -> Option<Waiter> {
        while let Some((_, line)) = self.turns.pop_first() {
            let Some(waiters) = self.waiters.get_mut(&line) else { continue };
            let oldest = waiters.iter().enumerate().min_by_key(|(_, waiter)| waiter.renews).map(|(index, _)| index);
            let next = oldest.and_then(|oldest| waiters.remove(oldest));
            self.waiting -= usize::from(next.is_some());
            self.turn += 1;
            if self.served.len() >= REMEMBERED {
                let least = self.turn.saturating_sub(REMEMBERED as u64 / 2);
                self.served.retain(|_, turn| *turn > least);
            }
            self.served.insert(line, self.turn);
            if waiters.is_empty() {
                self.waiters.remove(&line);
            } else {
                self.turns.insert((self.turn, line));
            }
            match next {
                Some(waiter) if !waiter.slot.is_closed() => return Some(waiter),
                // It has left.
                _ => {}
            }
        }
        None
    }

    /// Sends away those who have left or whose time is over.
    fn tidy(&mut self, now: Moment) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.slot.is_closed() && waiter.deadline > now);
            !waiters.is_empty()
        });
        let lines = &self.waiters;
        self.turns.retain(|(_, line)| lines.contains_key(line));
        self.waiting = self.waiters.values().map(VecDeque::len).sum();
    }
}

impl Inner {
    /// Time between two slots at the present pace.
    fn interval(&self, state: &State) -> Duration {
        self.full_interval() * FULL_PACE / state.pace
    }

    fn full_interval(&self) -> Duration {
        Duration::from_secs(1) / self.limits.rate.per_second.get()
    }

    /// How far ahead of its time a request may come: what the burst allows but for one. Requests reach the upstream closer
    /// together than they left, and one slot apart is the leeway that keeps it from refusing them.
    fn tolerance(&self) -> Duration {
        self.full_interval() * self.limits.rate.burst.get().saturating_sub(2)
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
        }
        free
    }

    /// When it would be the turn of one more in a line.
    fn turn_of(&self, state: &State, line: Line, urgency: Urgency, now: Moment) -> Moment {
        let before = match urgency {
            Urgency::Foreground => state.foreground.before(line),
            Urgency::Background => state.foreground.waiting + state.background.before(line),
        };
        self.next_slot(state, now) + self.interval(state) * u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// Gives out slots until nobody waits.
    async fn dispatch(self: Arc<Self>) {
        loop {
            let next = {
                let now = self.clock.now();
                let mut state = self.state();
                state.foreground.tidy(now);
                state.background.tidy(now);
                while state.waiting() > 0 && self.next_slot(&state, now) <= now {
                    let Some(waiter) = state.next() else { break };
                    // One that leaves between the look and this has wasted nobody's slot but its own line's turn.
                    if waiter.slot.send(()).is_ok() {
                        self.take(&mut state, now);
                    }
                }
                if state.waiting() == 0 {
                    state.dispatching = false;
                    return;
                }
                let deadline = state.deadlines().min();
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
