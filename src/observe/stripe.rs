//! Stripes: copies of a counter or buffer, of which each thread uses its own, so that threads do not contend.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The index of this thread's stripe among `count`. Threads beyond `count` share stripes.
pub(super) fn stripe_of_thread(count: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    // A thread that is ending has no number left and uses the first stripe.
    NUMBER.try_with(|number| *number).unwrap_or(0) % count
}
