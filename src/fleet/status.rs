//! The state of the fleet for readers on other threads: one atomic load, no lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::event_sink::EventSink;
use super::membership::{FleetState, Members, Standing};
use super::metrics::FleetMetrics;
use super::phase::{CurrentPhase, Phase};
use super::reckoning::micros;
use crate::clock::{Clock, Moment};

/// The state that the fleet's thread writes and others read.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) clock: Clock,
    standing: ArcSwap<Standing>,
    phase: CurrentPhase,
    is_connected: AtomicBool,
    /// A number for the server of the last connection, from its replication id; 0 before the first.
    server: AtomicU64,
    /// The reason why there is no connection, or why the log can't be read.
    problem: Mutex<Option<Arc<str>>>,
    /// The script that fails, once that is logged.
    failing_script: Mutex<Option<&'static str>>,
    pub(super) metrics: FleetMetrics,
    pub(super) events: EventSink,
}

impl Status {
    pub(super) fn new(clock: Clock, standing: Standing, metrics: FleetMetrics, events: EventSink) -> Self {
        Self {
            clock,
            standing: ArcSwap::from_pointee(standing),
            phase: CurrentPhase::new(),
            is_connected: AtomicBool::new(false),
            server: AtomicU64::new(0),
            problem: Mutex::default(),
            failing_script: Mutex::default(),
            metrics,
            events,
        }
    }

    pub(super) fn publish(&self, standing: Standing) {
        self.standing.store(standing.into());
        self.follow_time();
    }

    /// Moves the phase on to the present state, which it returns: time alone can change it.
    pub(super) fn follow_time(&self) -> FleetState {
        let now = self.clock.now();
        let state = self.state(now);
        self.phase.follow(state, now);
        state
    }

    /// The phase at the last change. Part of the hit path.
    #[inline]
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn set_connected(&self, is_connected: bool) {
        self.is_connected.store(is_connected, Ordering::Relaxed);
    }

    pub(super) fn set_problem(&self, problem: Option<Arc<str>>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub(super) fn problem(&self) -> Option<Arc<str>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records that a script failed; returns true if that is news.
    pub(super) fn script_failed(&self, name: &'static str) -> bool {
        self.metrics.script_errors.inc();
        self.failing_script().replace(name) != Some(name)
    }

    /// Records that a script succeeded.
    pub(super) fn script_succeeded(&self, name: &'static str) {
        self.failing_script().take_if(|failing| *failing == name);
    }

    fn failing_script(&self) -> MutexGuard<'_, Option<&'static str>> {
        self.failing_script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the number of the server; returns true if it is another one than before.
    pub(super) fn set_server(&self, server: u64) -> bool {
        self.server.swap(server, Ordering::Relaxed) != server
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }

    pub(super) fn server(&self) -> u64 {
        self.server.load(Ordering::Relaxed)
    }

    pub(super) fn standing(&self) -> Standing {
        **self.standing.load()
    }

    pub(super) fn state(&self, now: Moment) -> FleetState {
        self.standing.load().state(now)
    }

    pub(super) fn members(&self) -> Members {
        self.standing.load().members
    }

    /// The fleet's clock at `now`, in microseconds: the server's as reckoned, or the wall clock before the first connection.
    pub(super) fn fleet_micros(&self, now: Moment) -> u64 {
        let micros = if let Some(reckoning) = self.standing.load().reckoning {
            micros(now) + reckoning.difference()
        } else {
            let since = micros(self.clock.now()) - micros(now);
            #[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 are below 2^53")]
            let wall = self.clock.wall().as_microsecond() as f64;
            wall - since
        };
        whole(micros)
    }

    /// The latest time that the fleet's clock can show at `now`, in microseconds.
    pub(super) fn latest_fleet_micros(&self, now: Moment) -> u64 {
        self.standing.load().reckoning.map_or(u64::MAX, |reckoning| whole(reckoning.latest(now)))
    }
}

/// Whole microseconds since 1970.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and time is after 1970")]
fn whole(micros: f64) -> u64 {
    micros as u64
}
