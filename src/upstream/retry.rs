//! Retries of failed fetches: few, with growing pauses, and never more than a share of all fetches, so that they can't bring
//! down an upstream that is about to recover.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;

use super::retry_after::RetryAfter;
use crate::error::{ClientError, Reason};
use crate::http_client::{BufferedResponse, TransportError, TransportErrorKind};

/// Credit that a retry costs.
const RETRY_COST: u32 = 100;
/// Credit that a fetch earns: 20 % of a retry.
const FETCH_CREDIT: u32 = 20;
/// Most credit that can be saved up.
const MAX_CREDIT: u32 = 10 * RETRY_COST;
/// Upper bound of the first pause.
const FIRST_BOUND: Duration = Duration::from_millis(100);
/// Upper bound of the random part of every pause, which is added to the pause that the upstream asks for.
const LAST_BOUND: Duration = Duration::from_secs(2);

/// The credit for retries, shared by all fetches. Full at the start, so that a gateway with little traffic can retry too.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(MAX_CREDIT))
    }
}

impl RetryBudget {
    /// Adds the credit that one fetch earns.
    pub(super) fn deposit(&self) {
        let add = |credit: u32| Some((credit + FETCH_CREDIT).min(MAX_CREDIT));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Pays for one retry; returns false if the credit is too low.
    #[must_use]
    pub(super) fn withdraw(&self) -> bool {
        let pay = |credit: u32| credit.checked_sub(RETRY_COST);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

/// The way in which a failed fetch is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// After a pause.
    After(Duration),
    /// In its turn among all fetches, since Refold has refused it (429): the queue for permits knows the pause that Refold
    /// asked for, and refuses a fetch that would wait for too long.
    InTurn,
}

impl Retry {
    /// The pause before the fetch begins again.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::After(pause) => pause,
            Self::InTurn => Duration::ZERO,
        }
    }
}

/// Returns how a fetch with this result is sent again as retry number `retry` (0 is the first); `None` if the result is final.
#[must_use]
pub(super) fn next(
    retry: u32,
    result: &Result<BufferedResponse, ClientError>,
    retry_after: &RetryAfter,
) -> Option<Retry> {
    let least = match result {
        Ok(response) => match response.status() {
            StatusCode::TOO_MANY_REQUESTS => return Some(Retry::InTurn),
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => None,
            StatusCode::SERVICE_UNAVAILABLE => {
                let headers = response.headers();
                headers.contains_key(RETRY_AFTER).then(|| retry_after.pause(headers))
            }
            _ => return None,
        },
        Err(error) if error.is(Reason::UpstreamUnreachable) || broke_off(error) => None,
        Err(_) => return None,
    };
    Some(Retry::After(backoff(retry, least)))
}

/// Returns true if the response began and its body ended early.
fn broke_off(error: &ClientError) -> bool {
    let transport = error.cause().and_then(|cause| cause.downcast_ref::<TransportError>());
    transport.is_some_and(|error| error.kind() == TransportErrorKind::Incomplete)
}

/// Full jitter: any time up to a bound that doubles with each retry, so that many fetches do not come back together; added to
/// `least` if the upstream asked for a pause.
fn backoff(retry: u32, least: Option<Duration>) -> Duration {
    let bound = FIRST_BOUND.saturating_mul(1 << retry.min(10)).min(LAST_BOUND);
    let jitter = bound.mul_f64(fastrand::f64());
    least.map_or(jitter, |least| least + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_at_most_a_fifth_of_fetches_in_the_long_run() {
        let budget = RetryBudget::default();
        while budget.withdraw() {}
        let retries = (0..1000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(retries.count(), 200);
    }

    #[test]
    fn backoff_stays_below_its_bound_and_above_the_upstreams_pause() {
        for retry in 0..20 {
            let bound = Duration::from_millis(100 << retry.min(5)).min(LAST_BOUND);
            assert!(backoff(retry, None) <= bound);
            let least = Duration::from_secs(1);
            assert!((least..=least + bound).contains(&backoff(retry, Some(least))));
        }
    }
}
