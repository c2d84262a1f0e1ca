//! The state of the cache that the fleet's thread and the workers' threads share: whether what this process holds is current, and the
//! drops that the server could not be told yet.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;

use super::landings::Landings;
use super::log::{Continuity, DroppedEntries, LogEntry, LogEvent, LogFollower, LogPosition, LoggedDrop};
use crate::clock::Moment;
use crate::log_events;

/// Drops that wait for the server one by one; when there are more, all entries of their tenants are dropped instead.
const MOST_UNSENT: usize = 1000;

/// Drops entries that this process holds.
pub trait EntryDropper: Send + Sync {
    /// Drops these entries, and refuses shared ones of an earlier generation from now on.
    fn drop_entries(&self, dropped: &DroppedEntries, generation: u64);
    /// Drops all entries.
    fn drop_everything(&self);
}

/// Tells whether what this process holds is current. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalTrust(Arc<AtomicU64>);

impl LocalTrust {
    /// The moment at which what is held has ceased to be known as current; `None` while it is. Part of the hit path: one atomic load.
    #[must_use]
    pub fn lost_at(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_nanos(self.0.load(Ordering::Acquire));
        (now > until).then_some(until)
    }
}

/// The shared state.
pub(super) struct CacheState {
    log: Mutex<LogFollower>,
    trust: LocalTrust,
    /// Drops that the server was not told. While there are any, nothing is trusted.
    unsent: Mutex<Vec<DroppedEntries>>,
    dropper: Mutex<Option<Arc<dyn EntryDropper>>>,
    forgotten: IntCounter,
    pub(super) landings: Landings,
}

impl CacheState {
    pub(super) fn new(forgotten: IntCounter) -> Self {
        Self {
            log: Mutex::default(),
            trust: LocalTrust(Arc::new(AtomicU64::new(0))),
            unsent: Mutex::default(),
            dropper: Mutex::default(),
            forgotten,
            landings: Landings::default(),
        }
    }

    pub(super) fn trust(&self) -> &LocalTrust {
        &self.trust
    }

    pub(super) fn set_dropper(&self, dropper: Arc<dyn EntryDropper>) {
        *lock(&self.dropper) = Some(dropper);
    }

    /// The last entry of the log that was read; `None` before the first beat is answered.
    pub(super) fn position(&self) -> Option<LogPosition> {
        lock(&self.log).position()
    }

    pub(super) fn another_server(&self) {
        let mut log = lock(&self.log);
        log.another_server();
        self.publish(&log);
    }

    /// Records an answered beat, see [`LogFollower::beat`].
    pub(super) fn beat(&self, epoch: &[u8], end: LogPosition, sent: (Moment, Option<LogPosition>)) {
        let mut log = lock(&self.log);
        if log.beat(epoch, end, sent) {
            self.forget();
        }
        log.settle();
        self.publish(&log);
    }

    /// Applies entries of the log. Returns true if there was a drop among them.
    pub(super) fn apply(&self, entries: Vec<LogEntry>) -> bool {
        let mut log = lock(&self.log);
        let mut has_dropped = false;
        for LogEntry { position, after, event } in entries {
            match log.entry(position, after) {
                Continuity::Known => continue,
                Continuity::Follows => {}
                Continuity::Gap => self.forget(),
            }
            match event {
                Some(LogEvent::Dropped(LoggedDrop { dropped, generation })) => {
                    has_dropped = true;
                    self.drop_locally(&dropped, generation);
                }
                Some(LogEvent::Landed { question, outcome }) => self.landings.landed(&question, outcome.into()),
                // Of a later version, which may drop entries in a way that this one does not know.
                None => self.forget(),
            }
        }
        log.settle();
        self.publish(&log);
        has_dropped
    }

    /// Drops entries of this process. `generation` is the one since the drop; 0 if it is not known.
    pub(super) fn drop_locally(&self, dropped: &DroppedEntries, generation: u64) {
        if let Some(dropper) = &*lock(&self.dropper) {
            dropper.drop_entries(dropped, generation);
        }
    }

    /// Keeps a drop for the time when the server is back. Until then nothing is trusted.
    pub(super) fn keep_unsent(&self, dropped: &DroppedEntries) {
        let mut unsent = lock(&self.unsent);
        if unsent.len() >= MOST_UNSENT {
            unsent.iter_mut().for_each(|dropped| dropped.partition = None);
            unsent.sort_unstable_by(|one, other| one.tenant.cmp(&other.tenant));
            unsent.dedup();
        }
        if !unsent.contains(dropped) {
            unsent.push(dropped.clone());
        }
        self.trust.0.store(0, Ordering::Release);
    }

    /// The drops that the server was not told.
    pub(super) fn unsent(&self) -> Vec<DroppedEntries> {
        lock(&self.unsent).clone()
    }

    /// Records that the server was told of a drop.
    pub(super) fn sent(&self, dropped: &DroppedEntries) {
        lock(&self.unsent).retain(|kept| kept != dropped);
    }

    fn publish(&self, log: &LogFollower) {
        // Under the lock, so that a drop that is kept meanwhile ends the trust.
        let unsent = lock(&self.unsent);
        if unsent.is_empty() {
            self.trust.0.store(log.trusted_until().as_nanos(), Ordering::Release);
        }
    }

    fn forget(&self) {
        tracing::info!(message = log_events::FLEET_CACHE_FORGOTTEN);
        self.forgotten.inc();
        if let Some(dropper) = &*lock(&self.dropper) {
            dropper.drop_everything();
        }
    }
}

impl fmt::Debug for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheState").field("log", &self.log).field("trust", &self.trust).finish_non_exhaustive()
    }
}

/// A panic under one of these locks leaves a value that is still valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
