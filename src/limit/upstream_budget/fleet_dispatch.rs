//! Gives permits to the queued requests of a budget that a fleet shares.
//!
//! The first request of each flow asks the fleet, sleeps for as long as the answer says, and asks again. While the replica is
//! alone, its time slots give the permits, in the order of the local queue. One task does both, while requests wait.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::fleet_quota::{FleetPlace, FleetQuota, Turn, Verdict};
use super::inner::{FULL_RATE, Inner, RATE_STEP, max_wait};
use crate::clock::Moment;
use crate::fleet::{FleetState, Unavailable};
use crate::limit::credential_queue::{Head, WaitingHead};
use crate::limit::grant::Grant;

/// A flow asks again at least this often; the server drops the place of one that does not.
const LONGEST_SLEEP: Duration = Duration::from_millis(200);
/// Pause after a call that the server did not answer, and before another look at a fleet that is being joined.
const RETRY: Duration = Duration::from_millis(20);
/// A grant whose answer took longer is not used: its request would reach the upstream too late.
const LONGEST_ROUND_TRIP: Duration = Duration::from_millis(40);

/// An answer of the fleet, and when it was asked for.
type Answer = (Head, Moment, Result<Turn, Unavailable>);

/// The task of one budget.
pub(super) struct FleetDispatch {
    budget: Arc<Inner>,
    quota: Arc<FleetQuota>,
    asked: FuturesUnordered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    flows: HashMap<Head, FlowState>,
}

/// A flow that has asked the fleet.
enum FlowState {
    /// Its answer is under way.
    Asking,
    /// Asks again at a moment, with the place that it has.
    Sleeping(Moment, Option<FleetPlace>),
}

impl FleetDispatch {
    pub(super) fn new(budget: Arc<Inner>, quota: Arc<FleetQuota>) -> Self {
        Self { budget, quota, asked: FuturesUnordered::new(), flows: HashMap::new() }
    }

    /// Runs until no request waits.
    pub(super) async fn run(mut self) {
        while let Some((heads, deadline)) = self.waiting() {
            let now = self.budget.clock.now();
            self.give_places_back(&heads);
            let next = match self.quota.state(now) {
                FleetState::Shared | FleetState::Limbo => self.ask(&heads, now),
                FleetState::Alone => self.use_slots(now),
                FleetState::Joining => now + RETRY,
            };
            let next = deadline.map_or(next, |deadline| deadline.min(next));
            tokio::select! {
                Some((head, sent, answer)) = self.asked.next(), if !self.asked.is_empty() => self.answered(head, sent, answer),
                () = self.budget.clock.sleep_until(next) => {}
                () = self.budget.changed.notified() => {}
            }
        }
    }

    /// Returns the flows that wait, and the first deadline; `None` if there is nothing to do any more.
    fn waiting(&mut self) -> Option<(Vec<WaitingHead>, Option<Moment>)> {
        let now = self.budget.clock.now();
        let mut schedule = self.budget.schedule();
        schedule.queue.remove_expired(now);
        if schedule.queue.length() == 0 && self.asked.is_empty() {
            schedule.is_dispatching = false;
            drop(schedule);
            self.give_places_back(&[]);
            return None;
        }
        Some((schedule.queue.heads(), schedule.queue.deadlines().min()))
    }

    /// Gives the places of flows back in which no request waits any more.
    fn give_places_back(&mut self, heads: &[WaitingHead]) {
        let (budget, quota) = (&self.budget, &self.quota);
        self.flows.retain(|head, state| match state {
            FlowState::Sleeping(_, place) if !heads.iter().any(|waiting| waiting.head == *head) => {
                if place.is_some() {
                    budget.spawn_give_back(quota, *head, *place, None);
                }
                false
            }
            _ => true,
        });
    }

    /// Asks for the flows whose time has come; returns when the next one asks.
    fn ask(&mut self, heads: &[WaitingHead], now: Moment) -> Moment {
        let mut next = now + LONGEST_SLEEP;
        for waiting in heads {
            match self.flows.get(&waiting.head) {
                Some(FlowState::Asking) => {}
                Some(FlowState::Sleeping(until, _)) if *until > now => next = next.min(*until),
                _ => {
                    let (quota, waiting, clock) = (Arc::clone(&self.quota), *waiting, self.budget.clock.clone());
                    let limits = self.budget.limits.load();
                    let (shared, max_wait) = (self.budget.quota(), max_wait(&limits, waiting.head.urgency));
                    self.flows.insert(waiting.head, FlowState::Asking);
                    self.asked.push(Box::pin(async move {
                        let sent = clock.now();
                        (waiting.head, sent, quota.turn(waiting, shared, max_wait).await)
                    }));
                }
            }
        }
        next
    }

    fn answered(&mut self, head: Head, sent: Moment, answer: Result<Turn, Unavailable>) {
        let now = self.budget.clock.now();
        self.flows.remove(&head);
        let Ok(turn) = answer else {
            self.flows.insert(head, FlowState::Sleeping(now + RETRY, None));
            return;
        };
        self.budget.schedule().arrival = now + turn.arrival;
        self.budget.follow_fleet(turn.held_for, turn.rate_factor);
        match turn.verdict {
            Verdict::Granted(granted_at) => {
                let is_void = now.since(sent) > LONGEST_ROUND_TRIP;
                if is_void || !self.grant(head, granted_at) {
                    self.budget.spawn_give_back(&self.quota, head, None, Some(granted_at));
                }
            }
            Verdict::Waits { wait, place } => {
                self.flows.insert(head, FlowState::Sleeping(now + wait.min(LONGEST_SLEEP), Some(place)));
            }
            Verdict::TooLong { wait } => {
                // Every request of the flow would pass its deadline.
                let mut schedule = self.budget.schedule();
                schedule.refused_until = now + wait;
                schedule.queue.refuse(head);
            }
        }
    }

    /// Gives a granted request to the next one of its flow. Returns false if there is none, or the fleet is held.
    fn grant(&self, head: Head, granted_at: u64) -> bool {
        let now = self.budget.clock.now();
        let mut schedule = self.budget.schedule();
        if schedule.paused_until > now {
            return false;
        }
        while let Some(request) = schedule.queue.pop_of(head) {
            if request.permit.send(Grant::Fleet(granted_at)).is_ok() {
                return true;
            }
        }
        false
    }

    /// Gives permits in the replica's own time slots; returns when the next one begins.
    fn use_slots(&mut self, now: Moment) -> Moment {
        // The places are the server's matter, which is away.
        self.flows.retain(|_, state| matches!(state, FlowState::Asking));
        loop {
            let mut schedule = self.budget.schedule();
            if schedule.queue.length() == 0 {
                return now + LONGEST_SLEEP;
            }
            if schedule.paused_until > now {
                return schedule.paused_until.min(now + LONGEST_SLEEP);
            }
            let stride = u64::from(FULL_RATE.div_ceil(schedule.rate_factor));
            if let Err(wait) = self.quota.take_slot(self.budget.quota(), stride) {
                return now + wait.min(LONGEST_SLEEP);
            }
            schedule.rate_factor = (schedule.rate_factor + RATE_STEP).min(FULL_RATE);
            while let Some(request) = schedule.queue.pop() {
                if request.permit.send(Grant::TimeSlot).is_ok() {
                    break;
                }
            }
        }
    }
}
