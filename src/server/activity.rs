//! The activity of one connection: counts that its socket and its requests write and the monitor reads, and the drain phase
//! that the monitor writes and the connection reads.
//!
//! Socket, requests and monitor of a connection share one thread, so counts are changed by a load and a store.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::watch;

use super::footprint::Footprint;
use super::frame_budget::{PER_RESPONSE, allowed_by_data};
use super::occupancy::Occupancy;
use super::scanned_heads::ScannedHeads;
use crate::lifecycle::Lifecycle;
use crate::observe::CloseReason;

/// Most requests of HTTP/1.1 that a connection's task begins at one poll. A client that pipelines has the next one ready at once;
/// without a bound each poll answered about ten, and all other connections of the worker waited for the answers of 61 polls, which
/// is tokio's default `event_interval`.
const REQUESTS_IN_A_TURN: u32 = 8;

/// The phases in which a connection comes to its end. Phases only advance; each includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum DrainPhase {
    /// Serves requests.
    Serving,
    /// Answers requests; each answer announces the end of the connection (`Connection: close`, GOAWAY).
    Closing,
    /// Finishes requests in flight and accepts no others.
    Draining,
    /// Reads the end of the input, whatever the peer sends.
    InputEnded,
    /// Drops the connection.
    Dropped,
}

impl DrainPhase {
    fn of(level: u8) -> Self {
        match level {
            0 => Self::Serving,
            1 => Self::Closing,
            2 => Self::Draining,
            3 => Self::InputEnded,
            _ => Self::Dropped,
        }
    }
}

/// The order in which connections close to make room for new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionClass {
    /// No known caller has ever sent a request.
    Unidentified,
    /// The same, but a request waits for its response: Refold may be about to accept a session token.
    UnidentifiedWaiting,
    /// A known caller has sent a request, and all are answered.
    Idle,
}

/// The activity of one connection.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    lifecycle: Arc<Lifecycle>,
    footprint: Footprint,
    /// Request heads begun, requests begun and response writes.
    events: AtomicU64,
    /// Requests without a response yet.
    awaiting_response: AtomicU32,
    /// Requests whose response was not written whole, those without one included.
    in_flight: AtomicU32,
    /// The socket's send buffer is full.
    write_blocked: AtomicBool,
    /// The end of the output was written.
    half_closed: AtomicBool,
    /// Requests whose content was not read to its end.
    reading_content: AtomicU32,
    /// Requests that have begun since the connection's task was last polled.
    begun_in_turn: AtomicU32,
    /// HTTP/1.1 heads that were read and whose requests have not begun.
    heads: ScannedHeads,
    /// The peer has ended its output while a request waited for its response, or for the end of it.
    peer_half_closed: AtomicBool,
    /// Tells requests of `peer_half_closed`.
    half_close: watch::Sender<bool>,
    /// A part of a request head was read; in HTTP/2, bytes that are of no request.
    in_head: AtomicBool,
    http_2: AtomicBool,
    /// At least one request has begun.
    has_had_request: AtomicBool,
    /// The connection's task is to give up its buffers, if it still can.
    rest: AtomicBool,
    /// The connection accepts no further requests: its end has begun.
    ending: AtomicBool,
    phase: AtomicU8,
    /// Wakes the connection's task. Waking leaves the waker in place, so that the next phase finds it too.
    task: Mutex<Option<Waker>>,
}

impl ConnectionActivity {
    pub(super) fn new(lifecycle: Arc<Lifecycle>, occupancy: Arc<Occupancy>) -> Self {
        Self {
            lifecycle,
            footprint: Footprint::new(occupancy),
            events: AtomicU64::new(0),
            awaiting_response: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            write_blocked: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            reading_content: AtomicU32::new(0),
            begun_in_turn: AtomicU32::new(0),
            heads: ScannedHeads::default(),
            peer_half_closed: AtomicBool::new(false),
            half_close: watch::Sender::new(false),
            in_head: AtomicBool::new(false),
            http_2: AtomicBool::new(false),
            has_had_request: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            phase: AtomicU8::new(DrainPhase::Serving as u8),
            task: Mutex::new(None),
        }
    }

    /// Returns the share of the server's bounds that the connection takes.
    pub(super) fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Records bytes that stay in memory until a request takes them: see [`Footprint::hold`]. Part of the hit path.
    pub(super) fn hold(&self, bytes: usize, most_buffered: usize) -> bool {
        self.footprint.hold(bytes, most_buffered, self.in_flight.load(Ordering::Relaxed))
    }

    /// Records HTTP/2 frames without content. If there are too many, the connection is told to drain, and reads nothing more.
    pub(super) fn record_empty_frames(&self, frames: u32) {
        if self.footprint.record_empty_frames(frames) {
            self.advance(DrainPhase::Draining);
        }
    }

    /// Returns the place of the connection in the order in which connections close to make room; `None` if it is not to close:
    /// a known caller's request is in flight, it closes already, or it was never polled. It may have waited in the kernel's queue
    /// for long, and have brought a request.
    pub(super) fn eviction_rank(&self) -> Option<(EvictionClass, u64)> {
        let class = match self.footprint.known_caller().is_known() {
            _ if self.phase() == DrainPhase::Dropped || self.task().is_none() => return None,
            true if self.is_answering() => return None,
            true => EvictionClass::Idle,
            false if self.awaits_response() => EvictionClass::UnidentifiedWaiting,
            false => EvictionClass::Unidentified,
        };
        Some((class, self.footprint.last_tick()))
    }

    /// Closes the connection to make room; returns false if it closes already.
    pub(super) fn evict(&self, reason: CloseReason) -> bool {
        let evicted = self.footprint.evict(reason);
        if evicted {
            self.advance(DrainPhase::Dropped);
        }
        evicted
    }

    /// Counts a sign of life.
    pub(super) fn record_event(&self) {
        self.events.store(self.events().wrapping_add(1), Ordering::Relaxed);
    }

    /// Returns the number of signs of life so far.
    pub(super) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Records the protocol, which the connection's first bytes tell.
    pub(super) fn set_http_2(&self) {
        self.http_2.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_http_2(&self) -> bool {
        self.http_2.load(Ordering::Relaxed)
    }

    /// Records HTTP/2 frames that were read. Outside of a request they may be the head of the next one.
    pub(super) fn record_frames(&self) {
        if !self.awaits_response() && self.reading_content.load(Ordering::Relaxed) == 0 {
            self.set_in_head(true);
        }
    }

    /// Records whether the bytes that were read end within a head. Part of the hit path.
    pub(super) fn set_in_head(&self, in_head: bool) {
        if in_head && !self.in_head.load(Ordering::Relaxed) {
            self.record_event();
            self.footprint.touch_known();
        }
        self.in_head.store(in_head, Ordering::Relaxed);
    }

    /// The HTTP/1.1 heads that were read and whose requests have not begun.
    pub(super) fn heads(&self) -> &ScannedHeads {
        &self.heads
    }

    /// Begins to read the content of a request.
    pub(super) fn begin_content(self: &Arc<Self>) -> UnreadRequest {
        change(&self.reading_content, |others| others + 1);
        UnreadRequest(Arc::clone(self))
    }

    /// Records the end of the peer's output. Returns true if it is to be ignored for now: a request was read whole, and its
    /// peer can still read the response (RFC 9112, 9.6). The connection's task is woken at the end of the response.
    pub(super) fn end_input(&self) -> bool {
        let waits = self.is_answering() && self.reading_content.load(Ordering::Relaxed) == 0 && !self.is_http_2();
        if waits {
            self.peer_half_closed.store(true, Ordering::Relaxed);
            self.half_close.send_if_modified(|half_closed| !std::mem::replace(half_closed, true));
        }
        waits
    }

    /// Becomes true when the peer ends its output while it waits for a response.
    pub(super) fn peer_half_closed(&self) -> watch::Receiver<bool> {
        self.half_close.subscribe()
    }

    /// Records whether the socket accepts more data.
    pub(super) fn set_write_blocked(&self, blocked: bool) {
        let was_blocked = self.write_blocked.load(Ordering::Relaxed);
        self.write_blocked.store(blocked, Ordering::Relaxed);
        if was_blocked && !blocked {
            self.wake_at_end_of_response();
        }
    }

    /// Wakes the connection's task if the end of its input was ignored until now.
    fn wake_at_end_of_response(&self) {
        if self.peer_half_closed.load(Ordering::Relaxed)
            && !self.is_answering()
            && let Some(waker) = &*self.task()
        {
            waker.wake_by_ref();
        }
    }

    /// Records that the end of the output was written.
    pub(super) fn set_half_closed(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
        self.record_event();
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed)
    }

    /// Begins a turn: the connection's task is polled.
    pub(super) fn begin_turn(&self) {
        self.begun_in_turn.store(0, Ordering::Relaxed);
    }

    /// Returns true if the connection's task has begun more requests in its turn than one connection may.
    pub(super) fn exceeds_turn(&self) -> bool {
        self.begun_in_turn.load(Ordering::Relaxed) > REQUESTS_IN_A_TURN
    }

    /// Begins a request: its head was read.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.record_event();
        self.footprint.touch_known();
        change(&self.begun_in_turn, |others| others + 1);
        change(&self.awaiting_response, |others| others + 1);
        change(&self.in_flight, |others| others + 1);
        self.leave_frames();
        self.has_had_request.store(true, Ordering::Relaxed);
        self.footprint.begin_request(self.in_flight.load(Ordering::Relaxed));
        InFlight { activity: Arc::clone(self), responded: false }
    }

    /// Counts the header fields of a request that waits.
    pub(super) fn hold_fields(self: &Arc<Self>, fields: usize) -> HeldFields {
        self.footprint.hold_fields(fields, self.in_flight.load(Ordering::Relaxed));
        HeldFields { activity: Arc::clone(self), fields }
    }

    /// In HTTP/2, ends what may have been a head.
    fn leave_frames(&self) {
        if self.is_http_2() {
            self.in_head.store(false, Ordering::Relaxed);
        }
    }

    /// Returns true if a request has no response yet.
    pub(super) fn awaits_response(&self) -> bool {
        self.awaiting_response.load(Ordering::Relaxed) > 0
    }

    /// Returns true if a request has no response yet, or a response was not written whole.
    pub(super) fn is_answering(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0 || self.write_blocked.load(Ordering::Relaxed)
    }

    /// Returns true if a part of an HTTP/1.1 request head was read. In HTTP/2 the bytes that were read may be any frame, and
    /// pings find a dead peer.
    pub(super) fn is_in_http_1_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed) && !self.is_http_2()
    }

    /// Forgets a request head of which a part was read; returns true if an HTTP/1.1 answer to it can be written.
    pub(super) fn abandon_head(&self) -> bool {
        let answerable = self.is_in_http_1_head() && !self.is_answering() && !self.footprint.is_evicted();
        self.in_head.store(false, Ordering::Relaxed);
        answerable
    }

    /// Has an idle connection give up its buffers until the next request; returns false if it is not idle, or has none.
    pub(super) fn suggest_rest(&self) -> bool {
        let idle = self.can_rest();
        if idle {
            self.rest.store(true, Ordering::Relaxed);
            if let Some(waker) = &*self.task() {
                waker.wake_by_ref();
            }
        }
        idle
    }

    /// Returns true after [`Self::suggest_rest`], until [`Self::takes_rest`]. Part of the hit path.
    pub(super) fn is_to_rest(&self) -> bool {
        self.rest.load(Ordering::Relaxed)
    }

    /// Returns true once after each [`Self::suggest_rest`], if the connection is still idle. Part of the hit path.
    pub(super) fn takes_rest(&self) -> bool {
        if !self.is_to_rest() {
            return false;
        }
        self.rest.store(false, Ordering::Relaxed);
        self.can_rest()
    }

    /// Records that the connection accepts no further requests: what still arrives is none.
    pub(super) fn set_ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// An idle HTTP/1.1 connection has answered a request whole, and has read nothing since.
    fn can_rest(&self) -> bool {
        self.has_had_request.load(Ordering::Relaxed)
            && !self.is_http_2()
            && !self.is_answering()
            && self.reading_content.load(Ordering::Relaxed) == 0
            && !self.in_head.load(Ordering::Relaxed)
            && self.phase() == DrainPhase::Serving
            && !self.ending.load(Ordering::Relaxed)
    }

    /// Returns true if the peer can be sent GOAWAY without losing its first request.
    pub(super) fn takes_goaway(&self) -> bool {
        self.is_http_2() && self.has_had_request.load(Ordering::Relaxed)
    }

    pub(super) fn phase(&self) -> DrainPhase {
        DrainPhase::of(self.phase.load(Ordering::Acquire))
    }

    /// Advances to a phase and wakes the connection; does nothing if the connection is in that phase or a later one.
    pub(super) fn advance(&self, phase: DrainPhase) {
        if self.phase.fetch_max(phase as u8, Ordering::AcqRel) < phase as u8
            && let Some(waker) = &*self.task()
        {
            waker.wake_by_ref();
        }
    }

    /// Wakes `waker` at each new phase. Read the phase after this call: it may have advanced before.
    pub(super) fn set_waker(&self, waker: &Waker) {
        *self.task() = Some(waker.clone());
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        // The value is replaced whole, so a panic leaves a valid one.
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn change(count: &AtomicU32, change: impl FnOnce(u32) -> u32) {
    count.store(change(count.load(Ordering::Relaxed)), Ordering::Relaxed);
}

/// Counts the header fields of a request that waits as memory of its connection, as long as it lives.
#[derive(Debug)]
pub(super) struct HeldFields {
    activity: Arc<ConnectionActivity>,
    fields: usize,
}

impl Drop for HeldFields {
    fn drop(&mut self) {
        let requests = self.activity.in_flight.load(Ordering::Relaxed);
        self.activity.footprint.release_fields(self.fields, requests);
    }
}

/// Counts a request as one with unread content, as long as it lives.
#[derive(Debug)]
pub(super) struct UnreadRequest(Arc<ConnectionActivity>);

impl Drop for UnreadRequest {
    fn drop(&mut self) {
        change(&self.0.reading_content, |all| all - 1);
    }
}

/// Counts a request as in flight, from its head until the last of its response was written.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<ConnectionActivity>,
    responded: bool,
}

impl InFlight {
    /// Records that the request has its response, which is still to be written.
    pub(super) fn record_response(&mut self) {
        self.end_wait();
        // A stream that the peer resets before its response allows none.
        self.activity.footprint.allow_frames(PER_RESPONSE);
    }

    fn end_wait(&mut self) {
        if !std::mem::replace(&mut self.responded, true) {
            change(&self.activity.awaiting_response, |all| all - 1);
            // Bytes read since the head were the request's body.
            self.activity.leave_frames();
            self.activity.footprint.end_head(self.activity.in_flight.load(Ordering::Relaxed));
        }
    }

    /// Records a part of the response's body.
    pub(super) fn record_data(&self, bytes: usize) {
        if self.activity.is_http_2() {
            self.activity.footprint.allow_frames(allowed_by_data(bytes));
        }
    }

    /// Returns true if the response is to be the last one of its connection.
    pub(super) fn is_last(&self) -> bool {
        // The lifecycle changes first; the monitor then takes a moment to reach each connection.
        self.activity.phase() >= DrainPhase::Closing
            || self.activity.lifecycle.is_draining()
            || self.activity.peer_half_closed.load(Ordering::Relaxed)
    }
}

impl Clone for InFlight {
    /// Counts once more for a request that has its response.
    fn clone(&self) -> Self {
        change(&self.activity.in_flight, |others| others + 1);
        Self { activity: Arc::clone(&self.activity), responded: true }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.end_wait();
        change(&self.activity.in_flight, |all| all - 1);
        self.activity.footprint.end_request(self.activity.in_flight.load(Ordering::Relaxed));
        self.activity.wake_at_end_of_response();
    }
}
