//! Work on large bodies, off the workers' threads.
//!
//! A worker serves all of its connections on one thread: while it parses or decodes megabytes, none of them gets an answer. Such
//! work runs on threads of its own, as much at once as there are processors; the rest waits, and with it only the request that
//! needs it.

use std::panic::resume_unwind;
use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Size of the largest body that a worker's thread parses, in bytes.
const MAX_ON_THREAD: usize = 64 << 10;

static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(processors()));

/// Number of processors that this process may use.
#[must_use]
pub fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Returns true if work on a body of this size belongs on a thread of its own.
#[must_use]
pub fn is_heavy(size: usize) -> bool {
    size > MAX_ON_THREAD
}

/// Runs work on a thread of its own. If the future is dropped, work that has begun still runs to its end.
///
/// # Panics
/// If the work panics.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let permit = PERMITS.acquire().await.expect("the semaphore is never closed");
    let result = spawn_blocking(move || {
        // Held by the work, since the future may be dropped first.
        let _permit = permit;
        work()
    });
    result.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn work_runs_on_another_thread() {
        let own = thread::current().id();
        assert_ne!(run(|| thread::current().id()).await, own);
        assert!(!is_heavy(64 << 10) && is_heavy((64 << 10) + 1));
    }

    #[tokio::test]
    async fn no_more_work_runs_at_once_than_there_are_processors() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                (0..100).for_each(|_| thread::yield_now());
                now.fetch_sub(1, Ordering::SeqCst);
            }))
        };
        let all: Vec<_> = (0..50).map(|_| work()).collect();
        for work in all {
            work.await.expect("no panic");
        }
        assert!((1..=processors()).contains(&most.load(Ordering::SeqCst)));
    }
}
