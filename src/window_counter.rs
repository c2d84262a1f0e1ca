//! Counts within a window of time, each in one atomic: what happened in this second, this minute, the last five minutes.
//!
//! A count carries the time that it is about, so nobody has to go round and set old ones to zero: an old one is simply not
//! read, and the next event begins it anew. Times are whole units (seconds, minutes) on a [`Clock`](crate::clock::Clock).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

/// A count and the unit of time that it is about. Part of the hit path: one compare-and-swap an event.
#[derive(Debug, Default)]
pub struct Stamped(AtomicU64);

impl Stamped {
    /// Something happened in this unit of time.
    pub fn add(&self, unit: u32) {
        let next = |word: u64| {
            let (stamp, count) = split(word);
            // An event that comes late must not wipe out what came after it.
            (stamp <= unit).then(|| join(unit, if stamp == unit { count.saturating_add(1) } else { 1 }))
        };
        // Refused only by `next`, and then there is nothing to count.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// How often it happened in this unit of time.
    #[must_use]
    pub fn get(&self, unit: u32) -> u32 {
        let (stamp, count) = split(self.0.load(Ordering::Relaxed));
        if stamp == unit { count } else { 0 }
    }
}

/// Units count from 1, so that a fresh word is about none.
fn split(word: u64) -> (u32, u32) {
    let stamp = u32::try_from(word >> 32).unwrap_or(u32::MAX);
    let count = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (stamp, count)
}

fn join(stamp: u32, count: u32) -> u64 {
    u64::from(stamp) << 32 | u64::from(count)
}

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// The unit of time that a moment is in, from 1; `length` in nanoseconds, a constant, so that nothing is divided.
#[inline]
#[must_use]
pub fn unit(moment: Moment, length: u64) -> u32 {
    u32::try_from(moment.as_nanos() / length).unwrap_or(u32::MAX).saturating_add(1)
}

/// The unit of time so many before the present one; `None` before the clock was made, when nothing happened.
#[must_use]
pub fn ago(units: u32, present: u32) -> Option<u32> {
    present.checked_sub(units).filter(|unit| *unit > 0)
}

/// Events of the last `N` units of time.
#[derive(Debug)]
pub struct Ring<const N: usize>([Stamped; N]);

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Stamped::default()))
    }
}

impl<const N: usize> Ring<N> {
    /// Something happened in this unit of time.
    pub fn add(&self, unit: u32) {
        self.0[index(unit, N)].add(unit);
    }

    /// How often it happened in a unit of time, one of the last `N`.
    #[must_use]
    pub fn at(&self, unit: u32) -> u32 {
        self.0[index(unit, N)].get(unit)
    }

    /// How often it happened in so many units of time, the last of them `unit`.
    #[must_use]
    pub fn last(&self, units: u32, unit: u32) -> u64 {
        (unit.saturating_sub(units)..unit).map(|before| u64::from(self.at(before + 1))).sum()
    }
}

fn index(unit: u32, length: usize) -> usize {
    usize::try_from(unit).unwrap_or(0) % length
}

/// About how often something happened in the last minute: the present minute's count, and of the one before the share that
/// is not over yet. Two words, since there is one for each linked account.
#[derive(Debug, Default)]
pub struct LastMinute([Stamped; 2]);

impl LastMinute {
    /// It happened.
    pub fn add(&self, now: Moment) {
        let minute = unit(now, MINUTE);
        self.0[index(minute, 2)].add(minute);
    }

    /// About how often it has.
    #[must_use]
    pub fn get(&self, now: Moment) -> u64 {
        let minute = unit(now, MINUTE);
        let (present, before) = (self.0[index(minute, 2)].get(minute), self.0[index(minute - 1, 2)].get(minute - 1));
        let left = MINUTE - now.as_nanos() % MINUTE;
        // In milliseconds, so that the product fits.
        u64::from(present) + u64::from(before) * (left / 1_000_000) / (MINUTE / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Moment {
        Moment::from_nanos(number * SECOND)
    }

    #[test]
    fn a_ring_counts_each_unit_and_forgets_those_that_are_over() {
        let ring = Ring::<10>::default();
        for at in [0, 0, 3, 3, 3, 9] {
            ring.add(unit(second(at), SECOND));
        }
        let now = unit(second(9), SECOND);
        assert_eq!((ring.at(1), ring.at(4), ring.at(now)), (2, 3, 1));
        assert_eq!((ring.last(10, now), ring.last(7, now), ring.last(1, now)), (6, 4, 1));
        ring.add(unit(second(10), SECOND));
        assert_eq!((ring.at(1), ring.at(11), ring.last(10, 11)), (0, 1, 5), "its place was taken");
        assert_eq!(ring.last(10, 40), 0);
    }

    #[test]
    fn an_event_that_comes_late_wipes_nothing_out() {
        let count = Stamped::default();
        count.add(11);
        count.add(1);
        assert_eq!((count.get(11), count.get(1)), (1, 0));
    }

    #[test]
    fn nothing_is_lost_when_threads_count_together() {
        let ring = Ring::<4>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4000).for_each(|event| ring.add(1 + event / 1000)));
            }
        });
        assert!((1..=4).all(|unit| ring.at(unit) == 4000));
    }

    #[test]
    fn the_last_minute_slides() {
        let count = LastMinute::default();
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
