//! Reckons the server's clock between its readings.
//!
//! A reply that holds the server's time bounds the difference between its clock and this process's: the server read its clock
//! after the command was sent and before the reply arrived. Later replies narrow the bounds, and time widens them again since
//! clocks drift. A reading a little outside of them is that of a clock that drifts faster, such as one that NTP slews, and
//! replaces them; one far outside is that of a clock that was set, or of another server.

use std::time::Duration;

use crate::clock::Moment;

/// The clocks differ by at most this much more after a second: 200 ppm.
const DRIFT: f64 = 200e-6;
/// A clock whose reading is further than this outside of the bounds was set, in microseconds.
const STEP: f64 = 10e3;

/// Bounds on the difference between the server's clock and this process's monotonic one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reckoning {
    /// Smallest and largest difference, in microseconds.
    low: f64,
    high: f64,
    /// The last reading.
    at: Moment,
}

impl Reckoning {
    /// The bounds by a first reading: `server`, in microseconds, in the reply to a command that was sent at `sent`.
    pub(super) fn new(server: f64, sent: Moment, received: Moment) -> Self {
        Self { low: server - micros(received), high: server - micros(sent), at: received }
    }

    /// The bounds after one more reading; `None` if the server's clock was set in between.
    #[must_use]
    pub(super) fn updated(self, read: Self) -> Option<Self> {
        let drift = self.drift(read.at);
        let (low, high) = (read.low.max(self.low - drift), read.high.min(self.high + drift));
        if low <= high {
            return Some(Self { low, high, at: read.at });
        }
        (low - high <= STEP).then_some(read)
    }

    /// The most that the clocks can have drifted since the last reading, in microseconds.
    fn drift(self, now: Moment) -> f64 {
        now.since(self.at).as_secs_f64() * DRIFT * 1e6
    }

    /// The earliest time that the server's clock can show at `now`, in microseconds.
    pub(super) fn earliest(self, now: Moment) -> f64 {
        micros(now) + self.low
    }

    /// The latest time that the server's clock can show at `now`, in microseconds, unless it was set.
    pub(super) fn latest(self, now: Moment) -> f64 {
        micros(now) + self.high + self.drift(now)
    }

    /// The likeliest difference, in microseconds.
    pub(super) fn difference(self) -> f64 {
        f64::midpoint(self.low, self.high)
    }
}

/// Microseconds since this process's clock was made.
pub(super) fn micros(moment: Moment) -> f64 {
    moment.since(Moment::default()).as_secs_f64() * 1e6
}

/// A duration in whole microseconds, as scripts take it.
pub(super) fn as_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: u64) -> Moment {
        Moment::from_nanos(micros * 1000)
    }

    proptest! {
        #[test]
        fn the_true_difference_stays_within_the_bounds(
            difference in -1_000_000_000_i64..1_000_000_000,
            replies in proptest::collection::vec((0_u64..200_000, 0_u64..50_000, 0_u64..50_000), 1..30),
        ) {
            let mut now = 2_000_000_000;
            let mut reckoning: Option<Reckoning> = None;
            for (pause, there, back) in replies {
                now += pause;
                let read = i64::try_from(now + there).expect("small") + difference;
                let (sent, received) = (at(now), at(now + there + back));
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let server = read as f64;
                let read = Reckoning::new(server, sent, received);
                let next = reckoning.map_or(Some(read), |old| old.updated(read));
                let next = next.expect("the clock was not set");
                now += there + back;
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let true_time = (i64::try_from(now).expect("small") + difference) as f64;
                prop_assert!(next.earliest(at(now)) <= true_time + 1.0);
                prop_assert!(next.latest(at(now)) >= true_time - 1.0);
                prop_assert!((next.difference() + micros(at(now)) - true_time).abs() <= 50_001.0);
                reckoning = Some(next);
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let before = Reckoning::new(5e9, at(1_000_000), at(1_001_000));
        for (step, is_noticed) in
            [(3600e6, true), (-3600e6, true), (20e3, true), (-20e3, true), (5e3, false), (-5e3, false)]
        {
            let read = Reckoning::new(5e9 + 1e6 + step, at(2_000_000), at(2_001_000));
            assert_eq!(before.updated(read).is_none(), is_noticed, "{step}");
        }
    }

    #[test]
    fn a_clock_that_is_slewed_was_not_set() {
        for slew in [500e-6, -500e-6] {
            let mut reckoning = Reckoning::new(5e9, at(0), at(200));
            for sent in (90_000..100_000_000).step_by(90_000) {
                let read = micros(at(sent + 100)) * (1.0 + slew);
                let read = Reckoning::new(5e9 + read, at(sent), at(sent + 200));
                reckoning = reckoning.updated(read).expect("it was not set");
                assert!((reckoning.difference() - read.difference()).abs() <= 200.0, "{sent}");
            }
        }
    }
}
