//! The use of each client key and client certificate: the counters of the metrics and, for the status page, requests and 429s of
//! the last minute and the last use.
//!
//! A request costs the hit path one addition, one compare-and-swap, and one store a second. The counts of keys outlive a reload of the
//! configuration, and begin anew with the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;
use crate::series::Counter;
use crate::window_counter::{LazyCounterRing, SECOND, unit};

/// Seconds that the status page counts.
const SECONDS_SHOWN: u32 = 60;
/// Seconds that are kept: a few more, since the second may change during a read.
const SECONDS_KEPT: usize = 64;

/// Number of values of the metrics' label `outcome`.
pub const OUTCOMES: usize = 5;

/// The counters of the metrics for one credential, by outcome. `observe` resolves each at its first request.
pub type OutcomeCounters = [OnceLock<Counter>; OUTCOMES];

/// Counts the requests with one client key or client certificate.
#[derive(Debug, Default)]
pub struct KeyUsage {
    requests: LazyCounterRing<SECONDS_KEPT>,
    limited: LazyCounterRing<SECONDS_KEPT>,
    /// The second of the last request, as [`unit()`] numbers it; 0 if there was none.
    last_second: AtomicU64,
    pub(super) counters: OutcomeCounters,
}

impl KeyUsage {
    /// Counts an answered request. Part of the hit path.
    pub fn record(&self, at: Moment, is_limited: bool) {
        let second = unit(at, SECOND);
        self.requests.add(second);
        if is_limited {
            self.limited.add(second);
        }
        // Most requests find the present second, and write nothing.
        if self.last_second.load(Ordering::Relaxed) < u64::from(second) {
            self.last_second.store(u64::from(second), Ordering::Relaxed);
        }
    }

    /// The requests of the last minute, and those of them that were answered 429.
    pub(super) fn of_last_minute(&self, now: Moment) -> (u64, u64) {
        let present = unit(now, SECOND);
        (self.requests.last(SECONDS_SHOWN, present), self.limited.last(SECONDS_SHOWN, present))
    }

    /// Whole seconds since the last request; `None` if there was none since the process started.
    pub(super) fn seconds_since_use(&self, now: Moment) -> Option<u64> {
        let last = self.last_second.load(Ordering::Relaxed);
        (last > 0).then(|| u64::from(unit(now, SECOND)).saturating_sub(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_use_of_a_key_covers_the_last_minute() {
        let usage = KeyUsage::default();
        let at = |second: u64| Moment::from_nanos(second * SECOND);
        assert_eq!(usage.seconds_since_use(at(9)), None);
        for second in 100..110 {
            usage.record(at(second), second == 109);
        }
        // A late record does not put the last use back.
        usage.record(at(105), false);
        let counts = |second| usage.of_last_minute(at(second));
        assert_eq!(counts(109), (11, 1));
        assert_eq!(usage.seconds_since_use(at(115)), Some(6));
        assert_eq!(counts(240), (0, 0));
        assert_eq!(usage.seconds_since_use(at(240)), Some(131));
    }
}
