//! Connection timeouts and the drain: a request head that arrives too slowly is answered 408, a connection without activity is
//! closed, and all connections of a closed listener or of a stopping worker come to their end.
//!
//! A timer per request or per connection would cost more than the rest of a cache hit's bookkeeping. Instead each connection
//! counts its activity, and one monitor per worker reads all the counts from time to time; so header and idle timeouts are met
//! to within half of the smaller one. The bounds of a drain are exact.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::activity::{ConnectionActivity, DrainPhase};
use super::occupancy::Occupancy;
use crate::config;
use crate::generation::ListenerId;
use crate::lifecycle::Lifecycle;
use crate::observe::CloseReason;

/// Bound on [`Timeouts::close`], which is half of the drain timeout otherwise.
const LONGEST_CLOSE: Duration = Duration::from_secs(5);
/// Bound on [`Timeouts::goodbye`].
const SHORTEST_GOODBYE: Duration = Duration::from_millis(10);

/// Time without activity after which a connection gives up its buffers.
const REST_AFTER: Duration = Duration::from_secs(1);

/// The timeouts of a worker's connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Longest time for a request head, and for the first byte of a connection.
    head: Duration,
    /// Longest time without activity.
    idle: Duration,
    /// Longest time for which a connection without a request in flight stays open once it is to close.
    close: Duration,
    /// The part of `close` in which a silent connection may still send a request.
    linger: Duration,
    /// Time after its last sign of life in which the peer of a half-closed connection is to close too.
    goodbye: Duration,
}

impl Timeouts {
    pub(super) fn of(settings: &config::ServerConfig) -> Self {
        let close = LONGEST_CLOSE.min(settings.drain_timeout / 2);
        Self {
            head: settings.header_timeout,
            idle: settings.idle_timeout,
            close,
            linger: close * 8 / 10,
            goodbye: (close / 10).max(SHORTEST_GOODBYE),
        }
    }

    /// Precision of the header and idle timeouts.
    fn interval(&self) -> Duration {
        self.head.min(self.idle) / 2
    }

    /// Returns the time between two checks of all connections.
    fn check_interval(&self) -> Duration {
        self.interval().min(REST_AFTER)
    }
}

/// Checks a worker's connections and advances their drain phases.
#[derive(Debug)]
pub(super) struct ConnectionMonitor {
    lifecycle: Arc<Lifecycle>,
    occupancy: Arc<Occupancy>,
    state: Mutex<MonitorState>,
    /// Requests a check before the next one is due.
    check_now: Notify,
}

#[derive(Debug)]
struct MonitorState {
    timeouts: Timeouts,
    connections: Vec<MonitoredConnection>,
    /// The worker stops, so new connections are to close too.
    stopping: bool,
}

#[derive(Debug)]
struct MonitoredConnection {
    activity: Weak<ConnectionActivity>,
    listener: ListenerId,
    /// Events at the last check.
    seen: u64,
    /// Events at the time at which the connection gave up its buffers.
    rested_at: u64,
    /// Time of the last check that found new events.
    quiet_since: Instant,
    /// Time at which the connection was to close.
    closing_since: Option<Instant>,
    /// Time of the check that found it half-closed.
    half_closed_since: Option<Instant>,
    /// Time of the check that found it timed out.
    timed_out_since: Option<Instant>,
}

impl ConnectionMonitor {
    pub(super) fn new(timeouts: Timeouts, lifecycle: Arc<Lifecycle>, occupancy: Arc<Occupancy>) -> Self {
        let state = MonitorState { timeouts, connections: Vec::new(), stopping: false };
        Self { lifecycle, occupancy, state: Mutex::new(state), check_now: Notify::new() }
    }

    /// Replaces the timeouts, for open connections too.
    pub(super) fn set_timeouts(&self, timeouts: Timeouts) {
        self.state().timeouts = timeouts;
        self.check_now.notify_one();
    }

    /// Adds a connection; one whose listener is no longer `open` is to close.
    pub(super) fn add(&self, listener: ListenerId, open: bool, now: Instant) -> Arc<ConnectionActivity> {
        let activity = Arc::new(ConnectionActivity::new(Arc::clone(&self.lifecycle), Arc::clone(&self.occupancy)));
        let mut state = self.state();
        let mut connection = MonitoredConnection {
            activity: Arc::downgrade(&activity),
            listener,
            seen: 0,
            rested_at: 0,
            quiet_since: now,
            closing_since: None,
            half_closed_since: None,
            timed_out_since: None,
        };
        if state.stopping || !open {
            connection.close(now);
            self.check_now.notify_one();
        }
        state.connections.push(connection);
        activity
    }

    /// Adds the connections that are open to a list.
    pub(super) fn collect_open(&self, list: &mut Vec<Arc<ConnectionActivity>>) {
        self.state().connections.retain(|connection| match connection.activity.upgrade() {
            Some(activity) => {
                list.push(activity);
                true
            }
            None => false,
        });
    }

    /// Closes the connections of a listener. A silent connection may send one more request, since the
    /// request may be on its way already.
    pub(super) fn close_listener(&self, listener: ListenerId, now: Instant) {
        let mut state = self.state();
        let its_own = state.connections.iter_mut().filter(|connection| connection.listener == listener);
        its_own.for_each(|connection| connection.close(now));
        self.check_now.notify_one();
    }

    /// Closes all connections in the same way, also those that are added from now on.
    fn close_all(&self, now: Instant) {
        let mut state = self.state();
        state.stopping = true;
        state.connections.iter_mut().for_each(|connection| connection.close(now));
    }

    /// Checks all connections until the runtime ends; closes all of them when `stop` turns true.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut stopping = false;
        loop {
            let next = self.state().next_check(Instant::now());
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.check_now.notified() => {}
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    self.close_all(Instant::now());
                }
            }
            self.check(Instant::now());
        }
    }

    fn check(&self, now: Instant) {
        // Known callers that are heard of after this check count as more recent than those before it.
        self.occupancy.next_tick();
        let mut state = self.state();
        let timeouts = state.timeouts;
        state.connections.retain_mut(|connection| connection.check(timeouts, now));
    }

    fn state(&self) -> MutexGuard<'_, MonitorState> {
        // A check that a panic interrupted can be repeated.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MonitorState {
    /// Returns the time of the next check: one check interval from now, or soon if a connection is to close.
    fn next_check(&self, now: Instant) -> Instant {
        let Timeouts { close, linger, goodbye, .. } = self.timeouts;
        let regular = now + self.timeouts.check_interval();
        let closing = self.connections.iter().filter_map(|connection| connection.closing_since);
        let bounds = closing.flat_map(|since| [since + linger, since + close, now + goodbye]);
        bounds.filter(|bound| *bound > now).min().map_or(regular, |bound| bound.min(regular))
    }
}

impl MonitoredConnection {
    fn close(&mut self, now: Instant) {
        if let (Some(activity), None) = (self.activity.upgrade(), self.closing_since) {
            self.closing_since = Some(now);
            activity.advance(DrainPhase::Closing);
        }
    }

    /// Advances the connection to the phase that is due; returns false if the connection has ended.
    fn check(&mut self, timeouts: Timeouts, now: Instant) -> bool {
        let Some(activity) = self.activity.upgrade() else { return false };
        let events = activity.events();
        if events != self.seen || activity.awaits_response() {
            (self.seen, self.quiet_since) = (events, now);
        }
        if now - self.quiet_since >= REST_AFTER && self.rested_at != events && activity.suggest_rest() {
            self.rested_at = events;
        }
        activity.footprint().refill_frames();
        // A head that arrives while the response before it is written has its time after that.
        let (bound, reason) = if activity.is_in_http_1_head() && !activity.is_answering() {
            (timeouts.head, CloseReason::HeaderTimeout)
        } else if events == 0 {
            (timeouts.head, CloseReason::FirstByteTimeout)
        } else {
            (timeouts.idle, CloseReason::IdleTimeout)
        };
        let timed_out = activity.footprint().is_flooded() || now - self.quiet_since >= bound;
        if self.timed_out_since.is_none() && timed_out {
            self.timed_out_since = Some(now);
            activity.footprint().set_close_reason(reason);
        }
        if self.half_closed_since.is_none() && activity.is_half_closed() {
            self.half_closed_since = Some(now);
        }
        activity.advance(self.phase_due(&activity, timeouts, now));
        true
    }

    fn phase_due(&self, activity: &ConnectionActivity, timeouts: Timeouts, now: Instant) -> DrainPhase {
        let passed = |since: Option<Instant>, time: Duration| since.is_some_and(|since| now - since >= time);
        let quiet = now - self.quiet_since;
        // A connection with a response under way stays open for as long as its peer reads some of it from time to time.
        let answering = activity.is_answering();
        let stalled = answering && quiet >= timeouts.interval();
        let timed_out = passed(self.timed_out_since, timeouts.interval()) && !activity.awaits_response();
        let closed = if activity.is_half_closed() {
            // The kernel may still be sending; a peer that reads in HTTP/2 shows it by its frames. A drain is in a hurry.
            let is_hurried = self.closing_since.is_some() || self.timed_out_since.is_some();
            quiet >= if is_hurried { timeouts.goodbye } else { timeouts.interval() }
                || passed(self.half_closed_since, timeouts.idle)
        } else {
            passed(self.closing_since, timeouts.close) && !answering
        };
        if closed || (timed_out && (!answering || stalled)) {
            DrainPhase::Dropped
        } else if self.timed_out_since.is_some() {
            // HTTP/2 announces the end (GOAWAY), so that no request on its way is lost.
            if activity.takes_goaway() { DrainPhase::Draining } else { DrainPhase::InputEnded }
        } else if passed(self.closing_since, timeouts.linger) {
            // Half a head is answered 408.
            let half_sent = activity.is_in_http_1_head() && !answering;
            if half_sent { DrainPhase::InputEnded } else { DrainPhase::Draining }
        } else if self.closing_since.is_some() {
            DrainPhase::Closing
        } else {
            DrainPhase::Serving
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        close: Duration::from_secs(5),
        linger: Duration::from_secs(4),
        goodbye: Duration::from_millis(500),
    };
    const LISTENER: ListenerId = ListenerId(0);

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A monitor with one connection, at moments that a test names.
    struct Watched {
        monitor: ConnectionMonitor,
        activity: Arc<ConnectionActivity>,
        start: Instant,
    }

    impl Watched {
        fn new() -> Self {
            let lifecycle = Arc::new(Lifecycle::new(jiff::Timestamp::UNIX_EPOCH));
            let (monitor, start) = (ConnectionMonitor::new(TIMEOUTS, lifecycle, Arc::default()), Instant::now());
            let activity = monitor.add(LISTENER, true, start);
            Self { monitor, activity, start }
        }

        /// Checks so many seconds after the start; returns the phase then.
        fn phase_after(&self, seconds: f64) -> DrainPhase {
            self.monitor.check(self.start + Duration::from_secs_f64(seconds));
            self.activity.phase()
        }

        fn close_after(&self, seconds: f64) {
            self.monitor.close_all(self.start + Duration::from_secs_f64(seconds));
        }
    }

    #[test]
    fn every_phase_wakes_a_connection_that_registered_once() {
        let connection = Watched::new();
        let wakes = Arc::<Wakes>::default();
        connection.activity.set_waker(&Waker::from(Arc::clone(&wakes)));
        connection.close_after(0.0);
        assert_eq!((connection.activity.phase(), wakes.0.load(Ordering::SeqCst)), (DrainPhase::Closing, 1));
        assert_eq!(connection.phase_after(3.9), DrainPhase::Closing);
        for (seconds, phase, count) in [(4.0, DrainPhase::Draining, 2), (5.0, DrainPhase::Dropped, 3)] {
            assert_eq!((connection.phase_after(seconds), wakes.0.load(Ordering::SeqCst)), (phase, count));
        }
    }

    #[test]
    fn the_drain_counts_from_the_signal_and_not_from_the_last_check() {
        let connection = Watched::new();
        connection.phase_after(1.0);
        connection.close_after(5.9);
        assert_eq!(connection.phase_after(6.0), DrainPhase::Closing);
        let next_check = |seconds: f64| {
            let next = connection.monitor.state().next_check(connection.start + Duration::from_secs_f64(seconds));
            (next - connection.start).as_secs_f64()
        };
        assert!((next_check(6.0) - 6.5).abs() < 0.001);
        assert!((next_check(9.6) - 9.9).abs() < 0.001);
        assert_eq!(connection.phase_after(9.8), DrainPhase::Closing);
        assert_eq!(connection.phase_after(9.9), DrainPhase::Draining);
    }

    #[test]
    fn half_a_head_is_answered_at_the_end_of_a_drain() {
        let connection = Watched::new();
        connection.activity.set_in_head(true);
        connection.close_after(0.0);
        assert_eq!(connection.phase_after(3.9), DrainPhase::Closing);
        assert_eq!(connection.phase_after(4.0), DrainPhase::InputEnded);
        assert!(connection.activity.abandon_head());
    }

    #[test]
    fn a_drain_does_not_drop_a_response_under_way() {
        let connection = Watched::new();
        let mut in_flight = connection.activity.begin_request();
        connection.close_after(0.0);
        assert!(in_flight.is_last());
        assert_eq!(connection.phase_after(6.0), DrainPhase::Draining);
        // Responded, and read slowly: first the body holds the count, then its last data, then the socket.
        in_flight.record_response();
        let data = in_flight.clone();
        drop(in_flight);
        assert_eq!(connection.phase_after(60.0), DrainPhase::Draining);
        connection.activity.set_write_blocked(true);
        drop(data);
        assert_eq!(connection.phase_after(70.0), DrainPhase::Draining);
        connection.activity.set_write_blocked(false);
        assert_eq!(connection.phase_after(71.0), DrainPhase::Dropped);
    }

    #[test]
    fn a_half_closed_connection_stays_while_its_peer_sends() {
        let connection = Watched::new();
        connection.close_after(0.0);
        assert_eq!(connection.phase_after(4.0), DrainPhase::Draining);
        connection.activity.set_half_closed();
        for seconds in [4.5, 4.9, 5.3, 5.7] {
            assert_eq!(connection.phase_after(seconds), DrainPhase::Draining);
            connection.activity.record_event();
        }
        assert_eq!(connection.phase_after(6.1), DrainPhase::Draining);
        assert_eq!(connection.phase_after(6.5), DrainPhase::Draining);
        assert_eq!(connection.phase_after(6.6), DrainPhase::Dropped);
    }

    #[test]
    fn a_reader_that_makes_no_progress_times_out_in_a_drain() {
        let connection = Watched::new();
        let mut in_flight = connection.activity.begin_request();
        in_flight.record_response();
        connection.phase_after(0.0);
        connection.close_after(0.0);
        assert_eq!(connection.phase_after(74.0), DrainPhase::Draining);
        assert_eq!(connection.phase_after(75.0), DrainPhase::InputEnded);
        // No 408 into the middle of a response.
        connection.activity.set_in_head(true);
        assert!(!connection.activity.abandon_head());
        connection.phase_after(76.0);
        assert_eq!(connection.phase_after(79.0), DrainPhase::InputEnded);
        assert_eq!(connection.phase_after(81.0), DrainPhase::Dropped);
    }

    #[test]
    fn an_idle_connection_times_out_and_an_active_one_does_not() {
        let connection = Watched::new();
        connection.activity.record_event();
        connection.phase_after(0.0);
        assert_eq!(connection.phase_after(70.0), DrainPhase::Serving);
        connection.activity.record_event();
        assert_eq!(connection.phase_after(75.0), DrainPhase::Serving);
        assert_eq!(connection.phase_after(149.0), DrainPhase::Serving);
        assert_eq!(connection.phase_after(150.0), DrainPhase::InputEnded);
        let silent = Watched::new();
        assert_eq!(silent.phase_after(9.0), DrainPhase::Serving);
        assert_eq!(silent.phase_after(10.0), DrainPhase::InputEnded);
        let other = Watched::new();
        other.activity.set_http_2();
        drop(other.activity.begin_request());
        other.phase_after(0.0);
        assert_eq!(other.phase_after(75.0), DrainPhase::Draining);
        assert_eq!(other.phase_after(80.0), DrainPhase::Dropped);
    }
}
