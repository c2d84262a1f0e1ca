//! Accepting connections until the listener closes, and then until its queue is empty.
//!
//! The kernel completes a connection before it is accepted here. If a socket were closed while connections wait in its queue,
//! the kernel would reset them, even if another process listens on the same port. So a closing listener first stops new
//! handshakes, gives those under way time to complete, and then serves all of them. (The kernel moves waiting connections to
//! another listener by itself only with `net.ipv4.tcp_migrate_req=1`.)

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::admission::Admission;
use super::occupancy::OpenConnection;
use super::socket::{SocketOwner, drop_new_handshakes};
use crate::log_events;
use crate::request::peer::Peer;

/// Pause in accepting after an error, such as that the process has no file descriptors left: time for connections that were told
/// to close.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// Shortest time between two log lines of a listener about such errors.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Time for a TCP handshake under way to complete: a few round trips.
const HANDSHAKE_TIME: Duration = Duration::from_millis(100);

/// A listening socket.
pub(super) trait Acceptor: Sized + Send + Sync + 'static {
    type Stream: Send + 'static;

    /// Accepts the next connection.
    fn accept_next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Stops new connections from beginning; returns the time after which those that have begun are complete.
    fn stop_handshakes(&self) -> Duration;

    /// Closes the socket; returns the connections from its queue.
    fn close(self) -> io::Result<Vec<Self::Stream>>;
}

impl Acceptor for TcpListener {
    type Stream = TcpStream;

    async fn accept_next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| without_delay(stream))
    }

    fn stop_handshakes(&self) -> Duration {
        stop_tcp_handshakes(self)
    }

    fn close(self) -> io::Result<Vec<TcpStream>> {
        let listener = self.into_std()?;
        let queued = accept_all(|| listener.accept()).filter_map(|(stream, _)| {
            stream.set_nonblocking(true).ok()?;
            TcpStream::from_std(stream).ok().map(without_delay)
        });
        Ok(queued.collect())
    }
}

/// Stops new TCP connections from beginning; returns the time after which those that have begun are complete.
pub(super) fn stop_tcp_handshakes(listener: &impl AsFd) -> Duration {
    if let Err(error) = drop_new_handshakes(listener) {
        // A connection that begins just before the close may be reset.
        tracing::debug!(%error, message = log_events::LISTENER_CLOSE_FAILED);
    }
    HANDSHAKE_TIME
}

/// Returns the other end of a TCP connection.
pub(super) fn tcp_peer(stream: &TcpStream) -> Peer {
    stream.peer_addr().map_or(Peer::Unknown, |address| Peer::at(address.ip()))
}

/// Returns the other end of a connection at a Unix path.
pub(super) fn unix_peer(stream: &UnixStream) -> Peer {
    stream.peer_cred().map_or(Peer::Unknown, |credentials| Peer::LocalUser(credentials.uid()))
}

/// Turns off Nagle's algorithm: responses are written whole, so there is nothing to collect.
pub(super) fn without_delay(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

/// Accepts until the queue is empty or the process has no file descriptors left.
pub(super) fn accept_all<T>(accept: impl Fn() -> io::Result<T>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || {
        loop {
            match accept() {
                Ok(connection) => return Some(connection),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::error!(%error, message = log_events::ACCEPT_FAILED);
                    }
                    return None;
                }
            }
        }
    })
}

/// Admits and serves connections until `close` turns true. The service manager's sockets stay open there, and connections in their
/// queues wait for the next process.
pub(super) async fn accept<A: Acceptor>(
    acceptor: A,
    owner: SocketOwner,
    mut close: watch::Receiver<bool>,
    admission: &Admission,
    serve: impl Fn((A::Stream, OpenConnection)) + Send,
) {
    let mut errors = AcceptErrors::default();
    loop {
        tokio::select! {
            accepted = acceptor.accept_next() => match accepted {
                Ok(stream) => serve((stream, admission.admit().await)),
                Err(error) => errors.recover(&error, admission).await,
            },
            () = async { drop(close.wait_for(|close| *close).await) } => break,
        }
    }
    if owner == SocketOwner::ServiceManager {
        return;
    }
    let complete = Instant::now() + acceptor.stop_handshakes();
    while let Ok(accepted) = timeout_at(complete, acceptor.accept_next()).await {
        match accepted {
            Ok(stream) => serve((stream, admission.admit().await)),
            Err(error) => errors.recover(&error, admission).await,
        }
    }
    match acceptor.close() {
        Ok(queued) => {
            for stream in queued {
                serve((stream, admission.admit().await));
            }
        }
        Err(error) => tracing::error!(%error, message = log_events::ACCEPT_FAILED),
    }
}

/// Recovers from errors of accepting connections.
#[derive(Debug, Default)]
struct AcceptErrors {
    /// Time of the last error in the log.
    logged: Option<Instant>,
}

impl AcceptErrors {
    /// Makes room if the process lacks descriptors or memory, and pauses. Errors that repeat are logged once in a while.
    async fn recover(&mut self, error: &io::Error, admission: &Admission) {
        // The client aborted the connection before it was accepted: that is no error here.
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now - logged >= LOG_INTERVAL) {
            self.logged = Some(now);
            tracing::error!(%error, message = log_events::ACCEPT_FAILED);
        }
        // The connection stays in the queue, so without a pause this would be a busy loop.
        admission.make_room();
        sleep(ERROR_PAUSE).await;
    }
}
