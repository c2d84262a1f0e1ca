//! The counts of the fleet's commands. `observe` declares them with all other metrics, and hands them in.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts};

/// The metrics that the fleet's thread counts.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    /// Time from a command to its answer, in seconds.
    pub round_trips: Histogram,
    /// Commands without an answer in time.
    pub timeouts: IntCounter,
    /// Commands that a script or the access control list refused.
    pub script_errors: IntCounter,
    /// Connections that were opened.
    pub connections: IntCounter,
    /// Questions to the second level of the cache, by `result`.
    pub takes: IntCounterVec,
    /// Drops, by `reach`.
    pub drops: IntCounterVec,
    /// Times that this replica dropped all entries, since it could not know which ones were dropped.
    pub forgotten: IntCounter,
    /// Client budgets that the server was asked to refill.
    pub client_refills: IntCounter,
    /// Requests that waited for the server's decision about a client budget.
    pub client_waits: IntCounter,
    /// Requests of which the server decided too late, or not at all, so that the replica did.
    pub client_unanswered: IntCounter,
}

impl FleetMetrics {
    /// Counts that nothing shows.
    ///
    /// # Panics
    /// Never: the names are valid.
    #[must_use]
    pub fn unregistered() -> Self {
        let counter = || IntCounter::new("unregistered", "Unregistered.").expect("the name is valid");
        let counters = |label| IntCounterVec::new(Opts::new("unregistered", "Unregistered."), &[label]);
        let round_trips = HistogramOpts::new("unregistered", "Unregistered.");
        Self {
            round_trips: Histogram::with_opts(round_trips).expect("the name is valid"),
            timeouts: counter(),
            script_errors: counter(),
            connections: counter(),
            takes: counters("result").expect("the name is valid"),
            drops: counters("reach").expect("the name is valid"),
            forgotten: counter(),
            client_refills: counter(),
            client_waits: counter(),
            client_unanswered: counter(),
        }
    }
}
