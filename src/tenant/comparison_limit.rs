//! Limits the comparisons of derived responses with fetched ones, for one tenant.
//!
//! Their requests come from the same budget as those of callers. So a tenant has few comparisons at once, fewer until one has
//! succeeded or after one has failed, and the comparisons that prove kinds cost at most a share of the other fetches, beside a
//! credit that suffices to prove all kinds once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;

/// Comparisons at once.
const MOST: u32 = 20;
/// Comparisons at once until one has succeeded: if Refold does not serve the pages, few requests fail.
const AT_FIRST: u32 = 4;
/// Time without comparisons after one has failed.
const PAUSE: Duration = Duration::from_mins(1);
/// Requests of one comparison: the source, the response, the source again. In units of [`PER_FETCH`].
const COST: u32 = 3 * 5;
/// Credit for each other fetch: a fifth of a request.
const PER_FETCH: u32 = 1;
/// Largest credit, and the credit at first: 20 comparisons for each of four kinds.
const MOST_CREDIT: u32 = 80 * COST;

/// The number of comparisons under way, and the credit for more.
#[derive(Debug)]
pub(super) struct ComparisonLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    under_way: u32,
    at_once: u32,
    credit: u32,
    paused_until: Moment,
}

impl Default for ComparisonLimit {
    fn default() -> Self {
        let paused_until = Moment::default();
        Self(Mutex::new(State { under_way: 0, at_once: AT_FIRST, credit: MOST_CREDIT, paused_until }))
    }
}

/// The right to make one comparison.
#[derive(Debug)]
pub struct ComparisonPermit(Arc<ComparisonLimit>);

impl ComparisonPermit {
    /// Ends a comparison whose pages could all be fetched.
    pub fn succeeded(self) {
        self.0.state().at_once = MOST;
    }

    /// Ends a comparison of which a page could not be fetched.
    pub fn failed(self, now: Moment) {
        let mut state = self.0.state();
        (state.at_once, state.paused_until) = (AT_FIRST, now + PAUSE);
    }
}

impl Drop for ComparisonPermit {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

impl ComparisonLimit {
    /// Begins a comparison that is to prove kinds.
    pub(super) fn begin_proof(self: &Arc<Self>, now: Moment) -> Option<ComparisonPermit> {
        let mut state = self.state();
        if state.credit < COST || now < state.paused_until || state.under_way >= state.at_once {
            return None;
        }
        state.credit -= COST;
        state.under_way += 1;
        Some(ComparisonPermit(Arc::clone(self)))
    }

    /// Begins a comparison that checks kinds in use. Checks are rare, so they need no credit.
    pub(super) fn begin_check(self: &Arc<Self>) -> Option<ComparisonPermit> {
        let mut state = self.state();
        if state.under_way >= MOST {
            return None;
        }
        state.under_way += 1;
        Some(ComparisonPermit(Arc::clone(self)))
    }

    /// The number of comparisons under way.
    pub(super) fn under_way(&self) -> u32 {
        self.state().under_way
    }

    /// Adds the credit for a fetch that is not a comparison's.
    pub(super) fn count_fetch(&self) {
        let mut state = self.state();
        state.credit = MOST_CREDIT.min(state.credit + PER_FETCH);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before the next statement, so a panic leaves the state valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(0);

    fn begun(limit: &Arc<ComparisonLimit>, now: Moment) -> Vec<ComparisonPermit> {
        std::iter::from_fn(|| limit.begin_proof(now)).collect()
    }

    #[test]
    fn few_comparisons_are_made_until_one_has_succeeded() {
        let limit = Arc::<ComparisonLimit>::default();
        let mut first = begun(&limit, START);
        assert_eq!(first.len(), 4);
        first.pop().expect("a permit").succeeded();
        let more = begun(&limit, START);
        assert_eq!(first.len() + more.len(), 20);
        assert!(limit.begin_check().is_none());
        drop((first, more));
        assert!(limit.begin_check().is_some());
    }

    #[test]
    fn comparisons_pause_after_a_failed_one() {
        let limit = Arc::<ComparisonLimit>::default();
        limit.begin_proof(START).expect("a permit").succeeded();
        limit.begin_proof(START).expect("a permit").failed(START);
        assert!(begun(&limit, START + Duration::from_secs(59)).is_empty());
        assert_eq!(begun(&limit, START + PAUSE).len(), 4);
    }

    #[test]
    fn comparisons_cost_at_most_a_fifth_of_the_other_fetches() {
        let limit = Arc::<ComparisonLimit>::default();
        for _ in 0..80 {
            limit.begin_proof(START).expect("a permit").succeeded();
        }
        assert!(limit.begin_proof(START).is_none());
        let mut made = 0;
        for _ in 0..1500 {
            limit.count_fetch();
            made += begun(&limit, START).len();
        }
        assert_eq!(made, 100, "three requests each");
    }
}
