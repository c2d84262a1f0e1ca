//! How the budget stands, for whoever watches.

use serde::Serialize;

use super::{FULL_PACE, UpstreamBudget};
use crate::tally::{SECOND, ago, unit};

/// Seconds of use that are shown.
const SHOWN: u32 = 60;

/// How the budget of one org key stands.
#[derive(Clone, Debug, Serialize)]
pub struct BudgetStatus {
    /// What the configuration lets it ask a second.
    pub per_second: u32,
    /// And at once after a pause.
    pub burst: u32,
    /// The share of that at which it asks now: less than 1 for a while after a 429.
    pub pace: f64,
    /// Requests by the second in the last minute; the present second is not over and not in it.
    pub used: Vec<u32>,
    /// Fetches that wait for their turn.
    pub waiting: usize,
    /// How many may.
    pub max_queue: usize,
    /// How long nobody may ask, since Refold said so: seconds.
    pub held_for: f64,
}

impl UpstreamBudget {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> BudgetStatus {
        let inner = &self.0;
        let now = inner.clock.now();
        let second = unit(now, SECOND);
        let back = |seconds| ago(seconds, second).map_or(0, |at| inner.used.at(at));
        let limits = inner.limits.load();
        let state = inner.state();
        let waiting = state.lines.still_there();
        BudgetStatus {
            per_second: limits.per_second.get(),
            burst: limits.burst.get(),
            pace: f64::from(state.pace) / f64::from(FULL_PACE),
            used: (1..=SHOWN).rev().map(back).collect(),
            waiting: waiting.callers + waiting.renewals,
            max_queue: limits.max_queue,
            held_for: state.held_until.since(now).as_secs_f64(),
        }
    }
}
