//! Spreads connections over the workers where all of them share one socket: a Unix path, or a socket that the service manager
//! opened.
//!
//! If each worker accepted from the shared queue, the one that wakes first would take nearly all connections. So one worker
//! accepts for all, and hands each connection to the worker with the fewest open ones.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::accept::{Acceptor, accept_all, stop_tcp_handshakes, without_delay};
use super::occupancy::OpenConnection;
use super::socket::BoundSocket;
use super::worker_loads::{AcceptedStream, HandOver, HandedConnection, WorkerLoads};

/// Hands connections to the workers of a listener.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) workers: HandOver,
    pub(super) loads: Arc<WorkerLoads>,
}

impl Spread {
    /// Hands a connection to the worker with the fewest.
    pub(super) fn hand_over(&self, (stream, admitted): (AcceptedStream, OpenConnection)) {
        let counted = self.loads.assign();
        let worker = counted.worker();
        // Fails only if the worker has panicked; the connection is closed then.
        let _ = self.workers[worker].send(HandedConnection { stream, counted, admitted });
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
    use tokio::sync::mpsc;

    use super::*;

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
            let occupancy = Arc::<crate::server::occupancy::Occupancy>::default();
            let listener = SharedListener::new(socket).expect("it is registered");
            for _ in &clients {
                let admitted = occupancy.try_open(8, 0).expect("there is room");
                spread.hand_over((listener.accept_next().await.expect("a connection"), admitted));
            }
            let handed: Vec<usize> = received.iter_mut().map(|received| received.len()).collect();
            assert_eq!(handed, [4, 4]);
            let _ = std::fs::remove_file(path);
        }
    }
}
