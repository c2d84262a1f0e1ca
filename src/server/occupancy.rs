//! Counts that all workers share: the open connections, and the memory that peers hold before a known caller has sent a request
//! over their connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The connections of all workers and the memory of unidentified peers.
#[derive(Debug, Default)]
pub(super) struct Occupancy {
    /// Connections whose sockets are open.
    open: AtomicUsize,
    /// Of these, connections that were told to close to make room.
    evicted: AtomicUsize,
    /// Estimated bytes that connections without a known caller hold.
    unidentified: AtomicUsize,
    /// The clock of the order of silence. It advances with each connection, with each sign of life of one without a known caller,
    /// and with each look of a monitor.
    ticks: AtomicU64,
}

impl Occupancy {
    /// Counts one more connection as open, unless `max` are open and not about to close, or `max + spare` are open.
    pub(super) fn try_open(self: &Arc<Self>, max: usize, spare: usize) -> Option<OpenConnection> {
        let has_room = |open: usize| {
            let staying = open.saturating_sub(self.evicted.load(Ordering::Relaxed));
            (staying < max && open < max.saturating_add(spare)).then_some(open + 1)
        };
        self.open.try_update(Ordering::Relaxed, Ordering::Relaxed, has_room).ok()?;
        Some(OpenConnection { occupancy: Arc::clone(self) })
    }

    /// Returns the number of connections that were told to close and have not ended.
    pub(super) fn evicted(&self) -> usize {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Returns the bytes that connections without a known caller hold.
    pub(super) fn unidentified_bytes(&self) -> usize {
        self.unidentified.load(Ordering::Relaxed)
    }

    pub(super) fn add_evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_evicted(&self) {
        self.evicted.fetch_sub(1, Ordering::Relaxed);
    }

    /// Replaces a connection's share of the unidentified bytes.
    pub(super) fn replace_bytes(&self, before: usize, after: usize) {
        if after > before {
            self.unidentified.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            self.unidentified.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Advances the clock of the order of silence; returns a time that is later than all earlier ones.
    pub(super) fn next_tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the time of the order of silence. Part of the hit path.
    pub(super) fn tick(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
}

/// Counts a connection as open for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenConnection {
    occupancy: Arc<Occupancy>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.occupancy.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evicted_connection_leaves_its_place_before_it_has_ended() {
        let occupancy = Arc::new(Occupancy::default());
        let first = occupancy.try_open(1, 1).expect("there is room");
        assert!(occupancy.try_open(1, 1).is_none());
        occupancy.add_evicted();
        let second = occupancy.try_open(1, 1).expect("the first one is about to end");
        occupancy.add_evicted();
        // Two sockets are open, and there is one spare descriptor.
        assert!(occupancy.try_open(1, 1).is_none());
        drop(first);
        occupancy.remove_evicted();
        assert!(occupancy.try_open(1, 1).is_some());
        drop(second);
    }
}
