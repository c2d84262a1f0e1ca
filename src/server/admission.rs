//! Bounds the connections of all workers, and the memory of peers without a known caller.
//!
//! Every accepted connection is admitted. When all places are taken, another connection is closed for it: first one over which no
//! known caller has ever sent a request, the longest silent one first; then one that is idle; never one with a known
//! caller's request in flight. If every connection has such a request, the new one waits until a place is free.
//!
//! Finding the connections to close takes a look at each one, so a whole batch (one in 128) is closed at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::sleep;

use super::activity::{ConnectionActivity, EvictionClass};
use super::occupancy::{Occupancy, OpenConnection};
use super::timeouts::ConnectionMonitor;
use crate::observe::CloseReason;

/// Most connections that were told to close and have not ended. Each of them has a descriptor beside those of `max`.
pub(super) const SPARE: usize = 64;
/// Pause before the next attempt, while every connection has a request in flight, or those that were told to close have not ended.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// The bounds on connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Most open connections.
    pub(super) connections: usize,
    /// Most bytes that connections without a known caller hold together.
    pub(super) unidentified_bytes: usize,
}

/// Admits the connections of all workers.
#[derive(Debug)]
pub(super) struct Admission {
    occupancy: Arc<Occupancy>,
    bounds: ArcSwap<Bounds>,
    /// The connections of each worker.
    monitors: Mutex<Vec<Weak<ConnectionMonitor>>>,
}

impl Admission {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { occupancy: Arc::default(), bounds: ArcSwap::from_pointee(bounds), monitors: Mutex::default() }
    }

    /// Replaces the bounds; they apply from the next connection on.
    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.bounds.store(Arc::new(bounds));
    }

    /// Returns the most connections that can be open.
    pub(super) fn max_connections(&self) -> usize {
        self.bounds.load().connections
    }

    pub(super) fn occupancy(&self) -> &Arc<Occupancy> {
        &self.occupancy
    }

    /// Adds the connections of a worker.
    pub(super) fn watch(&self, monitor: &Arc<ConnectionMonitor>) {
        let mut monitors = self.monitors();
        monitors.retain(|monitor| monitor.strong_count() > 0);
        monitors.push(Arc::downgrade(monitor));
    }

    /// Waits for a place for a new connection, and closes other connections if all places are taken.
    pub(super) async fn admit(&self) -> OpenConnection {
        loop {
            if let Some(admitted) = self.try_admit() {
                return admitted;
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn try_admit(&self) -> Option<OpenConnection> {
        let max = self.max_connections();
        let admitted = self.occupancy.try_open(max, SPARE);
        if admitted.is_none() && self.make_room() > 0 { self.occupancy.try_open(max, SPARE) } else { admitted }
    }

    /// Tells a batch of connections to close; returns their number.
    pub(super) fn make_room(&self) -> usize {
        let batch = (self.max_connections() / 128).max(1).min(SPARE.saturating_sub(self.occupancy.evicted()));
        if batch == 0 {
            return 0;
        }
        let mut candidates = self.connections();
        let mut ranked: Vec<_> =
            candidates.drain(..).filter_map(|activity| activity.eviction_rank().map(|rank| (rank, activity))).collect();
        if ranked.len() > batch {
            ranked.select_nth_unstable_by_key(batch, |(rank, _)| *rank);
            ranked.truncate(batch);
        }
        let evicted = ranked.iter().filter(|((class, _), activity)| {
            activity.evict(match class {
                EvictionClass::Unidentified | EvictionClass::UnidentifiedWaiting => CloseReason::LimitUnidentified,
                EvictionClass::Idle => CloseReason::LimitIdle,
            })
        });
        evicted.count()
    }

    /// Closes the connections without a known caller that hold most, if all of these hold more than the bound.
    pub(super) fn relieve_memory(&self) {
        let bound = self.bounds.load().unidentified_bytes;
        if self.occupancy.unidentified_bytes() <= bound {
            return;
        }
        let mut holders = self.connections();
        holders.sort_unstable_by_key(|activity| std::cmp::Reverse(activity.footprint().unidentified_bytes()));
        // Some more than needed, since the look at all connections is dear.
        let target = bound - bound / 16;
        for activity in holders.into_iter().filter(|activity| !activity.footprint().known_caller().is_known()) {
            if self.occupancy.unidentified_bytes() <= target {
                break;
            }
            activity.evict(CloseReason::UnidentifiedMemory);
        }
    }

    fn connections(&self) -> Vec<Arc<ConnectionActivity>> {
        let mut all = Vec::new();
        for monitor in self.monitors().iter().filter_map(Weak::upgrade) {
            monitor.collect_open(&mut all);
        }
        all
    }

    fn monitors(&self) -> MutexGuard<'_, Vec<Weak<ConnectionMonitor>>> {
        // No code under the lock can leave the list half changed.
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::time::Instant;

    use super::*;
    use crate::config::ServerConfig;
    use crate::generation::ListenerId;
    use crate::lifecycle::Lifecycle;
    use crate::server::timeouts::Timeouts;

    #[test]
    fn a_connection_that_was_never_polled_makes_no_room() {
        let admission = Admission::new(Bounds { connections: 1, unidentified_bytes: 1 << 20 });
        let lifecycle = Arc::new(Lifecycle::new(jiff::Timestamp::UNIX_EPOCH));
        let timeouts = Timeouts::of(&ServerConfig::default());
        let monitor = Arc::new(ConnectionMonitor::new(timeouts, lifecycle, Arc::clone(admission.occupancy())));
        admission.watch(&monitor);
        let _open = admission.try_admit().expect("a place is free");
        let activity = monitor.add(ListenerId(0), true, Instant::now());
        assert!(admission.try_admit().is_none(), "it may have brought a request");
        activity.set_waker(Waker::noop());
        assert!(admission.try_admit().is_some());
    }
}
