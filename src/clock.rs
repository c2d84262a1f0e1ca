//! Time as a dependency. All ages, rates and expiries use a [`Clock`], so tests move time by hand and do not sleep. Socket
//! timeouts are the exception: they use the runtime's timer.
//!
//! Monotonic time goes on while the machine sleeps (`CLOCK_BOOTTIME`), where the operating system has such a clock: what was
//! an hour old after an hour of sleep is an hour old. The runtime's timers stand still meanwhile, so a sleep of this clock looks
//! at the time at least once a second.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

/// The system's monotonic clock that also counts the time in which the machine is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MONOTONIC: ClockId = ClockId::Boottime;
/// Other systems have no such clock, or their monotonic clock counts that time already.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MONOTONIC: ClockId = ClockId::Monotonic;

/// Longest sleep on the runtime's timer, which does not count the time in which the machine is suspended.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// A monotonic point in time, in nanoseconds since its clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Nanoseconds since the clock was made.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `nanos` nanoseconds after the clock was made.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Time elapsed since `earlier`; zero if that is later than `self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A source of monotonic and wall-clock time. Clones are cheap and share the time.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

#[derive(Clone, Debug)]
enum TimeSource {
    /// The reading of the system's monotonic clock at which the clock was made.
    System(Duration),
    Manual(Arc<ManualTime>),
}

#[derive(Debug)]
struct ManualTime {
    /// The wall-clock time at which no time has elapsed.
    start: watch::Sender<Timestamp>,
    elapsed: watch::Sender<Moment>,
}

/// The present reading of the system's monotonic clock.
fn monotonic() -> Duration {
    let reading = clock_gettime(MONOTONIC);
    // Neither part is negative: the clock starts at zero with the system.
    Duration::new(u64::try_from(reading.tv_sec).unwrap_or(0), u32::try_from(reading.tv_nsec).unwrap_or(0))
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(TimeSource::System(monotonic()))
    }

    /// A clock that starts at `start` and only moves by [`Clock::advance`].
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(TimeSource::Manual(Arc::new(ManualTime {
            start: watch::Sender::new(start),
            elapsed: watch::Sender::new(Moment::default()),
        })))
    }

    /// Advances a manual clock and wakes the sleepers whose time has come. No effect on the system's clock.
    pub fn advance(&self, by: Duration) {
        if let TimeSource::Manual(manual) = &self.0 {
            manual.elapsed.send_modify(|elapsed| *elapsed = *elapsed + by);
        }
    }

    /// Sets the wall clock of a manual clock forward, or back, as an operator or NTP would; monotonic time stays. No effect on
    /// the system's clock.
    pub fn step_wall(&self, by: SignedDuration) {
        if let TimeSource::Manual(manual) = &self.0 {
            manual.start.send_modify(|start| *start = start.saturating_add(by).unwrap_or(*start));
        }
    }

    /// The current monotonic time.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            TimeSource::System(origin) => Moment(nanos(monotonic().saturating_sub(*origin))),
            TimeSource::Manual(manual) => *manual.elapsed.borrow(),
        }
    }

    /// The current wall-clock time, in UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock that all other code takes")]
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            TimeSource::System(_) => Timestamp::now(),
            TimeSource::Manual(manual) => {
                let elapsed = Duration::from_nanos(manual.elapsed.borrow().as_nanos());
                manual.start.borrow().checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Sleeps until the clock reaches `moment`.
    pub async fn sleep_until(&self, moment: Moment) {
        match &self.0 {
            TimeSource::System(_) => loop {
                let left = moment.since(self.now());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_NAP)).await;
            },
            TimeSource::Manual(manual) => {
                // Never an error, since `self` holds the sender.
                let _ = manual.elapsed.subscribe().wait_for(|elapsed| *elapsed >= moment).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_systems_clock_reads_the_boot_time_clock() {
        let clock = Clock::system();
        let TimeSource::System(origin) = clock.0 else { panic!("it is the system's") };
        let boot_time = || {
            let reading = clock_gettime(ClockId::Boottime);
            Duration::new(
                u64::try_from(reading.tv_sec).expect("not negative"),
                u32::try_from(reading.tv_nsec).expect("not negative"),
            )
        };
        let (before, read, after) = (boot_time(), clock.now(), boot_time());
        assert!(before <= origin + read.since(Moment::default()) && origin + read.since(Moment::default()) <= after);
    }

    #[test]
    fn the_wall_clock_can_step_without_monotonic_time() {
        let start = Timestamp::from_second(1_000_000).expect("a time");
        let clock = Clock::manual(start);
        clock.advance(Duration::from_secs(5));
        for (step, seconds) in [(3600, 1_003_605), (-7200, 996_405), (0, 996_405)] {
            clock.step_wall(SignedDuration::from_secs(step));
            assert_eq!(clock.wall().as_second(), seconds);
            assert_eq!(clock.now(), Moment::from_nanos(5_000_000_000));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_ends_by_the_clock_and_not_by_the_runtimes_timer() {
        let clock = Clock::system();
        let end = clock.now() + Duration::from_millis(5);
        // The runtime's paused timer is over at once.
        clock.sleep_until(end).await;
        assert!(clock.now() >= end);
    }
}
