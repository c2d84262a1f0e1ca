//! Where the process stands: whether it is about to end, and how its reloads went. The server writes it; whoever tells
//! others (readiness, metrics, a status page) reads it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// The state of one server.
#[derive(Debug)]
pub struct Lifecycle {
    draining: AtomicBool,
    reloads: Mutex<Reloads>,
}

/// How the reloads of the configuration went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloads {
    /// Configurations that were taken after the first one.
    pub succeeded: u64,
    /// Configurations that were refused.
    pub refused: u64,
    /// When the one that is served was taken.
    pub last_success: Timestamp,
    /// Why the last one was refused: file, line, column and what is wrong, never a secret. `None` if it was taken.
    pub last_refusal: Option<String>,
}

impl Reloads {
    /// Whether what is served is what was last asked for.
    #[must_use]
    pub fn last_succeeded(&self) -> bool {
        self.last_refusal.is_none()
    }
}

impl Lifecycle {
    /// A server that begins to serve.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let reloads = Reloads { succeeded: 0, refused: 0, last_success: now, last_refusal: None };
        Self { draining: AtomicBool::new(false), reloads: Mutex::new(reloads) }
    }

    /// It was told to end: it is not ready for more, though it answers what still comes.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// How the reloads went.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.lock().clone()
    }

    /// It ends.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// A configuration was taken.
    pub fn reloaded(&self, now: Timestamp) {
        let mut reloads = self.lock();
        reloads.succeeded += 1;
        reloads.last_success = now;
        reloads.last_refusal = None;
    }

    /// A configuration was refused.
    pub fn refused(&self, why: String) {
        let mut reloads = self.lock();
        reloads.refused += 1;
        reloads.last_refusal = Some(why);
    }

    fn lock(&self) -> MutexGuard<'_, Reloads> {
        // Nothing that can panic runs under the lock.
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
