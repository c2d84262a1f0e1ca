//! Time, passed in. Everything that ages, paces or expires asks a [`Clock`], so a test can move time by hand and never
//! sleeps. Socket timeouts are the exception: they belong to the runtime and use its timer.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

/// A point on a clock's monotonic axis, in nanoseconds since that clock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Nanoseconds since the clock was made.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The point `nanos` nanoseconds after the clock was made.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// How long ago `earlier` was; zero if it lies ahead.
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

/// A source of monotonic and of wall-clock time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    start: Timestamp,
    elapsed: watch::Sender<Moment>,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock that all other code takes")]
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands at `start` and moves only by [`Clock::advance`].
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual { start, elapsed: watch::Sender::new(Moment::default()) })))
    }

    /// Moves a manual clock, and wakes who sleeps until then. The machine's clock can't be moved: no effect.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.elapsed.send_modify(|elapsed| *elapsed = *elapsed + by);
        }
    }

    /// The present, on the monotonic axis.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System(origin) => Moment(nanos(origin.elapsed())),
            Source::Manual(manual) => *manual.elapsed.borrow(),
        }
    }

    /// The present, in UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock that all other code takes")]
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::System(_) => Timestamp::now(),
            Source::Manual(manual) => {
                let elapsed = Duration::from_nanos(manual.elapsed.borrow().as_nanos());
                manual.start.checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Waits until the clock has reached `moment`.
    pub async fn sleep_until(&self, moment: Moment) {
        match &self.0 {
            Source::System(_) => tokio::time::sleep(moment.since(self.now())).await,
            Source::Manual(manual) => {
                // The sender lives in `self`, so the wait ends only by time.
                let _ = manual.elapsed.subscribe().wait_for(|elapsed| *elapsed >= moment).await;
            }
        }
    }
}
