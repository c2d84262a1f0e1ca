//! The rate limit that Refold publishes, one quota per org key.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock::lock;
use crate::clock::Moment;

/// A GCRA limiter. It shares no code with the gateway's limiter, so that tests check one against the other.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// Time between two requests at the permitted rate.
    interval: Duration,
    /// Time by which a request may be early, as part of a burst.
    tolerance: Duration,
    /// Theoretical arrival time of the next request for each org key.
    arrivals: Mutex<HashMap<String, Moment>>,
}

impl RateLimiter {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, tolerance: interval * burst.saturating_sub(1), arrivals: Mutex::default() }
    }

    /// Counts one request against the quota of `org_key`.
    ///
    /// # Errors
    /// If the quota is used up; the error is the time until the next request is permitted.
    pub(super) fn check(&self, org_key: &str, now: Moment) -> Result<(), Duration> {
        let mut arrivals = lock(&self.arrivals);
        let arrival = arrivals.get(org_key).copied().unwrap_or_default().max(now);
        let wait = (arrival - self.tolerance).since(now);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        arrivals.insert(org_key.to_owned(), arrival + self.interval);
        Ok(())
    }
}
