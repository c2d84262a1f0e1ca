//! The number of connections of each worker, and connections that one worker accepts for another.

use super::occupancy::OpenConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

/// Counts the open connections of each worker.
#[derive(Debug)]
pub(super) struct WorkerLoads {
    open: Vec<AtomicUsize>,
    /// The number of assignments so far.
    assigned: AtomicUsize,
}

impl WorkerLoads {
    pub(super) fn new(workers: usize) -> Self {
        Self { open: (0..workers).map(|_| AtomicUsize::new(0)).collect(), assigned: AtomicUsize::new(0) }
    }

    /// Counts a connection that a worker has accepted.
    pub(super) fn count(self: &Arc<Self>, worker: usize) -> CountedConnection {
        self.open[worker].fetch_add(1, Ordering::Relaxed);
        CountedConnection { loads: Arc::clone(self), worker }
    }

    /// Assigns a connection to the worker with the fewest; workers with equally many take turns.
    pub(super) fn assign(self: &Arc<Self>) -> CountedConnection {
        let workers = self.open.len();
        let first = self.assigned.fetch_add(1, Ordering::Relaxed) % workers;
        let in_turn = (0..workers).map(|step| (first + step) % workers);
        let least = in_turn.min_by_key(|worker| self.open[*worker].load(Ordering::Relaxed));
        self.count(least.unwrap_or(first))
    }
}

/// Counts a connection for its worker until it is dropped.
#[derive(Debug)]
pub(super) struct CountedConnection {
    loads: Arc<WorkerLoads>,
    worker: usize,
}

impl CountedConnection {
    /// Returns the index of the worker.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.loads.open[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that no runtime has registered yet.
#[derive(Debug)]
pub(super) enum AcceptedStream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct HandedConnection {
    pub(super) stream: AcceptedStream,
    pub(super) counted: CountedConnection,
    pub(super) admitted: OpenConnection,
}

/// The way to each worker, by the worker's index.
pub(super) type HandOver = Vec<mpsc::UnboundedSender<HandedConnection>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_worker_with_the_fewest() {
        let loads = Arc::new(WorkerLoads::new(3));
        let of = |loads: &WorkerLoads| loads.open.iter().map(|open| open.load(Ordering::Relaxed)).collect::<Vec<_>>();
        // A worker that has accepted five by itself gets none until the others have as many.
        let accepted: Vec<_> = (0..5).map(|_| loads.count(1)).collect();
        let assigned: Vec<_> = (0..10).map(|_| loads.assign()).collect();
        assert_eq!(of(&loads), [5, 5, 5]);
        drop(accepted);
        assert_eq!(loads.assign().worker, 1);
        drop(assigned);
        assert_eq!(of(&loads), [0, 0, 0]);
        // One connection at a time: the workers take turns.
        let workers: Vec<usize> = (0..6).map(|_| loads.assign().worker).collect();
        assert!((0..3).all(|worker| workers.iter().filter(|other| **other == worker).count() == 2), "{workers:?}");
    }
}
