//! The results of the checks of a tenant's org keys.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Refold's answer to the question whether it accepts an org key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyVerdict {
    /// Refold was not asked yet.
    Unasked,
    /// Refold accepted the key, or the answer was unclear.
    NotRefused,
    /// Refold answered 401.
    Refused,
}

/// The last verdict on one key.
#[derive(Debug)]
pub(super) struct LastVerdict(AtomicU8);

/// The state of the checks of one tenant.
#[derive(Debug, Default)]
pub(super) struct KeyChecks {
    /// A request with an injected key was answered 401.
    pub(super) is_wanted: AtomicBool,
    /// Time of the last check, in nanoseconds on the clock; 0 before the first.
    pub(super) last: AtomicU64,
    /// A key was not refused since the tenant exists.
    pub(super) was_ready: AtomicBool,
}

impl LastVerdict {
    pub(super) fn new(verdict: KeyVerdict) -> Self {
        Self(AtomicU8::new(verdict as u8))
    }

    pub(super) fn get(&self) -> KeyVerdict {
        match self.0.load(Ordering::Relaxed) {
            verdict if verdict == KeyVerdict::Refused as u8 => KeyVerdict::Refused,
            verdict if verdict == KeyVerdict::NotRefused as u8 => KeyVerdict::NotRefused,
            _ => KeyVerdict::Unasked,
        }
    }

    /// A store of the same value would still invalidate the cache line of the other workers.
    pub(super) fn set(&self, verdict: KeyVerdict) {
        if self.get() != verdict {
            self.0.store(verdict as u8, Ordering::Relaxed);
        }
    }
}
