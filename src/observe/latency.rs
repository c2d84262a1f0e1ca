//! Latency quantiles of the last minute, from a histogram of atomics. Its buckets are an eighth of an octave wide, so a
//! quantile is exact to within 13 %.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Moment;
use crate::window_counter::{CounterRing, SECOND, unit};

/// Length of a time slice, in nanoseconds. A bucket keeps one count for each slice.
const SLICE: u64 = 10 * SECOND;
/// Complete slices that the quantiles cover: a minute.
const COMPLETE_SLICES: u32 = 6;
/// Slices that are kept: the complete ones and the present one.
const SLICES: usize = 7;
/// Logarithm of the resolution: durations are counted in units of 2^8 nanoseconds.
const RESOLUTION_BITS: u32 = 8;
/// Number of buckets. The last one takes everything from 2^35 nanoseconds, about half a minute.
const BUCKETS: usize = 208;

/// A histogram of the durations of the last minute.
#[derive(Debug)]
pub(super) struct LatencyHistogram(Box<[CounterRing<SLICES>; BUCKETS]>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| CounterRing::default())))
    }
}

/// Quantiles of durations, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// Number of durations.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl LatencyHistogram {
    /// Records one duration. Part of the hit path.
    pub(super) fn add(&self, now: Moment, duration: Duration) {
        self.0[bucket(duration)].add(unit(now, SLICE));
    }

    /// Quantiles over all the histograms together; `None` if they are empty.
    pub(super) fn quantiles<'a>(histograms: impl Iterator<Item = &'a Self>, now: Moment) -> Option<Quantiles> {
        let slice = unit(now, SLICE);
        let mut counts = [0u64; BUCKETS];
        for histogram in histograms {
            for (count, bucket) in counts.iter_mut().zip(histogram.0.iter()) {
                *count += bucket.last(COMPLETE_SLICES + 1, slice);
            }
        }
        let count: u64 = counts.iter().sum();
        let percentile = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut sum = 0;
            let found = counts.iter().position(|count| {
                sum += count;
                sum >= rank
            });
            middle(found.unwrap_or(BUCKETS - 1))
        };
        (count > 0).then(|| Quantiles { count, p50: percentile(50), p99: percentile(99) })
    }
}

/// The bucket of a duration: one for each of the first eight units, then eight for each octave.
fn bucket(duration: Duration) -> usize {
    let units = u64::try_from(duration.as_nanos() >> RESOLUTION_BITS).unwrap_or(u64::MAX);
    if units < 8 {
        return usize::try_from(units).unwrap_or(0);
    }
    let octave = units.ilog2();
    let within = (units >> (octave - 3)) & 7;
    let index = u64::from(octave - 2) * 8 + within;
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The middle of a bucket, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a quantile needs only a few significant bits")]
fn middle(bucket: usize) -> f64 {
    let (least, width) = if bucket < 8 {
        (bucket as u64, 1)
    } else {
        let octave = bucket / 8 + 2;
        ((8 + bucket as u64 % 8) << (octave - 3), 1 << (octave - 3))
    };
    let nanos = ((2 * least + width) << RESOLUTION_BITS) as f64 / 2.0;
    nanos / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_within_an_eighth_of_its_buckets_middle() {
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
    fn quantiles_cover_the_last_minute() {
        let histograms = [LatencyHistogram::default(), LatencyHistogram::default()];
        let at = |second: u64| Moment::from_nanos(second * SECOND);
        let quantiles = |now| LatencyHistogram::quantiles(histograms.iter(), now);
        assert_eq!(quantiles(at(0)), None);
        for number in 0..100u64 {
            let duration = Duration::from_micros(if number < 98 { 40 } else { 9000 });
            histograms[usize::from(number % 2 == 0)].add(at(5), duration);
        }
        let found = quantiles(at(59)).expect("there are some");
        assert_eq!(found.count, 100);
        assert!((found.p50 - 40.0).abs() < 5.0 && (found.p99 - 9000.0).abs() < 1200.0, "{found:?}");
        assert_eq!(quantiles(at(80)), None, "they are over");
    }
}
