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

/// Longest time that a connection without a request under way stays open once it is to close.
const LONGEST_CLOSE: Duration = Duration::from_secs(5);

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
    /// Requests without a response yet.
    in_flight: AtomicU32,
    /// Requests whose response is not with the socket as a whole, those without one included.
    under_way: AtomicU32,
    /// The socket takes no more data at present.
    write_blocked: AtomicBool,
    /// Some of a head was read and its request has not begun.
    in_head: AtomicBool,
    http_2: AtomicBool,
    /// A request has come.
    asked: AtomicBool,
    order: AtomicU8,
    /// Wakes the connection's task. It stays in place when it is used, so that each order finds it.
    task: Mutex<Option<Waker>>,
}

impl Activity {
    fn new(lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            lifecycle,
            events: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            write_blocked: AtomicBool::new(false),
            in_head: AtomicBool::new(false),
            http_2: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            task: Mutex::new(None),
        }
    }

    fn event(&self) {
        self.events.store(self.events.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn change(count: &AtomicU32, change: impl FnOnce(u32) -> u32) {
        count.store(change(count.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    /// Tells whether a request is without a response.
    fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Tells whether a request was not answered, or some of an answer is not with the socket.
    fn is_answering(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0 || self.write_blocked.load(Ordering::Relaxed)
    }

    /// Tells whether some of an HTTP/1.1 request head was read. What is read of HTTP/2 may be anything; there, pings find a
    /// dead peer.
    fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed) && !self.http_2.load(Ordering::Relaxed)
    }

    /// A request's head is there.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.event();
        Self::change(&self.in_flight, |others| others + 1);
        Self::change(&self.under_way, |others| others + 1);
        self.in_head.store(false, Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        InFlight { activity: Arc::clone(self), responded: false }
    }

    /// A request has come, and as HTTP/2.
    pub(super) fn speaks_http_2(&self) -> bool {
        self.http_2.load(Ordering::Relaxed) && self.asked.load(Ordering::Relaxed)
    }

    fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8
            && let Some(waker) = &*self.task()
        {
            waker.wake_by_ref();
        }
    }

    pub(super) fn order(&self) -> Order {
        Order::of(self.order.load(Ordering::Acquire))
    }

    /// Has `waker` woken at every order from now on.
    pub(super) fn on_order(&self, waker: &Waker) {
        *self.task() = Some(waker.clone());
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        // It is replaced whole.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way: from its head until the last of its answer is with the socket.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    responded: bool,
}

impl InFlight {
    /// Notes that there is a response; what is left is to write it.
    pub(super) fn respond(&mut self) {
        if !std::mem::replace(&mut self.responded, true) {
            Activity::change(&self.activity.in_flight, |all| all - 1);
            // What was read meanwhile was its body.
            self.activity.in_head.store(false, Ordering::Relaxed);
        }
    }

    /// Whether its answer is to be the last one of its connection.
    pub(super) fn is_the_last(&self) -> bool {
        // As soon as the gateway says that it is about to end, not only when the watch comes to this connection.
        self.activity.order() >= Order::Close || self.activity.lifecycle.is_draining()
    }
}

impl Clone for InFlight {
    /// Another holder of the same request, which has its response.
    fn clone(&self) -> Self {
        Activity::change(&self.activity.under_way, |others| others + 1);
        Self { activity: Arc::clone(&self.activity), responded: true }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.respond();
        Activity::change(&self.activity.under_way, |all| all - 1);
    }
}

/// How long a connection is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    /// Time in which a silent connection that is to close may still send a request.
    pub(super) linger: Duration,
    /// Time from then until a connection is dropped whose peer did not take the end of the connection.
    pub(super) goodbye: Duration,
}

impl Patience {
    /// What the settings say.
    pub(super) fn of(settings: &config::Server) -> Self {
        let close = LONGEST_CLOSE.min(settings.drain_timeout / 2);
        let goodbye = close / 10;
        Self { head: settings.header_timeout, idle: settings.idle_timeout, linger: close - goodbye, goodbye }
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
    /// Events at the last look.
    seen: u64,
    /// The last look at which something had happened.
    quiet_since: Instant,
    /// When it was told to close.
    closing_since: Option<Instant>,
    /// When nothing had happened for too long.
    timed_out_since: Option<Instant>,
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
        let now = Instant::now();
        let mut state = self.state();
        let mut connection = Connection {
            activity: Arc::downgrade(&activity),
            door,
            seen: 0,
            quiet_since: now,
            closing_since: None,
            timed_out_since: None,
        };
        if state.closing || gone {
            connection.close(now);
            self.woken.notify_one();
        }
        state.connections.push(connection);
        activity
    }

    /// Lets the connections close that came in through a door, or all. A silent one may send one request more: it may be on
    /// its way already.
    pub(super) fn close(&self, door: Option<DoorId>) {
        let now = Instant::now();
        let mut state = self.state();
        state.closing |= door.is_none();
        let meant = state.connections.iter_mut().filter(|it| door.is_none_or(|door| it.door == door));
        meant.for_each(|connection| connection.close(now));
        self.woken.notify_one();
    }

    /// Looks at all connections until the runtime ends; from the moment that `stop` turns true they are to close.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut stopping = false;
        loop {
            let next = self.state().next_look(Instant::now());
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.woken.notified() => {}
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    self.close(None);
                }
            }
            self.look(Instant::now());
        }
    }

    fn look(&self, now: Instant) {
        let mut state = self.state();
        let patience = state.patience;
        state.connections.retain_mut(|connection| connection.look(patience, now));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A connection that was looked at half can be looked at again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When to look again.
    fn next_look(&self, now: Instant) -> Instant {
        let Patience { linger, goodbye, .. } = self.patience;
        let closing = self.connections.iter().filter_map(|it| it.closing_since);
        let steps = closing.flat_map(|since| [since + linger, since + linger + goodbye]);
        let usual = now + self.patience.interval();
        steps.filter(|step| *step > now).min().map_or(usual, |step| step.min(usual))
    }
}

impl Connection {
    fn close(&mut self, now: Instant) {
        if let (Some(activity), None) = (self.activity.upgrade(), self.closing_since) {
            self.closing_since = Some(now);
            activity.tell(Order::Close);
        }
    }

    /// Tells the connection what it has to be told by now; gives whether it is still there.
    fn look(&mut self, patience: Patience, now: Instant) -> bool {
        let Some(activity) = self.activity.upgrade() else { return false };
        let events = activity.events.load(Ordering::Relaxed);
        if events != self.seen || activity.is_busy() {
            (self.seen, self.quiet_since) = (events, now);
        }
        let bound = if activity.is_in_head() { patience.head } else { patience.idle };
        if self.timed_out_since.is_none() && now - self.quiet_since >= bound {
            self.timed_out_since = Some(now);
        }
        activity.tell(self.order(&activity, patience, now));
        true
    }

    fn order(&self, activity: &Activity, patience: Patience, now: Instant) -> Order {
        let Patience { linger, goodbye, .. } = patience;
        let over = |since: Option<Instant>, time: Duration| since.is_some_and(|since| now - since >= time);
        // An answer under way keeps a connection open for as long as its peer takes some of it from time to time.
        let answering = activity.is_answering();
        let left = over(self.closing_since, linger + goodbye) && !answering;
        let stalled = over(self.timed_out_since, patience.interval())
            && !activity.is_busy()
            && (!answering || now - self.quiet_since >= patience.interval());
        if left || stalled {
            Order::Drop
        } else if self.timed_out_since.is_some() {
            // HTTP/2 has words for it (GOAWAY), so that nothing is lost which is on its way.
            if activity.speaks_http_2() { Order::Drain } else { Order::End }
        } else if over(self.closing_since, linger) {
            // A head that has begun is answered 408.
            if activity.is_in_head() && !answering { Order::End } else { Order::Drain }
        } else if self.closing_since.is_some() {
            Order::Close
        } else {
            Order::Serve
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
        if self.activity.order() >= Order::End {
            let in_head = self.activity.in_head.swap(false, Ordering::Relaxed);
            // Not into the middle of an answer.
            if in_head && !self.activity.http_2.load(Ordering::Relaxed) && !self.activity.is_answering() {
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
        self.activity.write_blocked.store(result.is_pending(), Ordering::Relaxed);
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
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.activity.write_blocked.store(result.is_pending(), Ordering::Relaxed);
        result
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
