//! The share of the server's bounds that one connection takes: its memory before a known caller has sent a request, its HTTP/2
//! frames without content, and its place in the order in which connections close to make room.
//!
//! Socket, requests and monitor of a connection share one thread; another thread may evict it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::frame_budget;
use super::occupancy::Occupancy;
use crate::gateway::KnownCaller;
use crate::observe::CloseReason;

/// Estimated memory of a request under way over a connection without a known caller, beside the bytes of its head: the task
/// of an HTTP/2 stream, and the response.
const REQUEST_MEMORY: usize = 4 << 10;

/// Memory of a header field beside its bytes: its places in the tables of an `http::HeaderMap`, which double as they grow.
const FIELD_MEMORY: usize = 160;

/// The share of the server's bounds that one connection takes.
#[derive(Debug)]
pub(super) struct Footprint {
    occupancy: Arc<Occupancy>,
    known_caller: KnownCaller,
    /// The [`CloseReason`], 0 if there is none.
    close_reason: AtomicU8,
    /// The connection was told to close to make room, or has ended.
    evicted: AtomicBool,
    /// The tick of the last sign of life. Connections of known callers may have the same, for the hit path's sake.
    last_tick: AtomicU64,
    /// HTTP/2 frames without content that the peer may still send.
    frames_left: AtomicU32,
    /// The peer has sent too many of them.
    flooded: AtomicBool,
    /// Bytes read since the last response.
    head_bytes: AtomicUsize,
    /// The most that `head_bytes` has been: a buffer keeps its size when its content is parsed.
    most_head_bytes: AtomicUsize,
    /// Header fields of the requests that wait.
    fields: AtomicUsize,
    /// Estimated bytes that the connection holds and [`Occupancy`] counts; 0 once there is a known caller.
    unidentified_bytes: AtomicUsize,
}

impl Footprint {
    pub(super) fn new(occupancy: Arc<Occupancy>) -> Self {
        Self {
            known_caller: KnownCaller::default(),
            close_reason: AtomicU8::new(0),
            evicted: AtomicBool::new(false),
            last_tick: AtomicU64::new(occupancy.next_tick()),
            frames_left: AtomicU32::new(frame_budget::BURST),
            flooded: AtomicBool::new(false),
            head_bytes: AtomicUsize::new(0),
            most_head_bytes: AtomicUsize::new(0),
            fields: AtomicUsize::new(0),
            unidentified_bytes: AtomicUsize::new(0),
            occupancy,
        }
    }

    /// Returns whether a known caller has sent a request.
    pub(super) fn known_caller(&self) -> &KnownCaller {
        &self.known_caller
    }

    /// Records bytes that stay in memory until a request takes them, `most_buffered` of them at most, beside so many requests
    /// in flight. Returns true if connections without a known caller, this one among them, hold more memory than before.
    pub(super) fn hold(&self, bytes: usize, most_buffered: usize, requests: u32) -> bool {
        if self.known_caller.is_known() {
            return false;
        }
        self.touch();
        let head = (self.head_bytes.load(Ordering::Relaxed) + bytes).min(most_buffered);
        self.head_bytes.store(head, Ordering::Relaxed);
        if head <= self.most_head_bytes.load(Ordering::Relaxed) {
            return false;
        }
        self.most_head_bytes.store(head, Ordering::Relaxed);
        self.count_memory(requests);
        true
    }

    /// Begins a request: so many are in flight with it.
    pub(super) fn begin_request(&self, requests: u32) {
        if !self.known_caller.is_known() {
            self.count_memory(requests);
        }
    }

    /// Counts the header fields of a request that waits, beside so many requests in flight.
    pub(super) fn hold_fields(&self, fields: usize, requests: u32) {
        self.fields.store(self.fields.load(Ordering::Relaxed) + fields, Ordering::Relaxed);
        self.begin_request(requests);
    }

    /// Forgets the header fields of a request that has waited.
    pub(super) fn release_fields(&self, fields: usize, requests: u32) {
        self.fields.store(self.fields.load(Ordering::Relaxed) - fields, Ordering::Relaxed);
        self.end_request(requests);
    }

    /// Records that a request has its response: the bytes read until now were its own.
    pub(super) fn end_head(&self, requests: u32) {
        self.head_bytes.store(0, Ordering::Relaxed);
        self.end_request(requests);
    }

    /// Records that so many requests are in flight still. The caller of one that has ended may be the first known one.
    pub(super) fn end_request(&self, requests: u32) {
        if self.unidentified_bytes() > 0 {
            self.count_memory(requests);
        }
    }

    /// Forgets the bytes of buffers that are gone: those of a TLS handshake, or of a connection that rests.
    pub(super) fn release_buffers(&self) {
        self.head_bytes.store(0, Ordering::Relaxed);
        self.most_head_bytes.store(0, Ordering::Relaxed);
        self.count_memory(0);
    }

    /// Counts the memory that the connection holds, unless it has a known caller or is to close.
    fn count_memory(&self, requests: u32) {
        let bytes = if self.known_caller.is_known() || self.evicted.load(Ordering::Relaxed) {
            0
        } else {
            self.most_head_bytes.load(Ordering::Relaxed)
                + requests as usize * REQUEST_MEMORY
                + self.fields.load(Ordering::Relaxed) * FIELD_MEMORY
        };
        let before = self.unidentified_bytes.swap(bytes, Ordering::Relaxed);
        self.occupancy.replace_bytes(before, bytes);
    }

    /// Returns the bytes that the connection holds without a known caller.
    pub(super) fn unidentified_bytes(&self) -> usize {
        self.unidentified_bytes.load(Ordering::Relaxed)
    }

    /// Records HTTP/2 frames without content; returns true if there are too many.
    pub(super) fn record_empty_frames(&self, frames: u32) -> bool {
        if let Some(left) = self.frames_left.load(Ordering::Relaxed).checked_sub(frames) {
            self.frames_left.store(left, Ordering::Relaxed);
            return false;
        }
        self.flooded.store(true, Ordering::Relaxed);
        self.set_close_reason(CloseReason::FrameFlood);
        true
    }

    /// Allows more HTTP/2 frames without content.
    pub(super) fn allow_frames(&self, frames: u32) {
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

    /// Records a sign of life of a connection with a known caller. Part of the hit path.
    pub(super) fn touch_known(&self) {
        if self.known_caller.is_known() {
            self.last_tick.store(self.occupancy.tick(), Ordering::Relaxed);
        }
    }

    /// Returns the tick of the last sign of life.
    pub(super) fn last_tick(&self) -> u64 {
        self.last_tick.load(Ordering::Relaxed)
    }

    /// Marks the connection as one that closes to make room; returns false if it is marked or has ended.
    pub(super) fn evict(&self, reason: CloseReason) -> bool {
        // Counted first, since the connection may end at the same time.
        self.occupancy.add_evicted();
        if self.evicted.swap(true, Ordering::Relaxed) {
            self.occupancy.remove_evicted();
            return false;
        }
        self.set_close_reason(reason);
        self.count_memory(0);
        true
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Records that the connection has ended.
    pub(super) fn end(&self) {
        if self.evicted.swap(true, Ordering::Relaxed) {
            self.occupancy.remove_evicted();
        }
        self.count_memory(0);
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
}

impl Drop for Footprint {
    fn drop(&mut self) {
        self.occupancy.replace_bytes(*self.unidentified_bytes.get_mut(), 0);
    }
}
