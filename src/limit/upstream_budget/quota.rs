//! The rate and burst of an upstream budget, with the reserve that delivery over a network needs.

use std::time::Duration;

use crate::config::UpstreamLimits;

/// The rate and burst of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    interval: Duration,
    tolerated_intervals: u32,
}

impl Quota {
    pub(super) fn new(limits: &UpstreamLimits) -> Self {
        Self {
            interval: Duration::from_secs(1) / limits.per_second.get() * 101 / 100,
            tolerated_intervals: limits.burst.get().saturating_sub(2),
        }
    }

    /// Time between two granted requests at the configured rate, and one per cent more. On the network requests move closer
    /// together, which uses up the burst that the upstream tolerates; the extra time lets that recover.
    pub(super) fn interval(self) -> Duration {
        self.interval
    }

    /// `burst` - 2. A GCRA allows `burst` - 1; one more interval is held in reserve, because requests can reach the upstream
    /// closer together than they left.
    pub(super) fn tolerated_intervals(self) -> u32 {
        self.tolerated_intervals
    }

    /// Time by which a request may be ahead of its theoretical arrival time.
    pub(super) fn tolerance(self) -> Duration {
        self.interval * self.tolerated_intervals
    }
}
