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

/// Runs work on a body of this size: at once if it is small, on a thread of its own if not.
pub async fn run_sized<T: Send + 'static>(size: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if is_heavy(size) { run(work).await } else { work() }
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
pub(crate) mod testing {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::Poll;

    use super::spawn_blocking;

    /// Runs a future that waits for nothing but offloaded work. Returns whether there was any, and the output.
    pub(crate) fn offloads<T>(future: impl Future<Output = T>) -> (bool, T) {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            // Holds the only thread for offloaded work.
            let (release, released) = mpsc::channel::<()>();
            drop(spawn_blocking(move || released.recv()));
            let mut future = pin!(future);
            match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
                Poll::Ready(output) => (false, output),
                Poll::Pending => {
                    drop(release);
                    (true, future.await)
                }
            }
        })
    }
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

    #[test]
    fn only_work_on_large_bodies_is_offloaded() {
        for (size, expected) in [(0, false), (64 << 10, false), ((64 << 10) + 1, true), (usize::MAX, true)] {
            assert_eq!(testing::offloads(run_sized(size, || 7)), (expected, 7), "{size} bytes");
        }
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
