//! The published rate limit, one quota per org key.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::clock::Moment;

/// A GCRA limiter, written once more so that the gateway's own is held against another.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    tolerance: Duration,
    arrivals: Mutex<HashMap<String, Moment>>,
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, tolerance: interval * burst.saturating_sub(1), arrivals: Mutex::default() }
    }

    /// Takes one request off a key's quota, or tells how long to wait.
    pub(super) fn check(&self, key: &str, now: Moment) -> Result<(), Duration> {
        let mut arrivals = lock(&self.arrivals);
        let arrival = arrivals.get(key).copied().unwrap_or_default().max(now);
        let wait = (arrival - self.tolerance).since(now);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        arrivals.insert(key.to_owned(), arrival + self.interval);
        Ok(())
    }
}
