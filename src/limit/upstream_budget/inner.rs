//! The state of an upstream budget: the replica's own GCRA, its queue, and the fleet that shares them.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::fleet_quota::{FleetPlace, FleetQuota};
use super::quota::Quota;
use crate::clock::{Clock, Moment};
use crate::config::UpstreamLimits;
use crate::fleet::FleetState;
use crate::limit::credential_queue::{CredentialQueue, Head};
use crate::limit::flow::{Flow, FlowId, Urgency};
use crate::limit::grant::Grant;
use crate::window_counter::LazyCounterRing;

/// The rate factor at the configured rate; smaller factors are thousandths of it.
pub(super) const FULL_RATE: u32 = 1000;
/// The smallest rate factor after any number of 429 responses.
pub(super) const MIN_RATE: u32 = 100;
/// Amount by which each granted request raises the rate factor.
pub(super) const RATE_STEP: u32 = 10;

/// Maximum wait of a background request. It is long, since callers receive the cached response meanwhile.
pub(super) const BACKGROUND_WAIT: Duration = Duration::from_mins(1);

/// Pause before the next call that tells the fleet's server about an upstream 429.
const HOLD_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) clock: Clock,
    pub(super) limits: ArcSwap<UpstreamLimits>,
    pub(super) schedule: Mutex<Schedule>,
    /// Requests by the second in which they were sent.
    pub(super) granted: LazyCounterRing<64>,
    /// Set if a fleet shares the budget.
    pub(super) fleet: OnceLock<Arc<FleetQuota>>,
    /// Wakes the task that gives the permits when a slot comes back and, in a fleet, when a request joins or leaves the queue.
    pub(super) changed: Notify,
}

/// The state of the GCRA and the queue.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Theoretical arrival time (TAT) of the next request.
    pub(super) arrival: Moment,
    /// No request is granted before this moment, which an upstream 429 sets.
    pub(super) paused_until: Moment,
    /// The accepted session token that was answered 429 last, and when.
    pub(super) limited_token: Option<(FlowId, Moment)>,
    /// The present share of the configured rate, in thousandths.
    pub(super) rate_factor: u32,
    pub(super) queue: CredentialQueue,
    /// When the fleet would have granted the request that it refused last.
    pub(super) refused_until: Moment,
    /// True while a task gives permits, which it does while requests wait.
    pub(super) is_dispatching: bool,
}

impl Inner {
    pub(super) fn new(limits: UpstreamLimits, clock: Clock) -> Self {
        let schedule = Schedule {
            arrival: Moment::default(),
            paused_until: Moment::default(),
            limited_token: None,
            rate_factor: FULL_RATE,
            queue: CredentialQueue::default(),
            refused_until: Moment::default(),
            is_dispatching: false,
        };
        let limits = ArcSwap::from_pointee(limits);
        Self {
            clock,
            limits,
            schedule: Mutex::new(schedule),
            granted: LazyCounterRing::default(),
            fleet: OnceLock::new(),
            changed: Notify::new(),
        }
    }

    pub(super) fn quota(&self) -> Quota {
        Quota::new(&self.limits.load())
    }

    pub(super) fn fleet(&self) -> Option<&Arc<FleetQuota>> {
        self.fleet.get()
    }

    /// Time between two granted requests at the present rate, of this replica if it is alone.
    pub(super) fn interval(&self, schedule: &Schedule) -> Duration {
        let alone = self.fleet().filter(|fleet| fleet.state(self.clock.now()) == FleetState::Alone);
        self.quota().interval() * FULL_RATE / schedule.rate_factor * alone.map_or(1, |fleet| fleet.shares())
    }

    /// Returns the moment at which the next request is granted.
    pub(super) fn next_grant(&self, schedule: &Schedule, now: Moment) -> Moment {
        (schedule.arrival.max(now) - self.quota().tolerance()).max(schedule.paused_until).max(now)
    }

    /// Takes one request off the budget; `false` if none is available now.
    pub(super) fn take(&self, schedule: &mut Schedule, now: Moment) -> bool {
        let is_available = self.next_grant(schedule, now) <= now;
        if is_available {
            schedule.arrival = schedule.arrival.max(now) + self.interval(schedule);
            schedule.rate_factor = (schedule.rate_factor + RATE_STEP).min(FULL_RATE);
        }
        is_available
    }

    /// Takes back a slot that was not spent. `queued` is the flow of a request that has waited for it, which has its turn again.
    pub(super) fn give_back(self: &Arc<Self>, grant: Grant, queued: Option<Flow>) {
        let now = self.clock.now();
        let mut schedule = self.schedule();
        if let Some(flow) = queued {
            schedule.queue.give_turn_back(flow);
        }
        match (grant, self.fleet(), queued) {
            // A pause leaves nothing of the burst, so there is nothing to return to.
            (Grant::Local, ..) if schedule.paused_until <= now => {
                schedule.arrival = schedule.arrival - self.interval(&schedule);
                self.changed.notify_one();
            }
            (Grant::Fleet(granted_at), Some(fleet), Some(flow)) => {
                let head = Head { flow, urgency: Urgency::Foreground };
                self.spawn_give_back(fleet, head, None, Some(granted_at));
            }
            _ => {}
        }
    }

    /// Gives a place, or a granted request, back to the fleet.
    pub(super) fn spawn_give_back(
        &self,
        fleet: &Arc<FleetQuota>,
        head: Head,
        place: Option<FleetPlace>,
        granted: Option<u64>,
    ) {
        // A request may be dropped with its runtime, when the process ends. The server drops the place of one that is gone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (fleet, quota) = (Arc::clone(fleet), self.quota());
            runtime.spawn(async move { fleet.give_back(head, place, granted, quota).await });
        }
    }

    /// Tells the fleet's server of a pause, until it has answered or the pause is over.
    pub(super) async fn hold_fleet(self: Arc<Self>, fleet: Arc<FleetQuota>, until: Moment) {
        loop {
            let now = self.clock.now();
            if until <= now {
                return;
            }
            if let Ok((held_for, rate_factor)) = fleet.hold(until.since(now), self.quota()).await {
                self.follow_fleet(held_for, rate_factor);
                return;
            }
            self.clock.sleep_until(now + HOLD_RETRY).await;
        }
    }

    /// Follows the fleet's pause and rate. A pause that this replica has told of may be longer, since it is still under way.
    pub(super) fn follow_fleet(&self, held_for: Duration, rate_factor: u32) {
        let now = self.clock.now();
        let mut schedule = self.schedule();
        schedule.rate_factor = rate_factor;
        if !held_for.is_zero() {
            schedule.paused_until = schedule.paused_until.max(now + held_for);
        }
    }

    /// Estimates the moment at which one more request of `flow` would be granted.
    pub(super) fn estimate(&self, schedule: &Schedule, flow: Flow, urgency: Urgency, now: Moment) -> Moment {
        let position = schedule.queue.position(flow, urgency);
        self.next_grant(schedule, now) + self.interval(schedule) * u32::try_from(position).unwrap_or(u32::MAX)
    }

    /// Gives permits to the queued requests until none waits.
    pub(super) async fn dispatch(self: Arc<Self>) {
        loop {
            let next = {
                let now = self.clock.now();
                let mut schedule = self.schedule();
                schedule.queue.remove_expired(now);
                while schedule.queue.length() > 0 && self.next_grant(&schedule, now) <= now {
                    let Some(request) = schedule.queue.pop() else { break };
                    // A request that is cancelled right now costs its flow one round, and the budget nothing.
                    if request.permit.send(Grant::Local).is_ok() {
                        self.take(&mut schedule, now);
                    }
                }
                if schedule.queue.length() == 0 {
                    schedule.is_dispatching = false;
                    return;
                }
                let deadline = schedule.queue.deadlines().min();
                let grant = self.next_grant(&schedule, now);
                deadline.map_or(grant, |deadline| deadline.min(grant))
            };
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // Nothing that can panic runs under the lock; if it did, the numbers would still be consistent.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the maximum wait of a request.
pub(super) fn max_wait(limits: &UpstreamLimits, urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Foreground => limits.max_wait,
        Urgency::Background => BACKGROUND_WAIT,
    }
}
