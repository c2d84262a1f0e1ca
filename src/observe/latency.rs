//! How long answers took in the last minute: a histogram of atomics whose buckets are an eighth of an octave wide, so that
//! a quantile is right to within 13 %.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Moment;
use crate::window_counter::{CounterRing, SECOND, unit};

/// A unit of time in which durations are counted together, in nanoseconds.
const SLICE: u64 = 10 * SECOND;
/// Slices of the last minute.
const MINUTE: u32 = 6;
/// The present slice, which is not over, beside them.
const SLICES: usize = 7;
/// The smallest difference that is seen is 2^8 nanoseconds.
const SHIFT: u32 = 8;
/// Up to 2^35 nanoseconds, half a minute; longer ones count as that.
const BUCKETS: usize = 208;

/// Durations of the last minute.
#[derive(Debug)]
pub(super) struct Latencies(Box<[CounterRing<SLICES>; BUCKETS]>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| CounterRing::default())))
    }
}

/// Quantiles of durations, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many durations there were.
    pub count: u64,
    /// Half of them were not longer.
    pub p50: f64,
    /// 99 of 100 were not longer.
    pub p99: f64,
}

impl Latencies {
    /// One more. Part of the hit path.
    pub(super) fn add(&self, now: Moment, duration: Duration) {
        self.0[bucket(duration)].add(unit(now, SLICE));
    }

    /// Of all of them together; `None` if there were none.
    pub(super) fn quantiles<'a>(all: impl Iterator<Item = &'a Self>, now: Moment) -> Option<Quantiles> {
        let slice = unit(now, SLICE);
        let mut counts = [0u64; BUCKETS];
        for latencies in all {
            for (count, bucket) in counts.iter_mut().zip(latencies.0.iter()) {
                *count += bucket.last(MINUTE + 1, slice);
            }
        }
        let count: u64 = counts.iter().sum();
        let below = |part: u64| {
            // The smallest bucket up to which there are so many of 100.
            let wanted = (count * part).div_ceil(100);
            let mut sum = 0;
            let found = counts.iter().position(|count| {
                sum += count;
                sum >= wanted
            });
            middle(found.unwrap_or(BUCKETS - 1))
        };
        (count > 0).then(|| Quantiles { count, p50: below(50), p99: below(99) })
    }
}

/// Eight buckets an octave, and one for each of the first eight units.
fn bucket(duration: Duration) -> usize {
    let units = u64::try_from(duration.as_nanos() >> SHIFT).unwrap_or(u64::MAX);
    if units < 8 {
        return usize::try_from(units).unwrap_or(0);
    }
    let octave = units.ilog2();
    let within = (units >> (octave - 3)) & 7;
    let index = u64::from(octave - 2) * 8 + within;
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// What stands for the durations in a bucket, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a few bits of it count")]
fn middle(bucket: usize) -> f64 {
    let (least, width) = if bucket < 8 {
        (bucket as u64, 1)
    } else {
        let octave = bucket / 8 + 2;
        ((8 + bucket as u64 % 8) << (octave - 3), 1 << (octave - 3))
    };
    let nanos = ((2 * least + width) << SHIFT) as f64 / 2.0;
    nanos / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_within_an_eighth_of_its_buckets_middle() {
        let mut before = 0;
        for nanos in (0..60_000u64).map(|step| step * step * 9) {
            let duration = Duration::from_nanos(nanos);
            let bucket = bucket(duration);
            assert!(bucket >= before, "{nanos}");
            before = bucket;
            let difference = (middle(bucket) * 1000.0 - duration.as_secs_f64() * 1e9).abs();
            assert!(difference <= duration.as_secs_f64() * 1e9 / 8.0 + 256.0, "{nanos}: {bucket}");
        }
        assert_eq!(super::bucket(Duration::from_hours(1)), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_last_minute() {
        let latencies = [Latencies::default(), Latencies::default()];
        let at = |second: u64| Moment::from_nanos(second * SECOND);
        let quantiles = |now| Latencies::quantiles(latencies.iter(), now);
        assert_eq!(quantiles(at(0)), None);
        for number in 0..100u64 {
            let duration = Duration::from_micros(if number < 98 { 40 } else { 9000 });
            latencies[usize::from(number % 2 == 0)].add(at(5), duration);
        }
        let found = quantiles(at(59)).expect("there are some");
        assert_eq!(found.count, 100);
        assert!((found.p50 - 40.0).abs() < 5.0 && (found.p99 - 9000.0).abs() < 1200.0, "{found:?}");
        assert_eq!(quantiles(at(80)), None, "they are over");
    }
}
