//! Counts of the fleet's commands; `observe` gives them to the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of round trips.
pub const ROUND_TRIP_BOUNDS: [Duration; 8] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
];

/// Counts since the process started.
#[derive(Debug, Default)]
pub(super) struct FleetCounters {
    buckets: [AtomicU64; ROUND_TRIP_BOUNDS.len() + 1],
    total_micros: AtomicU64,
    timeouts: AtomicU64,
    script_errors: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

/// A reading of the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Answered commands by round trip: one count per bucket of [`ROUND_TRIP_BOUNDS`], and one for longer ones. Not cumulative.
    pub round_trips: [u64; ROUND_TRIP_BOUNDS.len() + 1],
    /// Sum of the round trips.
    pub round_trip_total: Duration,
    /// Commands without an answer in time.
    pub timeouts: u64,
    /// Commands that a script or the access control list refused.
    pub script_errors: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// Commands that were not sent, since there was no connection or too many commands waited.
    pub refused: u64,
}

impl FleetCounters {
    pub(super) fn answered(&self, round_trip: Duration) {
        let bucket = ROUND_TRIP_BOUNDS.iter().take_while(|bound| **bound < round_trip).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.total_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn timed_out(&self) {
        self.timeouts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn script_failed(&self) {
        self.script_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> FleetCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FleetCounts {
            round_trips: std::array::from_fn(|bucket| read(&self.buckets[bucket])),
            round_trip_total: Duration::from_micros(read(&self.total_micros)),
            timeouts: read(&self.timeouts),
            script_errors: read(&self.script_errors),
            connections: read(&self.connections),
            refused: read(&self.refused),
        }
    }
}
