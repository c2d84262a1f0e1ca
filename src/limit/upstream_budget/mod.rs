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
mod inner;
mod quota;
mod slot;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::fleet_dispatch::FleetDispatch;
use self::fleet_quota::FleetQuota;
pub use self::fleet_quota::delete_idle_orgs;
use self::inner::{FULL_RATE, Inner, MIN_RATE, Schedule, max_wait};
pub use self::slot::BudgetSlot;
use self::slot::QueuedSlot;
pub use self::status::BudgetStatus;
use super::fair_queue::{QueueDepth, QueuedRequest};
use super::flow::{Flow, FlowId, Urgency};
use crate::clock::{Clock, Moment};
use crate::config::UpstreamLimits;
use crate::fleet::Fleet;

/// Two session tokens that are answered 429 within this time show that their org exceeds its budget.
const TOKENS_AGREE_WITHIN: Duration = Duration::from_secs(10);

/// The budget of one org key at the upstream, or of strangers' session tokens. Cheap to clone; clones share one budget.
#[derive(Clone, Debug)]
pub struct UpstreamBudget(Arc<Inner>);

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
        Self(Arc::new(Inner::new(limits, clock)))
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
            begin_dispatch(inner, &mut schedule);
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

/// Starts the task that gives permits, if none runs.
fn begin_dispatch(inner: &Arc<Inner>, schedule: &mut Schedule) {
    if !std::mem::replace(&mut schedule.is_dispatching, true) {
        match inner.fleet() {
            None => tokio::spawn(Arc::clone(inner).dispatch()),
            Some(fleet) => tokio::spawn(FleetDispatch::new(Arc::clone(inner), Arc::clone(fleet)).run()),
        };
    } else if inner.fleet().is_some() {
        inner.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
