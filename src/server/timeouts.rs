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
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config;
use crate::error::{ClientError, Reason};
use crate::generation::DoorId;
use crate::lifecycle::Lifecycle;
use crate::request::RequestId;

/// The first bytes of an HTTP/2 connection (RFC 9113, 3.4), which no HTTP/1.1 answer may be written to.
const HTTP_2: &[u8] = b"PRI ";

/// Bytes of the largest frame that says nothing of a request: a PING (RFC 9113, 6.7), of which a connection that is open for
/// nothing has one from time to time, and its acknowledgement.
const PING: usize = 17;

/// Longest time that a silent connection which is to close may still send a request.
const LONGEST_LINGER: Duration = Duration::from_secs(5);

/// What a connection is told to do. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Serve.
    Serve,
    /// Answer what comes, each connection with the word that it was the last time.
    Close,
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
            1 => Self::Close,
            2 => Self::Drain,
            3 => Self::End,
            _ => Self::Drop,
        }
    }
}

/// What happens on one connection. Shared by its socket, its requests and the watch, all on one thread: no two of them change
/// a count at once, so none is changed in one step.
#[derive(Debug)]
pub(super) struct Activity {
    lifecycle: Arc<Lifecycle>,
    /// Requests begun, heads begun, answers written to: what counts as something happening.
    events: AtomicU64,
    /// Requests that are being answered.
    in_flight: AtomicU32,
    /// Some of a head was read and its request has not begun.
    in_head: AtomicBool,
    http_2: AtomicBool,
    /// A request has come.
    asked: AtomicBool,
    order: AtomicU8,
    task: AtomicWaker,
}

impl Activity {
    fn new(lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            lifecycle,
            events: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            in_head: AtomicBool::new(false),
            http_2: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            task: AtomicWaker::new(),
        }
    }

    fn event(&self) {
        self.events.store(self.events.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn count_in_flight(&self, change: impl FnOnce(u32) -> u32) {
        self.in_flight.store(change(self.in_flight.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// A request's head is there.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.event();
        self.count_in_flight(|others| others + 1);
        self.in_head.store(false, Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// A request has come, and as HTTP/2.
    pub(super) fn speaks_http_2(&self) -> bool {
        self.http_2.load(Ordering::Relaxed) && self.asked.load(Ordering::Relaxed)
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

impl InFlight {
    /// Whether its answer is to be the last one of its connection.
    pub(super) fn is_the_last(&self) -> bool {
        // As soon as the gateway says that it is about to end, not only when the watch comes to this connection.
        self.0.order() >= Order::Close || self.0.lifecycle.is_draining()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.count_in_flight(|all| all - 1);
        // What was read meanwhile was its body.
        self.0.in_head.store(false, Ordering::Relaxed);
    }
}

/// How long a connection is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    /// How long a silent connection that is to close may still send a request.
    pub(super) linger: Duration,
}

impl Patience {
    /// What the settings say.
    pub(super) fn of(settings: &config::Server) -> Self {
        Self {
            head: settings.header_timeout,
            idle: settings.idle_timeout,
            linger: LONGEST_LINGER.min(settings.drain_timeout / 2),
        }
    }

    /// How often the connections are looked at.
    fn interval(&self) -> Duration {
        self.head.min(self.idle) / 2
    }
}

/// The watch over a worker's connections.
#[derive(Debug)]
pub(super) struct Watch {
    lifecycle: Arc<Lifecycle>,
    state: Mutex<State>,
    /// There is something to look at before it is time.
    woken: Notify,
}

#[derive(Debug)]
struct State {
    patience: Patience,
    connections: Vec<Connection>,
    /// The worker stops.
    closing: bool,
}

#[derive(Debug)]
struct Connection {
    activity: Weak<Activity>,
    door: DoorId,
    /// How long it may still send a request, once it is to close.
    lingers: Option<Duration>,
    /// How long ago it was told that this is the end.
    goodbye: Option<Duration>,
    /// Events at the last look.
    seen: u64,
    /// How long nothing has happened.
    quiet: Duration,
}

impl Watch {
    pub(super) fn new(patience: Patience, lifecycle: Arc<Lifecycle>) -> Self {
        let state = State { patience, connections: Vec::new(), closing: false };
        Self { lifecycle, state: Mutex::new(state), woken: Notify::new() }
    }

    /// Waits so long from now on.
    pub(super) fn set_patience(&self, patience: Patience) {
        self.state().patience = patience;
        self.woken.notify_one();
    }

    /// Watches over one more connection, which came in through a door, perhaps one that is `gone` meanwhile.
    pub(super) fn add(&self, door: DoorId, gone: bool) -> Arc<Activity> {
        let activity = Arc::new(Activity::new(Arc::clone(&self.lifecycle)));
        let mut state = self.state();
        let mut connection = Connection {
            activity: Arc::downgrade(&activity),
            door,
            lingers: None,
            goodbye: None,
            seen: 0,
            quiet: Duration::ZERO,
        };
        if state.closing || gone {
            connection.close(state.patience.linger);
        }
        state.connections.push(connection);
        activity
    }

    /// Lets the connections close that came in through a door, or all. A silent one may send one request more: it may be on
    /// its way already.
    pub(super) fn close(&self, door: Option<DoorId>) {
        let mut state = self.state();
        state.closing |= door.is_none();
        let linger = state.patience.linger;
        let meant = state.connections.iter_mut().filter(|it| door.is_none_or(|door| it.door == door));
        meant.for_each(|connection| connection.close(linger));
        self.woken.notify_one();
    }

    /// Looks at all connections until the runtime ends; from the moment that `stop` turns true they are to close.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut stopping = false;
        let mut last = Instant::now();
        loop {
            let pause = self.state().pause();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.woken.notified() => {}
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    self.close(None);
                }
            }
            let now = Instant::now();
            self.look(now - last);
            last = now;
        }
    }

    fn look(&self, step: Duration) {
        let mut state = self.state();
        let patience = state.patience;
        state.connections.retain_mut(|connection| connection.look(patience, step));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A connection that was looked at half can be looked at again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long until the next look.
    fn pause(&self) -> Duration {
        let lingers = self.connections.iter().filter_map(|it| it.lingers).filter(|left| !left.is_zero());
        lingers.min().map_or(self.patience.interval(), |left| left.min(self.patience.interval()))
    }
}

impl Connection {
    fn close(&mut self, linger: Duration) {
        if let (Some(activity), None) = (self.activity.upgrade(), self.lingers) {
            self.lingers = Some(linger);
            activity.tell(Order::Close);
        }
    }

    /// Tells the connection what it has to be told, a step after the last look; gives whether it is still there.
    fn look(&mut self, patience: Patience, step: Duration) -> bool {
        let Some(activity) = self.activity.upgrade() else { return false };
        let events = activity.events.load(Ordering::Relaxed);
        let busy = activity.in_flight.load(Ordering::Relaxed) > 0;
        if events != self.seen || busy {
            (self.seen, self.quiet) = (events, Duration::ZERO);
        } else {
            self.quiet += step;
        }
        // In HTTP/2 what is read may be anything; its own pings find a dead peer.
        let in_head = activity.in_head.load(Ordering::Relaxed) && !activity.http_2.load(Ordering::Relaxed);
        let bound = if in_head { patience.head } else { patience.idle };
        self.lingers = self.lingers.map(|left| left.saturating_sub(step));
        self.goodbye = self.goodbye.map(|ago| ago + step);
        if let Some(ago) = self.goodbye {
            if ago >= patience.interval() && !busy {
                activity.tell(Order::Drop);
            }
        } else if self.quiet >= bound {
            self.goodbye = Some(Duration::ZERO);
            // HTTP/2 has words for it (GOAWAY), so that nothing is lost which is on its way.
            activity.tell(if activity.speaks_http_2() { Order::Drain } else { Order::End });
        } else if self.lingers.is_some_and(|left| left.is_zero()) && activity.order() < Order::Drain {
            activity.tell(Order::Drain);
        }
        true
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
            let activity = &self.activity;
            if activity.in_flight.load(Ordering::Relaxed) == 0 && !activity.in_head.load(Ordering::Relaxed) {
                activity.in_head.store(true, Ordering::Relaxed);
                activity.event();
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn written(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = result
            && (bytes > PING || !self.activity.http_2.load(Ordering::Relaxed))
        {
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
