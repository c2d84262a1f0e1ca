//! The state of the cache that the fleet's thread and the workers' threads share: whether what this process holds is current, and the
//! drops that the server could not be told yet.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;

use super::landings::Landings;
use super::log::{Continuity, DroppedEntries, LogEntry, LogEvent, LogFollower, LogPosition, LoggedDrop};
use super::membership::TRUST;
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
#[derive(Clone, Debug, Default)]
pub struct LocalTrust {
    /// The moment until which what is held is current, in nanoseconds.
    current_until: Arc<AtomicU64>,
    /// The moment until which the server counts as connected, in nanoseconds.
    connected_until: Arc<AtomicU64>,
}

impl LocalTrust {
    /// The moment at which what is held has ceased to be known as current; `None` while it is. Part of the hit path: one atomic load.
    #[must_use]
    pub fn lost_at(&self, now: Moment) -> Option<Moment> {
        let until = Moment::from_nanos(self.current_until.load(Ordering::Acquire));
        (now > until).then_some(until)
    }

    /// Returns whether the server has answered lately. It may have, while what is held is not known as current: the log has its own
    /// connection.
    #[must_use]
    pub fn is_connected(&self, now: Moment) -> bool {
        now <= Moment::from_nanos(self.connected_until.load(Ordering::Acquire))
    }
}

/// The shared state.
pub(super) struct CacheState {
    log: Mutex<LogFollower>,
    trust: LocalTrust,
    unsent: Mutex<Unsent>,
    dropper: Mutex<Option<Arc<dyn EntryDropper>>>,
    forgotten: IntCounter,
    /// True once an entry of the log was reported that can't be understood.
    has_reported: AtomicBool,
    pub(super) landings: Arc<Landings>,
}

/// Drops that the server was not told, each with a number. While there are any, nothing is trusted.
#[derive(Debug, Default)]
struct Unsent {
    drops: Vec<(u64, DroppedEntries)>,
    last: u64,
}

impl Unsent {
    /// Keeps a drop under a new number, so that an equal one that is being sent is not taken for it.
    fn keep(&mut self, dropped: &DroppedEntries) {
        if self.drops.len() >= MOST_UNSENT {
            for (_, dropped) in std::mem::take(&mut self.drops) {
                self.replace(DroppedEntries { partition: None, ..dropped });
            }
        }
        self.replace(dropped.clone());
    }

    fn replace(&mut self, dropped: DroppedEntries) {
        self.last += 1;
        match self.drops.iter_mut().find(|(_, kept)| *kept == dropped) {
            Some((number, _)) => *number = self.last,
            None => self.drops.push((self.last, dropped)),
        }
    }
}

impl CacheState {
    pub(super) fn new(forgotten: IntCounter) -> Self {
        Self {
            log: Mutex::default(),
            trust: LocalTrust::default(),
            unsent: Mutex::default(),
            dropper: Mutex::default(),
            forgotten,
            has_reported: AtomicBool::new(false),
            landings: Arc::default(),
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

    /// Records that the server has answered a beat that was sent at a moment.
    pub(super) fn heard(&self, sent: Moment) {
        self.trust.connected_until.store((sent + TRUST).as_nanos(), Ordering::Release);
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

    /// Applies entries of the log. Returns true if there was a drop among them, or an entry that may be one.
    pub(super) fn apply(&self, entries: Vec<LogEntry>) -> bool {
        let mut log = lock(&self.log);
        let mut has_dropped = false;
        for LogEntry { position, after, event } in entries {
            let is_after_gap = match log.entry(position, after) {
                Continuity::Known => continue,
                Continuity::Follows => false,
                Continuity::Gap => true,
            };
            if is_after_gap {
                self.forget();
            }
            match event {
                Some(LogEvent::Dropped(LoggedDrop { dropped, generation })) => {
                    has_dropped = true;
                    self.drop_locally(&dropped, generation);
                }
                Some(LogEvent::Landed { question, outcome }) => self.landings.landed(&question, outcome.into()),
                // Of a later version or of someone else, and may drop entries in a way that this one does not know.
                None => {
                    has_dropped = true;
                    self.report_unknown(position);
                    if !is_after_gap {
                        self.forget();
                    }
                }
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
        unsent.keep(dropped);
        self.trust.current_until.store(0, Ordering::Release);
    }

    /// The drops that the server was not told, with their numbers.
    pub(super) fn unsent(&self) -> Vec<(u64, DroppedEntries)> {
        lock(&self.unsent).drops.clone()
    }

    /// Returns whether the server was told of all drops.
    pub(super) fn has_told_all(&self) -> bool {
        lock(&self.unsent).drops.is_empty()
    }

    /// Records that the server was told of the drop with this number.
    pub(super) fn sent(&self, number: u64) {
        lock(&self.unsent).drops.retain(|(kept, _)| *kept != number);
    }

    fn publish(&self, log: &LogFollower) {
        // Under the lock, so that a drop that is kept meanwhile ends the trust.
        let unsent = lock(&self.unsent);
        if unsent.drops.is_empty() {
            self.trust.current_until.store(log.trusted_until().as_nanos(), Ordering::Release);
        }
    }

    fn report_unknown(&self, position: LogPosition) {
        if !self.has_reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(%position, message = log_events::FLEET_LOG_ENTRY_UNKNOWN);
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

#[cfg(test)]
mod tests;
