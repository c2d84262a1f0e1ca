//! Limits the requests to Refold: one GCRA quota per org key, shared fairly. Each tenant has a second one for strangers' session
//! tokens, which is shared between the peers that sent them.
//!
//! A request that exceeds the quota waits in its flow, one per linked account and session token of a credential; `fair_queue` and
//! `credential_queue` say in which order flows are served. The wait is bounded by a deadline, and the queue by `max_queue`: a request that meets a full queue
//! replaces the last one of the longest flow. After an upstream 429 all requests pause for the time that it asks for; the rate
//! halves and then recovers (additive increase, multiplicative decrease).
//!
//! In a fleet the quota, the pause and the rate factor are shared by all replicas on a server (`fleet_quota`), which also decides
//! on the order of flows; the queue, its bounds and deadlines stay each replica's own.

mod fleet_dispatch;
mod fleet_quota;
mod quota;
mod slot;
mod status;
mod time_slots;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use self::fleet_dispatch::FleetDispatch;
use self::fleet_quota::{FleetPlace, FleetQuota};
use self::quota::Quota;
pub use self::slot::BudgetSlot;
use self::slot::QueuedSlot;
pub use self::status::BudgetStatus;
use super::credential_queue::{CredentialQueue, Head};
use super::fair_queue::{QueueDepth, QueuedRequest};
use super::flow::{Flow, FlowId, Urgency};
use super::grant::Grant;
use crate::clock::{Clock, Moment};
use crate::config::UpstreamLimits;
use crate::fleet::{Fleet, FleetState};
use crate::window_counter::CounterRing;

/// The rate factor at the configured rate; smaller factors are thousandths of it.
const FULL_RATE: u32 = 1000;
/// The smallest rate factor after any number of 429 responses.
const MIN_RATE: u32 = 100;
/// Amount by which each granted request raises the rate factor.
const RATE_STEP: u32 = 10;

/// Two session tokens that are answered 429 within this time show that their org exceeds its budget.
const TOKENS_AGREE_WITHIN: Duration = Duration::from_secs(10);

/// Maximum wait of a background request. It is long, since callers receive the cached response meanwhile.
const BACKGROUND_WAIT: Duration = Duration::from_mins(1);

/// Pause before the fleet's server is told of an upstream 429 once more.
const HOLD_RETRY: Duration = Duration::from_millis(100);

/// The budget of one org key at the upstream, or of strangers' session tokens. Cheap to clone; clones share one budget.
#[derive(Clone, Debug)]
pub struct UpstreamBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    limits: ArcSwap<UpstreamLimits>,
    schedule: Mutex<Schedule>,
    /// Requests by the second in which they were sent.
    granted: CounterRing<64>,
    /// Set if a fleet shares the budget.
    fleet: OnceLock<Arc<FleetQuota>>,
    /// Wakes the task that gives the permits when a slot comes back and, in a fleet, when a request joins or leaves the queue.
    changed: Notify,
}

/// The state of the GCRA and the queue.
#[derive(Debug)]
struct Schedule {
    /// Theoretical arrival time (TAT) of the next request.
    arrival: Moment,
    /// No request is granted before this moment, which an upstream 429 sets.
    paused_until: Moment,
    /// The accepted session token that was answered 429 last, and when.
    limited_token: Option<(FlowId, Moment)>,
    /// The present share of the configured rate, in thousandths.
    rate_factor: u32,
    queue: CredentialQueue,
    /// When the fleet would have granted the request that it refused last.
    refused_until: Moment,
    /// True while a task gives permits, which it does while requests wait.
    is_dispatching: bool,
}

/// The budget grants no request within the permitted wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Time after which a new request is likely to be granted.
    pub retry_after: Duration,
}

impl UpstreamBudget {
    /// Creates a full budget.
    #[must_use]
    pub fn new(limits: UpstreamLimits, clock: Clock) -> Self {
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
        Self(Arc::new(Inner {
            clock,
            limits,
            schedule: Mutex::new(schedule),
            granted: CounterRing::default(),
            fleet: OnceLock::new(),
            changed: Notify::new(),
        }))
    }

    /// Shares the budget with the other replicas of a fleet, under the SHA-256 digest of the org key. To be called before the budget
    /// serves.
    pub fn share(&self, fleet: &Fleet, key_digest: &[u8; 32]) {
        self.0.fleet.get_or_init(|| Arc::new(FleetQuota::new(fleet, self.0.clock.clone(), key_digest)));
    }

    /// Changes the limits, also for the requests that wait. Granted requests stay counted.
    pub fn set_limits(&self, limits: UpstreamLimits) {
        self.0.limits.store(Arc::new(limits));
    }

    /// Grants a tenth of the configured rate from now on if `is_slowed`, else the whole of it.
    pub fn set_slowed(&self, is_slowed: bool) {
        self.0.schedule().rate_factor = if is_slowed { MIN_RATE } else { FULL_RATE };
    }

    /// Takes one request off the budget, and waits for it in the queue if necessary. `renews` is the request time of the
    /// cached response that the request renews, or the present if there is none. A future that is dropped takes nothing, also if
    /// the request was granted already.
    ///
    /// # Errors
    /// At once if the queue is full or the wait would be too long. Later if the upstream has asked for a pause and the request
    /// reaches its deadline, or if a request of a shorter flow takes its place in a full queue.
    pub async fn acquire(&self, flow: Flow, urgency: Urgency, renews: Moment) -> Result<BudgetSlot, Exhausted> {
        let inner = &self.0;
        let queued = {
            let now = inner.clock.now();
            let mut schedule = inner.schedule();
            if inner.fleet().is_none() && schedule.queue.length() == 0 && inner.take(&mut schedule, now) {
                return Ok(BudgetSlot::at_once(inner));
            }
            let retry_after = inner.estimate(&schedule, flow, urgency, now).since(now);
            let max_wait = max_wait(&inner.limits.load(), urgency);
            let (queue, max_queue) = (&mut schedule.queue, inner.limits.load().max_queue);
            if queue.length_of(urgency) >= max_queue {
                queue.remove_expired(now);
            }
            let is_full = queue.length_of(urgency) >= max_queue;
            if retry_after > max_wait || is_full && !queue.make_room(flow, urgency) {
                return Err(Exhausted { retry_after });
            }
            let (sender, permit) = oneshot::channel();
            schedule.queue.push(flow, urgency, QueuedRequest { permit: sender, deadline: now + max_wait, renews });
            inner.begin_dispatch(&mut schedule);
            QueuedSlot::new(inner, flow, permit)
        };
        queued.granted().await.map_err(|_| {
            let now = inner.clock.now();
            let schedule = inner.schedule();
            let granted_at = inner.estimate(&schedule, flow, urgency, now).max(schedule.refused_until);
            Exhausted { retry_after: granted_at.since(now) }
        })
    }

    /// Pauses all requests for `duration`, waiting ones included, and halves the rate. Call it after an upstream 429.
    pub fn pause(&self, duration: Duration) {
        let inner = &self.0;
        let until = inner.clock.now() + duration;
        let mut schedule = inner.schedule();
        // Several 429 responses to concurrent requests halve the rate once.
        if schedule.paused_until < inner.clock.now() {
            schedule.rate_factor = (schedule.rate_factor / 2).max(MIN_RATE);
        }
        schedule.paused_until = schedule.paused_until.max(until);
        // No burst after the pause: the upstream would not have answered 429 if any of it were left.
        schedule.arrival = schedule.arrival.max(until + inner.quota().tolerance());
        drop(schedule);
        if let Some(fleet) = inner.fleet() {
            tokio::spawn(Arc::clone(inner).hold_fleet(Arc::clone(fleet), until));
        }
    }

    /// Records an upstream 429 to a session token that the upstream has accepted. Pauses all requests for `duration` if another
    /// such token was answered 429 in the last `TOKENS_AGREE_WITHIN`.
    pub fn pause_for_tokens(&self, token: FlowId, duration: Duration) {
        let now = self.0.clock.now();
        let last = self.0.schedule().limited_token.replace((token, now));
        let is_agreed = |(other, at): (FlowId, Moment)| other != token && now.since(at) <= TOKENS_AGREE_WITHIN;
        if last.is_some_and(is_agreed) {
            self.pause(duration);
        }
    }

    /// Returns whether both are the budget of one org key.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns whether requests wait for which callers wait.
    #[must_use]
    pub fn callers_wait(&self) -> bool {
        self.0.schedule().queue.length_of(Urgency::Foreground) > 0
    }

    /// Counts the requests that wait now.
    #[must_use]
    pub fn queue_depth(&self) -> QueueDepth {
        self.0.schedule().queue.depth()
    }
}

impl Inner {
    fn quota(&self) -> Quota {
        Quota::new(&self.limits.load())
    }

    fn fleet(&self) -> Option<&Arc<FleetQuota>> {
        self.fleet.get()
    }

    /// Time between two granted requests at the present rate, of this replica if it is alone.
    fn interval(&self, schedule: &Schedule) -> Duration {
        let alone = self.fleet().filter(|fleet| fleet.state(self.clock.now()) == FleetState::Alone);
        self.quota().interval() * FULL_RATE / schedule.rate_factor * alone.map_or(1, |fleet| fleet.shares())
    }

    /// Returns the moment at which the next request is granted.
    fn next_grant(&self, schedule: &Schedule, now: Moment) -> Moment {
        (schedule.arrival.max(now) - self.quota().tolerance()).max(schedule.paused_until).max(now)
    }

    /// Takes one request off the budget; `false` if none is available now.
    fn take(&self, schedule: &mut Schedule, now: Moment) -> bool {
        let is_available = self.next_grant(schedule, now) <= now;
        if is_available {
            schedule.arrival = schedule.arrival.max(now) + self.interval(schedule);
            schedule.rate_factor = (schedule.rate_factor + RATE_STEP).min(FULL_RATE);
        }
        is_available
    }

    /// Takes back a slot that was not spent. `queued` is the flow of a request that has waited for it, which has its turn again.
    fn give_back(self: &Arc<Self>, grant: Grant, queued: Option<Flow>) {
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
    fn spawn_give_back(&self, fleet: &Arc<FleetQuota>, head: Head, place: Option<FleetPlace>, granted: Option<u64>) {
        // A request may be dropped with its runtime, when the process ends. The server drops the place of one that is gone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (fleet, quota) = (Arc::clone(fleet), self.quota());
            runtime.spawn(async move { fleet.give_back(head, place, granted, quota).await });
        }
    }

    /// Tells the fleet's server of a pause, until it has answered or the pause is over.
    async fn hold_fleet(self: Arc<Self>, fleet: Arc<FleetQuota>, until: Moment) {
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
    fn follow_fleet(&self, held_for: Duration, rate_factor: u32) {
        let now = self.clock.now();
        let mut schedule = self.schedule();
        schedule.rate_factor = rate_factor;
        if !held_for.is_zero() {
            schedule.paused_until = schedule.paused_until.max(now + held_for);
        }
    }

    /// Starts the task that gives permits, if none runs.
    fn begin_dispatch(self: &Arc<Self>, schedule: &mut Schedule) {
        if !std::mem::replace(&mut schedule.is_dispatching, true) {
            match self.fleet() {
                None => tokio::spawn(Arc::clone(self).dispatch()),
                Some(fleet) => tokio::spawn(FleetDispatch::new(Arc::clone(self), Arc::clone(fleet)).run()),
            };
        } else if self.fleet().is_some() {
            self.changed.notify_one();
        }
    }

    /// Estimates the moment at which one more request of `flow` would be granted.
    fn estimate(&self, schedule: &Schedule, flow: Flow, urgency: Urgency, now: Moment) -> Moment {
        let position = schedule.queue.position(flow, urgency);
        self.next_grant(schedule, now) + self.interval(schedule) * u32::try_from(position).unwrap_or(u32::MAX)
    }

    /// Gives permits to the queued requests until none waits.
    async fn dispatch(self: Arc<Self>) {
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

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        // Nothing that can panic runs under the lock; if it did, the numbers would still be consistent.
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the maximum wait of a request.
fn max_wait(limits: &UpstreamLimits, urgency: Urgency) -> Duration {
    match urgency {
        Urgency::Foreground => limits.max_wait,
        Urgency::Background => BACKGROUND_WAIT,
    }
}

#[cfg(test)]
mod tests;
