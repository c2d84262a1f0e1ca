//! Spreads connections over the workers where all of them share one socket: a Unix path, or a socket that the service manager
//! opened.
//!
//! If each worker accepted from the shared queue, the one that wakes first would take nearly all connections. So one worker
//! accepts for all, and hands each connection to the worker with the fewest open ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::accept::{Acceptor, accept_all, stop_tcp_handshakes, without_delay};
use super::socket::BoundSocket;

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
    fn assign(self: &Arc<Self>) -> CountedConnection {
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
pub(super) struct HandedConnection<S = AcceptedStream> {
    pub(super) stream: S,
    pub(super) counted: CountedConnection,
}

/// The way to each worker, by the worker's index.
pub(super) type HandOver = Vec<mpsc::UnboundedSender<HandedConnection>>;

/// Hands connections to the workers of a listener.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) workers: HandOver,
    pub(super) loads: Arc<WorkerLoads>,
}

impl Spread {
    /// Hands a connection to the worker with the fewest.
    pub(super) fn hand_over(&self, stream: AcceptedStream) {
        let counted = self.loads.assign();
        let worker = counted.worker;
        // Fails only if the worker has panicked; the connection is closed then.
        let _ = self.workers[worker].send(HandedConnection { stream, counted });
    }
}

/// A socket from which one worker accepts for all.
#[derive(Debug)]
pub(super) enum SharedListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl SharedListener {
    /// Registers the socket with the runtime of the current thread.
    pub(super) fn new(socket: BoundSocket) -> io::Result<Self> {
        Ok(match socket {
            BoundSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            BoundSocket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }
}

impl Acceptor for SharedListener {
    type Stream = AcceptedStream;

    async fn accept_next(&self) -> io::Result<AcceptedStream> {
        Ok(match self {
            Self::Tcp(listener) => AcceptedStream::Tcp(without_delay(listener.accept().await?.0).into_std()?),
            Self::Unix(listener) => AcceptedStream::Unix(listener.accept().await?.0.into_std()?),
        })
    }

    fn stop_handshakes(&self) -> Duration {
        match self {
            Self::Tcp(listener) => stop_tcp_handshakes(listener),
            // A Unix socket has no handshake: a connection is in the queue or has not begun.
            Self::Unix(_) => Duration::ZERO,
        }
    }

    fn close(self) -> io::Result<Vec<AcceptedStream>> {
        Ok(match self {
            Self::Tcp(listener) => listener
                .close()?
                .into_iter()
                .filter_map(|stream| stream.into_std().ok())
                .map(AcceptedStream::Tcp)
                .collect(),
            Self::Unix(listener) => {
                let listener = listener.into_std()?;
                let queued = accept_all(|| listener.accept()).filter_map(|(stream, _)| {
                    stream.set_nonblocking(true).ok()?;
                    Some(AcceptedStream::Unix(stream))
                });
                queued.collect()
            }
        })
    }
}

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

    #[tokio::test]
    async fn eight_connections_are_spread_over_two_workers() {
        for (number, kind) in (0..20).map(|number| (number, number % 2)) {
            let path = std::env::temp_dir().join(format!("postern-spread-{}-{number}", std::process::id()));
            let socket = if kind == 0 {
                BoundSocket::Tcp(std::net::TcpListener::bind("127.0.0.1:0").expect("a free port"))
            } else {
                BoundSocket::Unix(std::os::unix::net::UnixListener::bind(&path).expect("a socket"))
            };
            let address = if let BoundSocket::Tcp(socket) = &socket { socket.local_addr().ok() } else { None };
            let clients: Vec<AcceptedStream> = (0..8)
                .map(|_| match address {
                    Some(address) => std::net::TcpStream::connect(address).map(AcceptedStream::Tcp),
                    None => std::os::unix::net::UnixStream::connect(&path).map(AcceptedStream::Unix),
                })
                .collect::<Result<_, _>>()
                .expect("it listens");
            match &socket {
                BoundSocket::Tcp(socket) => socket.set_nonblocking(true),
                BoundSocket::Unix(socket) => socket.set_nonblocking(true),
            }
            .expect("the system allows it");
            let (workers, mut received): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::unbounded_channel()).unzip();
            let spread = Spread { workers, loads: Arc::new(WorkerLoads::new(2)) };
            let listener = SharedListener::new(socket).expect("it is registered");
            for _ in &clients {
                spread.hand_over(listener.accept_next().await.expect("a connection"));
            }
            let handed: Vec<usize> = received.iter_mut().map(|received| received.len()).collect();
            assert_eq!(handed, [4, 4]);
            let _ = std::fs::remove_file(path);
        }
    }
}
