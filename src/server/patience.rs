//! How long connections are waited for: a request head that comes in too slowly is answered 408, a connection on which
//! nothing happens is closed, and all of them are told when the worker stops.
//!
//! A timer per request or per connection would cost more than the rest of a cache hit's bookkeeping. Here a connection
//! counts what happens on it, and one watch per worker looks at all the counts from time to time; so a bound is kept to
//! within half of the head's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::error::{ClientError, Reason};
use crate::respond::RequestId;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4), which no HTTP/1.1 answer may be written to.
const HTTP_2: &[u8] = b"PRI ";

/// What a connection is told to do. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Serve.
    Serve,
    /// Answer what is in flight and take no more requests.
    Drain,
    /// Nobody waits any longer: what is read from now on is the end.
    End,
    /// Go at once.
    Drop,
}

impl Order {
    fn of(level: u8) -> Self {
        match level {
            0 => Self::Serve,
            1 => Self::Drain,
            2 => Self::End,
            _ => Self::Drop,
        }
    }
}

/// What happens on one connection. Shared by its socket, its requests and the watch, all on one thread.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests begun, heads begun, answers written to: what counts as something happening.
    events: AtomicU64,
    /// Requests that are being answered.
    in_flight: AtomicU32,
    /// Some of a head was read and its request has not begun.
    in_head: AtomicBool,
    http_2: AtomicBool,
    order: AtomicU8,
    task: AtomicWaker,
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

    fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        self.task.wake();
    }

    pub(super) fn order(&self) -> Order {
        Order::of(self.order.load(Ordering::Acquire))
    }

    /// Has `waker` woken at every new order.
    pub(super) fn on_order(&self, waker: &Waker) {
        self.task.register(waker);
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

/// The watch over a worker's connections.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    connections: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
struct Connection {
    activity: Weak<Activity>,
    /// Events at the last look.
    seen: u64,
    /// How long nothing has happened.
    quiet: Duration,
}

impl Watch {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, connections: Mutex::default() }
    }

    /// Watches over one more connection.
    pub(super) fn add(&self) -> Arc<Activity> {
        let activity = Arc::new(Activity::default());
        let watched = Connection { activity: Arc::downgrade(&activity), seen: 0, quiet: Duration::ZERO };
        self.connections().push(watched);
        activity
    }

    /// Looks at all connections until the runtime ends; from the moment that `stop` turns true they are to drain.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let interval = self.patience.head.min(self.patience.idle) / 2;
        let mut stopping = false;
        loop {
            if stopping {
                tokio::time::sleep(interval).await;
            } else {
                stopping = tokio::time::timeout(interval, stop.wait_for(|stop| *stop)).await.is_ok();
            }
            self.look(if stopping { Order::Drain } else { Order::Serve }, interval);
        }
    }

    fn look(&self, order: Order, step: Duration) {
        self.connections().retain_mut(|connection| {
            let Some(activity) = connection.activity.upgrade() else { return false };
            let events = activity.events.load(Ordering::Relaxed);
            if events != connection.seen || activity.in_flight.load(Ordering::Relaxed) > 0 {
                (connection.seen, connection.quiet) = (events, Duration::ZERO);
            } else {
                connection.quiet += step;
            }
            // In HTTP/2 what is read may be anything; its own pings find a dead peer.
            let in_head = activity.in_head.load(Ordering::Relaxed) && !activity.http_2.load(Ordering::Relaxed);
            let bound = if in_head { self.patience.head } else { self.patience.idle };
            if activity.order() == Order::End {
                // It has had a whole step to say goodbye.
                activity.tell(Order::Drop);
            } else if connection.quiet >= bound {
                activity.tell(Order::End);
            } else if activity.order() < order {
                activity.tell(order);
            }
            true
        });
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A connection that was looked at half can be looked at again.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
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
        if self.activity.order() >= Order::End {
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
