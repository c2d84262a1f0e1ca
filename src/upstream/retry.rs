//! Retries: few, apart, and never more than a share of all requests, so that they can't bring down what is about to recover.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a request adds to the budget, of what a retry takes: 20 %.
const DEPOSIT: u32 = 20;
const RETRY: u32 = 100;
/// Retries that can be saved up.
const MOST: u32 = 10 * RETRY;
/// First and longest backoff.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Retries that are left. Starts with some, so that a quiet gateway can retry too.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(MOST))
    }
}

impl RetryBudget {
    /// A request is made.
    pub(super) fn deposit(&self) {
        let add = |left: u32| Some((left + DEPOSIT).min(MOST));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes a retry off, if there is one.
    #[must_use]
    pub(super) fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(RETRY)).is_ok()
    }
}

/// How long to wait before a retry (0 is the first): any time up to a bound that doubles, so that many do not come back
/// together (full jitter); at least what the upstream asked for.
#[must_use]
pub(super) fn backoff(retry: u32, asked_for: Option<Duration>) -> Duration {
    let bound = FIRST.saturating_mul(1 << retry.min(10)).min(LONGEST);
    let jitter = bound.mul_f64(fastrand::f64());
    asked_for.map_or(jitter, |least| least + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_at_most_a_fifth_of_requests_in_the_long_run() {
        let budget = RetryBudget::default();
        while budget.withdraw() {}
        let retries = (0..1000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(retries.count(), 200);
    }

    #[test]
    fn backoff_stays_under_its_bound_and_above_what_was_asked_for() {
        for retry in 0..20 {
            let bound = Duration::from_millis(100 << retry.min(5)).min(LONGEST);
            assert!(backoff(retry, None) <= bound);
            let asked = Duration::from_secs(1);
            assert!((asked..=asked + bound).contains(&backoff(retry, Some(asked))));
        }
    }
}
