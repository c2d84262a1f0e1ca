//! Where a thread counts, or puts its lines: a place of its own, as long as there are enough.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The place of this thread, of so many.
pub(super) fn stripe(of: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is ending takes any.
    NUMBER.try_with(|number| *number).unwrap_or(0) % of
}
