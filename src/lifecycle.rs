//! The lifecycle of the server: whether it drains, and the outcomes of its reloads. The server writes it; readiness, metrics
//! and the status page read it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// The lifecycle of one server.
#[derive(Debug)]
pub struct Lifecycle {
    draining: AtomicBool,
    reloads: Mutex<Reloads>,
}

/// The outcomes of configuration reloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloads {
    /// Number of reloads that put a new configuration in use; the first configuration is not counted.
    pub succeeded: u64,
    /// Number of reloads that were refused.
    pub refused: u64,
    /// Time at which the active configuration came into use.
    pub last_success: Timestamp,
    /// The error of the last reload: file, line, column and reason, never a secret. `None` if it succeeded.
    pub last_refusal: Option<String>,
}

impl Reloads {
    /// Returns true if the newest configuration is in use.
    #[must_use]
    pub fn last_succeeded(&self) -> bool {
        self.last_refusal.is_none()
    }
}

impl Lifecycle {
    /// Starts the lifecycle of a server that serves its first configuration since `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let reloads = Reloads { succeeded: 0, refused: 0, last_success: now, last_refusal: None };
        Self { draining: AtomicBool::new(false), reloads: Mutex::new(reloads) }
    }

    /// Returns true once the server is to end: it is no longer ready, though it answers requests that still arrive.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns the outcomes of reloads so far.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.lock().clone()
    }

    /// Records that the server drains.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Records a reload that succeeded.
    pub fn reloaded(&self, now: Timestamp) {
        let mut reloads = self.lock();
        reloads.succeeded += 1;
        reloads.last_success = now;
        reloads.last_refusal = None;
    }

    /// Records a reload that was refused, with its error.
    pub fn refused(&self, error: String) {
        let mut reloads = self.lock();
        reloads.refused += 1;
        reloads.last_refusal = Some(error);
    }

    fn lock(&self) -> MutexGuard<'_, Reloads> {
        // No code under the lock can panic.
        self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
