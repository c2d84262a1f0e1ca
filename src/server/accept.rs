//! Accepting: as long as the listener is open, and then until nobody is left in the queue.
//!
//! A connection is complete for its client before it is accepted here. Were a socket closed with some in its queue they
//! would be reset, also if another process listens on the port by then. So new ones are turned away first, those that have
//! begun get time to become complete, and all of them are served. (The kernel can move them itself, with
//! `net.ipv4.tcp_migrate_req=1`, but does not unless it is told to.)

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::socket::turn_newcomers_away;

use crate::log_events;

/// How long accepting rests when the process has no descriptors left.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that has begun may take to become complete: a few round trips.
const HANDSHAKE: Duration = Duration::from_millis(100);

/// A socket that connections come from.
pub(super) trait Acceptor: Sized + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Lets no connection begin any more; those that have begun are complete after this time.
    fn last_call(&self) -> Duration;

    /// Closes the socket, and gives the connections that were in its queue.
    fn close(self) -> io::Result<Vec<Self::Stream>>;
}

impl Acceptor for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| at_once(stream))
    }

    fn last_call(&self) -> Duration {
        if let Err(error) = turn_newcomers_away(self) {
            // A connection that begins in the last moment may be reset.
            tracing::debug!(%error, message = log_events::LISTENER_CLOSE_FAILED);
        }
        HANDSHAKE
    }

    fn close(self) -> io::Result<Vec<TcpStream>> {
        let listener = self.into_std()?;
        let queued = all_there(|| listener.accept()).filter_map(|(stream, _)| {
            stream.set_nonblocking(true).ok()?;
            TcpStream::from_std(stream).ok().map(at_once)
        });
        Ok(queued.collect())
    }
}

/// Answers are written whole: waiting for more of them only delays.
fn at_once(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    stream
}

impl Acceptor for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }

    fn last_call(&self) -> Duration {
        // There is no handshake: a connection is in the queue or has not begun.
        Duration::ZERO
    }

    fn close(self) -> io::Result<Vec<UnixStream>> {
        let listener = self.into_std()?;
        let queued = all_there(|| listener.accept()).filter_map(|(stream, _)| {
            stream.set_nonblocking(true).ok()?;
            UnixStream::from_std(stream).ok()
        });
        Ok(queued.collect())
    }
}

/// Everybody in the queue; if the process has no descriptors left, those for whom there were some.
fn all_there<T>(accept: impl Fn() -> io::Result<T>) -> impl Iterator<Item = T> {
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

/// Serves what comes until `close` turns true. A socket that is not `ours` stays open elsewhere, and whoever waits in its
/// queue waits for the next process.
pub(super) async fn accept<A: Acceptor>(
    listener: A,
    ours: bool,
    mut close: watch::Receiver<bool>,
    serve: impl Fn(A::Stream) + Send,
) {
    loop {
        tokio::select! {
            accepted = listener.next() => match accepted {
                Ok(stream) => serve(stream),
                Err(error) => rest_after(&error).await,
            },
            () = async { drop(close.wait_for(|close| *close).await) } => break,
        }
    }
    if !ours {
        return;
    }
    let complete = Instant::now() + listener.last_call();
    while let Ok(accepted) = timeout_at(complete, listener.next()).await {
        match accepted {
            Ok(stream) => serve(stream),
            Err(error) => rest_after(&error).await,
        }
    }
    match listener.close() {
        Ok(queued) => queued.into_iter().for_each(serve),
        Err(error) => tracing::error!(%error, message = log_events::ACCEPT_FAILED),
    }
}

/// A connection that was aborted before it was accepted is nobody's error; no descriptors left is, and it takes time to
/// mend.
async fn rest_after(error: &io::Error) {
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::error!(%error, message = log_events::ACCEPT_FAILED);
        sleep(PAUSE).await;
    }
}
