//! Locking a mutex of the simulator.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex and ignores that it is poisoned: no panic leaves a value of the simulator half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
