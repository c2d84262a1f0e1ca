//! The activity of one connection: counts that its socket and its requests write and the monitor reads, and the drain phase
//! that the monitor writes and the connection reads.
//!
//! Socket, requests and monitor of a connection share one thread, so counts are changed by a load and a store.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::frame_budget::{self, PER_RESPONSE, allowed_by_data};
use super::occupancy::Occupancy;
use crate::gateway::KnownCaller;
use crate::lifecycle::Lifecycle;
use crate::observe::CloseReason;

/// Estimated memory of a request under way over a connection without a known caller, beside the bytes of its head: the task
/// of an HTTP/2 stream, and the response.
const REQUEST_MEMORY: usize = 4 << 10;

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
    occupancy: Arc<Occupancy>,
    known_caller: KnownCaller,
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
    /// A part of a request head was read and its request has not begun.
    in_head: AtomicBool,
    http_2: AtomicBool,
    /// At least one request has begun.
    has_had_request: AtomicBool,
    phase: AtomicU8,
    /// The [`CloseReason`], 0 if there is none.
    close_reason: AtomicU8,
    /// The connection was told to close to make room.
    evicted: AtomicBool,
    /// The tick of the last sign of life; kept exactly until a known caller sends a request, and by the monitor after that.
    last_tick: AtomicU64,
    /// HTTP/2 frames without content that the peer may still send.
    frames_left: AtomicU32,
    /// The peer has sent too many of them.
    flooded: AtomicBool,
    /// Bytes read since the last response, and the most there have been.
    head_bytes: AtomicUsize,
    most_head_bytes: AtomicUsize,
    /// Estimated bytes that the connection holds and [`Occupancy`] counts; 0 once there is a known caller.
    unidentified_bytes: AtomicUsize,
    /// Wakes the connection's task. Waking leaves the waker in place, so that the next phase finds it too.
    task: Mutex<Option<Waker>>,
}

impl ConnectionActivity {
    pub(super) fn new(lifecycle: Arc<Lifecycle>, occupancy: Arc<Occupancy>) -> Self {
        Self {
            lifecycle,
            known_caller: KnownCaller::default(),
            last_tick: AtomicU64::new(occupancy.next_tick()),
            occupancy,
            events: AtomicU64::new(0),
            awaiting_response: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            write_blocked: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            in_head: AtomicBool::new(false),
            http_2: AtomicBool::new(false),
            has_had_request: AtomicBool::new(false),
            phase: AtomicU8::new(DrainPhase::Serving as u8),
            close_reason: AtomicU8::new(0),
            evicted: AtomicBool::new(false),
            frames_left: AtomicU32::new(frame_budget::BURST),
            flooded: AtomicBool::new(false),
            head_bytes: AtomicUsize::new(0),
            most_head_bytes: AtomicUsize::new(0),
            unidentified_bytes: AtomicUsize::new(0),
            task: Mutex::new(None),
        }
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
    pub(super) fn set_http_2(&self, http_2: bool) {
        self.http_2.store(http_2, Ordering::Relaxed);
    }

    pub(super) fn is_http_2(&self) -> bool {
        self.http_2.load(Ordering::Relaxed)
    }

    /// Records bytes that were read. Outside of a request they begin the head of the next one. Returns as
    /// [`ConnectionActivity::hold`] does.
    pub(super) fn record_read(&self, bytes: usize, most_buffered: usize) -> bool {
        if !self.awaits_response() && !self.in_head.load(Ordering::Relaxed) {
            self.in_head.store(true, Ordering::Relaxed);
            self.record_event();
        }
        self.hold(bytes, most_buffered)
    }

    /// Records bytes that stay in memory until a request takes them, `most_buffered` of them at most. Returns true if peers
    /// without a known caller, this one among them, hold more memory than before.
    pub(super) fn hold(&self, bytes: usize, most_buffered: usize) -> bool {
        if self.known_caller.is_known() {
            return false;
        }
        self.touch();
        let head = (self.head_bytes.load(Ordering::Relaxed) + bytes).min(most_buffered);
        self.head_bytes.store(head, Ordering::Relaxed);
        if head <= self.most_head_bytes.load(Ordering::Relaxed) {
            return false;
        }
        // A buffer keeps its size when its content is parsed.
        self.most_head_bytes.store(head, Ordering::Relaxed);
        self.count_memory();
        true
    }

    /// Forgets the bytes of the TLS handshake, which is complete.
    pub(super) fn complete_handshake(&self) {
        self.head_bytes.store(0, Ordering::Relaxed);
        self.most_head_bytes.store(0, Ordering::Relaxed);
        self.count_memory();
    }

    /// Records HTTP/2 frames without content. If there are too many, the connection is told to drain, and reads nothing more.
    pub(super) fn record_empty_frames(&self, frames: u32) {
        if let Some(left) = self.frames_left.load(Ordering::Relaxed).checked_sub(frames) {
            self.frames_left.store(left, Ordering::Relaxed);
        } else {
            self.flooded.store(true, Ordering::Relaxed);
            self.set_close_reason(CloseReason::FrameFlood);
            self.advance(DrainPhase::Draining);
        }
    }

    /// Allows more HTTP/2 frames without content.
    fn allow_frames(&self, frames: u32) {
        let left = self.frames_left.load(Ordering::Relaxed).saturating_add(frames);
        self.frames_left.store(left.min(frame_budget::MOST), Ordering::Relaxed);
    }

    /// Allows at least as many frames without content as a new connection may send.
    pub(super) fn refill_frames(&self) {
        let left = self.frames_left.load(Ordering::Relaxed);
        self.frames_left.store(left.max(frame_budget::BURST), Ordering::Relaxed);
    }

    /// Returns whether the peer has sent too many HTTP/2 frames without content.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Records a sign of life for the order of silence.
    pub(super) fn touch(&self) {
        self.last_tick.store(self.occupancy.next_tick(), Ordering::Relaxed);
    }

    /// Returns whether a known caller has sent a request.
    pub(super) fn known_caller(&self) -> &KnownCaller {
        &self.known_caller
    }

    /// Counts the memory that the connection holds, unless it has a known caller or is to close.
    fn count_memory(&self) {
        let bytes = if self.known_caller.is_known() || self.evicted.load(Ordering::Relaxed) {
            0
        } else {
            let requests = self.in_flight.load(Ordering::Relaxed) as usize;
            self.most_head_bytes.load(Ordering::Relaxed) + requests * REQUEST_MEMORY
        };
        let before = self.unidentified_bytes.swap(bytes, Ordering::Relaxed);
        self.occupancy.replace_bytes(before, bytes);
    }

    /// Returns the bytes that the connection holds without a known caller.
    pub(super) fn unidentified_bytes(&self) -> usize {
        self.unidentified_bytes.load(Ordering::Relaxed)
    }

    /// Returns the place of the connection in the order in which connections close to make room; `None` if it is not to close:
    /// a known caller's request is in flight, or it closes already.
    pub(super) fn eviction_rank(&self) -> Option<(EvictionClass, u64)> {
        let class = match self.known_caller.is_known() {
            _ if self.phase() == DrainPhase::Dropped => return None,
            true if self.is_answering() => return None,
            true => EvictionClass::Idle,
            false if self.awaits_response() => EvictionClass::UnidentifiedWaiting,
            false => EvictionClass::Unidentified,
        };
        Some((class, self.last_tick.load(Ordering::Relaxed)))
    }

    /// Closes the connection to make room; returns false if it was told so before.
    pub(super) fn evict(&self, reason: CloseReason) -> bool {
        // Counted first, since the connection may end at the same time.
        self.occupancy.add_evicted();
        if self.evicted.swap(true, Ordering::Relaxed) {
            self.occupancy.remove_evicted();
            return false;
        }
        self.set_close_reason(reason);
        self.count_memory();
        self.advance(DrainPhase::Dropped);
        true
    }

    /// Records that the connection has ended: it is no longer told to close.
    pub(super) fn end(&self) {
        if self.evicted.swap(true, Ordering::Relaxed) {
            self.occupancy.remove_evicted();
        }
        self.count_memory();
    }

    /// Records the reason for which the connection closes, unless there is an earlier one.
    pub(super) fn set_close_reason(&self, reason: CloseReason) {
        let _ = self.close_reason.compare_exchange(0, reason as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns the reason for which Postern closed the connection; `None` if it ended by itself.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        let reason = self.close_reason.load(Ordering::Relaxed);
        CloseReason::ALL.into_iter().find(|known| *known as u8 == reason)
    }

    /// Records whether the socket accepts more data.
    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Ordering::Relaxed);
    }

    /// Records that the end of the output was written.
    pub(super) fn set_half_closed(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
        self.record_event();
    }

    pub(super) fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed)
    }

    /// Begins a request: its head was read.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlight {
        self.record_event();
        change(&self.awaiting_response, |others| others + 1);
        change(&self.in_flight, |others| others + 1);
        self.in_head.store(false, Ordering::Relaxed);
        self.has_had_request.store(true, Ordering::Relaxed);
        if !self.known_caller.is_known() {
            self.count_memory();
        }
        InFlight { activity: Arc::clone(self), responded: false }
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
        let answerable = self.is_in_http_1_head() && !self.is_answering() && !self.evicted.load(Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        answerable
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
        self.activity.allow_frames(PER_RESPONSE);
    }

    fn end_wait(&mut self) {
        if !std::mem::replace(&mut self.responded, true) {
            change(&self.activity.awaiting_response, |all| all - 1);
            // Bytes read since the head were the request's body.
            self.activity.in_head.store(false, Ordering::Relaxed);
            self.activity.head_bytes.store(0, Ordering::Relaxed);
            // The caller of this request may be the first known one.
            if self.activity.unidentified_bytes() > 0 {
                self.activity.count_memory();
            }
        }
    }

    /// Records a part of the response's body.
    pub(super) fn record_data(&self, bytes: usize) {
        if self.activity.is_http_2() {
            self.activity.allow_frames(allowed_by_data(bytes));
        }
    }

    /// Returns true if the response is to be the last one of its connection.
    pub(super) fn is_last(&self) -> bool {
        // The lifecycle changes first; the monitor then takes a moment to reach each connection.
        self.activity.phase() >= DrainPhase::Closing || self.activity.lifecycle.is_draining()
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
        if self.activity.unidentified_bytes() > 0 {
            self.activity.count_memory();
        }
    }
}

impl Drop for ConnectionActivity {
    fn drop(&mut self) {
        self.occupancy.replace_bytes(*self.unidentified_bytes.get_mut(), 0);
    }
}
