//! The state of an upstream budget, for the status page, metrics and readiness.

use serde::Serialize;

use super::UpstreamBudget;
use super::inner::FULL_RATE;
use crate::limit::policy::BudgetState;
use crate::window_counter::{SECOND, ago, unit};

/// Number of seconds of history.
const HISTORY: u32 = 60;

/// The state of the budget of one org key.
#[derive(Clone, Debug, Serialize)]
pub struct BudgetStatus {
    /// Requests per second that the configuration grants.
    pub per_second: u32,
    /// Requests that the configuration grants at once when the budget is full.
    pub burst: u32,
    /// The present rate as a share of `per_second`; less than 1 for some time after a 429.
    #[serde(rename = "pace")]
    pub rate_factor: f64,
    /// Granted requests in each second of the last minute, the oldest first, without the present second.
    pub used: Vec<u32>,
    /// Requests that wait in the queue.
    pub waiting: usize,
    /// Maximum number of requests of one urgency in the queue.
    pub max_queue: usize,
    /// Seconds until the pause ends that a 429 asked for; 0 without a pause.
    #[serde(rename = "held_for")]
    pub paused_for: f64,
}

impl UpstreamBudget {
    /// Returns the figures of `RateLimit`: the requests that would be granted at once, and the time until the whole burst is
    /// available again.
    #[must_use]
    pub fn state(&self) -> BudgetState {
        let inner = &self.0;
        let now = inner.clock.now();
        let schedule = inner.schedule();
        let is_free = schedule.queue.length() == 0 && inner.next_grant(&schedule, now) <= now;
        let remaining = if is_free {
            let ahead = (now + inner.quota().tolerance()).since(schedule.arrival.max(now));
            let more = ahead.as_nanos() / inner.interval(&schedule).as_nanos().max(1);
            u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
        } else {
            0
        };
        let full = schedule.arrival.max(schedule.paused_until).since(now);
        let seconds = full.as_secs() + u64::from(full.subsec_nanos() > 0);
        BudgetState { remaining, reset: u32::try_from(seconds).unwrap_or(u32::MAX) }
    }

    /// Returns the present state.
    #[must_use]
    pub fn status(&self) -> BudgetStatus {
        let inner = &self.0;
        let now = inner.clock.now();
        let second = unit(now, SECOND);
        let granted = |seconds| ago(seconds, second).map_or(0, |second| inner.granted.at(second));
        let limits = inner.limits.load();
        let schedule = inner.schedule();
        BudgetStatus {
            per_second: limits.per_second.get(),
            burst: limits.burst.get(),
            rate_factor: f64::from(schedule.rate_factor) / f64::from(FULL_RATE),
            used: (1..=HISTORY).rev().map(granted).collect(),
            waiting: schedule.queue.depth().total(),
            max_queue: limits.max_queue,
            paused_for: schedule.paused_until.since(now).as_secs_f64(),
        }
    }
}
