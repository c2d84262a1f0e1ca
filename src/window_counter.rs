//! Counts of events in windows of time: one second, one minute, the last five minutes. Each count is one atomic.
//!
//! A count carries the unit of time (second, minute) that it belongs to. So nothing has to reset old counts: a reader ignores
//! a count of another unit, and the next event replaces it. Units are numbered from 1 on a [`Clock`](crate::clock::Clock), so
//! that a counter that has never counted belongs to none.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// Returns the number of the unit of time that contains `moment`, from 1. `length` is in nanoseconds; the compiler turns the
/// division by a constant into a multiplication.
#[inline]
#[must_use]
pub fn unit(moment: Moment, length: u64) -> u32 {
    u32::try_from(moment.as_nanos() / length).unwrap_or(u32::MAX).saturating_add(1)
}

/// Returns the unit of time that lies `units` before `present`; `None` if the clock did not exist then.
#[must_use]
pub fn ago(units: u32, present: u32) -> Option<u32> {
    present.checked_sub(units).filter(|unit| *unit > 0)
}

/// Counts the events of one unit of time, and starts anew with the first event of a later one. Part of the hit path: one
/// compare-and-swap per event.
#[derive(Debug, Default)]
struct UnitCounter(AtomicU64);

impl UnitCounter {
    /// Counts one event.
    fn add(&self, unit: u32) {
        let next = |word: u64| {
            let (counted, count) = split(word);
            // A late event must not erase the count of a later unit.
            (counted <= unit).then(|| join(unit, if counted == unit { count.saturating_add(1) } else { 1 }))
        };
        // An error means that `next` has skipped a late event, which is not counted.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Returns the number of events in `unit`.
    fn get(&self, unit: u32) -> u32 {
        let (counted, count) = split(self.0.load(Ordering::Relaxed));
        if counted == unit { count } else { 0 }
    }
}

/// Splits a word into the unit of time and its count.
fn split(word: u64) -> (u32, u32) {
    let unit = u32::try_from(word >> 32).unwrap_or(u32::MAX);
    let count = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (unit, count)
}

fn join(unit: u32, count: u32) -> u64 {
    u64::from(unit) << 32 | u64::from(count)
}

/// Counts the events of each of the last `N` units of time.
#[derive(Debug)]
pub struct CounterRing<const N: usize>([UnitCounter; N]);

impl<const N: usize> Default for CounterRing<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| UnitCounter::default()))
    }
}

impl<const N: usize> CounterRing<N> {
    /// Counts one event in `unit`.
    pub fn add(&self, unit: u32) {
        self.0[index(unit, N)].add(unit);
    }

    /// Returns the number of events in `unit`; 0 if it is older than the last `N`.
    #[must_use]
    pub fn at(&self, unit: u32) -> u32 {
        self.0[index(unit, N)].get(unit)
    }

    /// Returns the number of events in the last `units` units of time up to and with `unit`.
    #[must_use]
    pub fn last(&self, units: u32, unit: u32) -> u64 {
        (unit.saturating_sub(units)..unit).map(|before| u64::from(self.at(before + 1))).sum()
    }
}

/// A [`CounterRing`] that takes no memory before its first event.
#[derive(Debug, Default)]
pub struct LazyCounterRing<const N: usize>(OnceLock<Box<CounterRing<N>>>);

impl<const N: usize> LazyCounterRing<N> {
    /// Counts one event in `unit`.
    pub fn add(&self, unit: u32) {
        self.0.get_or_init(Box::default).add(unit);
    }

    /// Returns the number of events in `unit`; 0 if it is older than the last `N`.
    #[must_use]
    pub fn at(&self, unit: u32) -> u32 {
        self.0.get().map_or(0, |ring| ring.at(unit))
    }

    /// Returns the number of events in the last `units` units of time up to and with `unit`.
    #[must_use]
    pub fn last(&self, units: u32, unit: u32) -> u64 {
        self.0.get().map_or(0, |ring| ring.last(units, unit))
    }
}

fn index(unit: u32, length: usize) -> usize {
    usize::try_from(unit).unwrap_or(0) % length
}

/// Counts the events of the last minute, approximately: the count of the present minute, and of the previous minute's count
/// the share that lies within the last 60 seconds. Only two words, since every linked account has one.
#[derive(Debug, Default)]
pub struct LastMinuteCounter([UnitCounter; 2]);

impl LastMinuteCounter {
    /// Counts one event at `now`.
    pub fn add(&self, now: Moment) {
        let minute = unit(now, MINUTE);
        self.0[index(minute, 2)].add(minute);
    }

    /// Returns the approximate number of events in the minute before `now`.
    #[must_use]
    pub fn get(&self, now: Moment) -> u64 {
        let minute = unit(now, MINUTE);
        let (present, previous) = (self.0[index(minute, 2)].get(minute), self.0[index(minute - 1, 2)].get(minute - 1));
        let left = MINUTE - now.as_nanos() % MINUTE;
        // In milliseconds, so that the product fits.
        u64::from(present) + u64::from(previous) * (left / 1_000_000) / (MINUTE / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Moment {
        Moment::from_nanos(number * SECOND)
    }

    #[test]
    fn a_ring_counts_each_unit_and_drops_old_ones() {
        let ring = CounterRing::<10>::default();
        for at in [0, 0, 3, 3, 3, 9] {
            ring.add(unit(second(at), SECOND));
        }
        let now = unit(second(9), SECOND);
        assert_eq!((ring.at(1), ring.at(4), ring.at(now)), (2, 3, 1));
        assert_eq!((ring.last(10, now), ring.last(7, now), ring.last(1, now)), (6, 4, 1));
        ring.add(unit(second(10), SECOND));
        assert_eq!((ring.at(1), ring.at(11), ring.last(10, 11)), (0, 1, 5), "unit 11 replaces unit 1");
        assert_eq!(ring.last(10, 40), 0);
    }

    #[test]
    fn a_lazy_ring_counts_like_another() {
        let (ring, lazy) = (CounterRing::<4>::default(), LazyCounterRing::<4>::default());
        assert_eq!((lazy.at(1), lazy.last(4, 4)), (0, 0));
        for unit in [1, 1, 3, 6] {
            ring.add(unit);
            lazy.add(unit);
        }
        assert_eq!((lazy.at(3), lazy.last(4, 6)), (ring.at(3), ring.last(4, 6)));
    }

    #[test]
    fn a_late_event_erases_no_later_count() {
        let count = UnitCounter::default();
        count.add(11);
        count.add(1);
        assert_eq!((count.get(11), count.get(1)), (1, 0));
    }

    #[test]
    fn no_event_is_lost_when_threads_count_together() {
        let ring = CounterRing::<4>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4000).for_each(|event| ring.add(1 + event / 1000)));
            }
        });
        assert!((1..=4).all(|unit| ring.at(unit) == 4000));
    }

    #[test]
    fn the_last_minute_slides() {
        let count = LastMinuteCounter::default();
        (0..60).for_each(|_| count.add(second(30)));
        assert_eq!(count.get(second(59)), 60);
        assert_eq!(count.get(second(60)), 60);
        assert_eq!(count.get(second(90)), 30);
        assert_eq!(count.get(second(119)), 1);
        assert_eq!(count.get(second(120)), 0);
        count.add(second(121));
        assert_eq!(count.get(second(121)), 1);
    }
}
