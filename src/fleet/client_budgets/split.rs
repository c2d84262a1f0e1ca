//! The parts of a client budget in a fleet: what the server grants from, and what each replica may hold.

use std::time::Duration;

use crate::config::Rate;

/// The part of the burst that all replicas' leases together have: a third. More of it would mean fewer round trips, less of it
/// that one replica alone can grant more of the burst at once.
const LEASED_PART: u32 = 3;
/// The server's interval is this much longer than the rate says, since clocks differ.
const CLOCK_MARGIN: f64 = 1.001;

/// How a budget is divided.
///
/// `common + replicas * lease + in flight <= burst`, so the fleet stays within burst + rate * w in every window w: what is
/// consumed in a window was granted by the server in it, or a moment before (it was in flight), or was held by a replica when
/// the window began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The rate that the budget grants.
    pub rate: Rate,
    /// The replicas among which it is divided.
    pub replicas: u32,
    /// The burst of the server's bucket.
    pub common: u32,
    /// Most requests that a replica holds in advance; 0 if the burst is too small to divide.
    pub lease: u32,
}

impl Split {
    /// Divides a budget among `replicas`; what the server grants is used within `delivery`, or not at all.
    #[must_use]
    pub fn new(rate: Rate, replicas: u32, delivery: Duration) -> Self {
        let (burst, replicas) = (rate.burst.get(), replicas.max(1));
        let in_flight = u128::from(rate.per_second.get()) * delivery.as_nanos();
        let in_flight = u32::try_from(in_flight.div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
        let free = burst.saturating_sub(in_flight);
        let lease = free / LEASED_PART / replicas;
        // Without leases, a replica that is alone has time slots, of which a window can touch one more.
        let reserved = if lease == 0 { 1 } else { lease * replicas };
        // A budget always grants something: one whose whole burst is in flight may grant one request more.
        Self { rate, replicas, common: free.saturating_sub(reserved).max(1), lease }
    }

    /// The interval between two requests at the rate.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate.per_second.get()
    }

    /// The interval on the server, in microseconds.
    #[must_use]
    pub fn server_interval(&self) -> f64 {
        1e6 / f64::from(self.rate.per_second.get()) * CLOCK_MARGIN
    }

    /// Most requests that one replica can grant at once.
    #[must_use]
    pub fn most_at_once(&self) -> u32 {
        self.common.saturating_add(self.lease)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn split(per_second: u32, burst: u32, replicas: u32) -> (u32, u32) {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        let rate = Rate { per_second: number(per_second), burst: number(burst) };
        let split = Split::new(rate, replicas, Duration::from_millis(50));
        (split.common, split.lease)
    }

    #[test]
    fn a_budget_is_divided_into_leases_and_what_the_server_keeps() {
        assert_eq!(split(50, 100, 2), (65, 16));
        assert_eq!(split(50, 100, 4), (65, 8));
        assert_eq!(split(50, 100, 8), (65, 4));
        assert_eq!(split(50, 100, 64), (96, 0), "too small to divide");
        assert_eq!(split(1, 5, 4), (3, 0));
        assert_eq!(split(1, 1, 4), (1, 0));
        assert_eq!(split(1000, 1, 4), (1, 0));
    }
}
