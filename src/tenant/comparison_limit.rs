//! Limits the comparisons of derived responses with fetched ones, for one tenant.
//!
//! Their requests come from the same budget as those of callers. So a tenant has few comparisons at once, fewer until one has
//! succeeded or after one has failed, and the comparisons that prove kinds cost at most a share of the other fetches, beside a
//! credit that suffices to prove all kinds once.
//!
//! They are background requests. But a budget that callers use up would never grant one, although derivation would relieve it.
//! So while callers wait, one request of a comparison goes ahead of them for [`REQUEST`] other fetches, and no more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::limit::Urgency;

/// Comparisons at once.
const MOST: u32 = 20;
/// Comparisons at once until one has succeeded: if Refold does not serve the pages, few requests fail.
const AT_FIRST: u32 = 4;
/// Time without comparisons after one has failed.
const PAUSE: Duration = Duration::from_mins(1);
/// Credit that a request costs; each other fetch earns one, so comparisons cost a fifth of the other fetches.
const REQUEST: u32 = 5;
/// Requests of one comparison: the source, the response, the source again.
const REQUESTS: u32 = 3;
/// Credit that a comparison costs.
const COST: u32 = REQUESTS * REQUEST;
/// Largest credit, and the credit at first: 20 comparisons for each of four kinds.
const MOST_CREDIT: u32 = 80 * COST;
/// Largest credit for requests that go ahead of callers. There is none at first.
const MOST_CREDIT_AHEAD: u32 = 2 * COST;

/// The number of comparisons under way, and the credit for more.
#[derive(Debug)]
pub(super) struct ComparisonLimit {
    state: Mutex<State>,
    /// Wakes the comparisons that wait for credit.
    earned: Notify,
}

#[derive(Debug)]
struct State {
    under_way: u32,
    at_once: u32,
    credit: u32,
    /// Credit for requests that go ahead of callers.
    credit_ahead: u32,
    paused_until: Moment,
}

impl Default for ComparisonLimit {
    fn default() -> Self {
        let paused_until = Moment::default();
        let state = State { under_way: 0, at_once: AT_FIRST, credit: MOST_CREDIT, credit_ahead: 0, paused_until };
        Self { state: Mutex::new(state), earned: Notify::new() }
    }
}

/// The right to make one comparison.
#[derive(Debug)]
pub struct ComparisonPermit {
    limit: Arc<ComparisonLimit>,
    /// Requests that are paid for and go ahead of callers.
    paid_ahead: AtomicU32,
}

impl ComparisonPermit {
    /// Ends a comparison whose pages could all be fetched.
    pub fn succeeded(self) {
        self.limit.state().at_once = MOST;
    }

    /// Ends a comparison of which a page could not be fetched.
    pub fn failed(self, now: Moment) {
        let mut state = self.limit.state();
        (state.at_once, state.paused_until) = (AT_FIRST, now + PAUSE);
    }

    /// Returns the urgency of the comparison's next request: in the background unless callers wait for the budget. Then it goes
    /// ahead of them, as soon as there is credit for that.
    pub async fn urgency(&self, callers_wait: impl Fn() -> bool) -> Urgency {
        loop {
            let mut earned = std::pin::pin!(self.limit.earned.notified());
            earned.as_mut().enable();
            if !callers_wait() {
                return Urgency::Background;
            }
            let take = |paid: u32| paid.checked_sub(1);
            let is_paid = self.paid_ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
            if is_paid || self.limit.pay_ahead(1) {
                return Urgency::Foreground;
            }
            earned.await;
        }
    }
}

impl Drop for ComparisonPermit {
    fn drop(&mut self) {
        self.limit.state().under_way -= 1;
    }
}

impl ComparisonLimit {
    /// Begins a comparison that is to prove kinds. If callers wait for the budget, all of its requests have to be paid for, so
    /// that it ends before the list changes.
    pub(super) fn begin_proof(self: &Arc<Self>, now: Moment, callers_wait: bool) -> Option<ComparisonPermit> {
        let mut state = self.state();
        if state.credit < COST || now < state.paused_until || state.under_way >= state.at_once {
            return None;
        }
        if callers_wait {
            state.credit_ahead = state.credit_ahead.checked_sub(COST)?;
        }
        state.credit -= COST;
        state.under_way += 1;
        Some(self.permit(if callers_wait { REQUESTS } else { 0 }))
    }

    /// Begins a comparison that checks kinds in use. Checks are rare, so they need no credit.
    pub(super) fn begin_check(self: &Arc<Self>) -> Option<ComparisonPermit> {
        let mut state = self.state();
        if state.under_way >= MOST {
            return None;
        }
        state.under_way += 1;
        Some(self.permit(0))
    }

    fn permit(self: &Arc<Self>, paid_ahead: u32) -> ComparisonPermit {
        ComparisonPermit { limit: Arc::clone(self), paid_ahead: paid_ahead.into() }
    }

    /// Pays for requests that go ahead of callers; false if there is not enough credit.
    fn pay_ahead(&self, requests: u32) -> bool {
        let mut state = self.state();
        let left = state.credit_ahead.checked_sub(requests * REQUEST);
        state.credit_ahead = left.unwrap_or(state.credit_ahead);
        left.is_some()
    }

    /// The number of comparisons under way.
    pub(super) fn under_way(&self) -> u32 {
        self.state().under_way
    }

    /// Adds the credit for a fetch that is not a comparison's.
    pub(super) fn count_fetch(&self) {
        {
            let mut state = self.state();
            state.credit = MOST_CREDIT.min(state.credit + 1);
            state.credit_ahead = MOST_CREDIT_AHEAD.min(state.credit_ahead + 1);
        }
        self.earned.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before the next statement, so a panic leaves the state valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(0);

    fn begun(limit: &Arc<ComparisonLimit>, now: Moment) -> Vec<ComparisonPermit> {
        std::iter::from_fn(|| limit.begin_proof(now, false)).collect()
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
        limit.begin_proof(START, false).expect("a permit").succeeded();
        limit.begin_proof(START, false).expect("a permit").failed(START);
        assert!(begun(&limit, START + Duration::from_secs(59)).is_empty());
        assert_eq!(begun(&limit, START + PAUSE).len(), 4);
    }

    #[test]
    fn comparisons_cost_at_most_a_fifth_of_the_other_fetches() {
        let limit = Arc::<ComparisonLimit>::default();
        for _ in 0..80 {
            limit.begin_proof(START, false).expect("a permit").succeeded();
        }
        assert!(limit.begin_proof(START, false).is_none());
        let mut made = 0;
        for _ in 0..1500 {
            limit.count_fetch();
            made += begun(&limit, START).len();
        }
        assert_eq!(made, 100, "three requests each");
    }

    #[tokio::test]
    async fn one_request_in_six_goes_ahead_of_callers_that_wait() {
        let limit = Arc::<ComparisonLimit>::default();
        assert!(limit.begin_proof(START, true).is_none(), "nothing is earned");
        let begun_before = limit.begin_proof(START, false).expect("no caller waits");
        assert_eq!(begun_before.urgency(|| false).await, Urgency::Background);
        let mut waiting = Box::pin(begun_before.urgency(|| true));
        for _ in 0..4 {
            limit.count_fetch();
            assert!(output_now(&mut waiting).await.is_none());
        }
        limit.count_fetch();
        assert_eq!(output_now(&mut waiting).await, Some(Urgency::Foreground));
        (0..COST).for_each(|_| limit.count_fetch());
        let paid = limit.begin_proof(START, true).expect("it is earned");
        assert!(limit.begin_proof(START, true).is_none(), "the credit is spent");
        for _ in 0..3 {
            assert_eq!(paid.urgency(|| true).await, Urgency::Foreground);
        }
        assert!(output_now(&mut Box::pin(paid.urgency(|| true))).await.is_none());
        (0..1000).for_each(|_| limit.count_fetch());
        let most = std::iter::from_fn(|| limit.begin_proof(START, true).map(std::mem::forget)).count();
        assert_eq!(most, 2, "a long time without comparisons earns no more");
    }

    /// The output of a future, if it has one now.
    async fn output_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
