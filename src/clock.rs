//! Time as a dependency. All ages, rates and expiries use a [`Clock`], so tests move time by hand and do not sleep. Socket
//! timeouts are the exception: they use the runtime's timer.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

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
    System(Instant),
    Manual(Arc<ManualTime>),
}

#[derive(Debug)]
struct ManualTime {
    start: Timestamp,
    elapsed: watch::Sender<Moment>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock that all other code takes")]
    pub fn system() -> Self {
        Self(TimeSource::System(Instant::now()))
    }

    /// A clock that starts at `start` and only moves by [`Clock::advance`].
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(TimeSource::Manual(Arc::new(ManualTime { start, elapsed: watch::Sender::new(Moment::default()) })))
    }

    /// Advances a manual clock and wakes the sleepers whose time has come. No effect on the system's clock.
    pub fn advance(&self, by: Duration) {
        if let TimeSource::Manual(manual) = &self.0 {
            manual.elapsed.send_modify(|elapsed| *elapsed = *elapsed + by);
        }
    }

    /// The current monotonic time.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            TimeSource::System(origin) => Moment(nanos(origin.elapsed())),
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
                manual.start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Sleeps until the clock reaches `moment`.
    pub async fn sleep_until(&self, moment: Moment) {
        match &self.0 {
            TimeSource::System(_) => tokio::time::sleep(moment.since(self.now())).await,
            TimeSource::Manual(manual) => {
                // Never an error, since `self` holds the sender.
                let _ = manual.elapsed.subscribe().wait_for(|elapsed| *elapsed >= moment).await;
            }
        }
    }
}
