//! How long a connection is waited for: a request head that comes in too slowly is answered 408 and a connection on which
//! nothing happens is closed.
//!
//! A timer per request would cost more than the rest of a cache hit's bookkeeping. Here a connection counts what happens
//! on it, and one timer per connection looks at the count from time to time; so a bound is kept to within half of the head's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{ClientError, Reason};
use crate::respond::RequestId;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4), which no HTTP/1.1 answer may be written to.
const HTTP_2: &[u8] = b"PRI ";

/// What happens on one connection. Shared by its socket, its requests and whoever watches it, all on one thread.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests begun, heads begun, answers written to: what counts as something happening.
    events: AtomicU64,
    /// Requests that are being answered.
    in_flight: AtomicU32,
    /// Some of a head was read and its request has not begun.
    in_head: AtomicBool,
    http_2: AtomicBool,
    /// Nobody waits any longer: what is read from now on is the end.
    over: AtomicBool,
}

impl Activity {
    fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// A request's head is there.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.event();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Ends the connection at its next read.
    fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        // What was read meanwhile was its body.
        self.0.in_head.store(false, Ordering::Relaxed);
    }
}

/// How long a connection is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
}

impl Patience {
    /// Returns when the connection has taken too long; from then on a read of it finds its end.
    pub(super) async fn run_out(self, activity: &Activity) {
        let step = self.head.min(self.idle) / 2;
        let (mut seen, mut quiet) = (0, Duration::ZERO);
        loop {
            tokio::time::sleep(step).await;
            let events = activity.events.load(Ordering::Relaxed);
            if events != seen || activity.in_flight.load(Ordering::Relaxed) > 0 {
                (seen, quiet) = (events, Duration::ZERO);
                continue;
            }
            quiet += step;
            let bound = if activity.in_head.load(Ordering::Relaxed) { self.head } else { self.idle };
            if quiet >= bound {
                return activity.give_up();
            }
        }
    }
}

/// A socket that notes what happens on it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    begun: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, begun: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.over.load(Ordering::Relaxed) {
            let in_head = self.activity.in_head.swap(false, Ordering::Relaxed);
            if in_head && !self.activity.http_2.load(Ordering::Relaxed) {
                // As much as the socket takes at once: whoever is that slow is not waited for again.
                let _ = Pin::new(&mut self.stream).poll_write(cx, &request_timeout());
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if read.is_ready() && !new.is_empty() {
            if !self.begun {
                self.activity.http_2.store(new.starts_with(HTTP_2), Ordering::Relaxed);
                self.begun = true;
            }
            if self.activity.in_flight.load(Ordering::Relaxed) == 0
                && !self.activity.in_head.swap(true, Ordering::Relaxed)
            {
                self.activity.event();
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.activity.event();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The answer to a head that did not come to its end. Written by hand: for the HTTP library there is no request yet.
fn request_timeout() -> Vec<u8> {
    let id = RequestId::new().to_string();
    let error = ClientError::new(Reason::RequestTimeout, "the request head took too long to arrive");
    let body = error.body(&id);
    let mut answer = format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncache-control: no-store\r\nx-request-id: {id}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}
