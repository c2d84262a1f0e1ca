//! The embedded simulated Refold: an upstream for the demo, the tests and the load experiment.
//!
//! Its executions are deterministic from a seed and progress with the clock. It enforces the published rate limit, answers
//! with the documented errors, delivers webhooks, and produces faults on demand. It shares no code with the steps of the
//! gateway, so that tests check one implementation of the API against the other.

mod api;
mod arrivals;
mod contrary;
mod disruption;
mod fault;
mod habit;
mod history;
mod lock;
mod parameters;
mod rate_limiter;
mod server;
mod state;
mod subscriptions;
mod variation;
mod webhooks;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Request, Response};
use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::clock::Clock;
use api::Api;
pub use arrivals::Arrival;
pub use contrary::{Contrary, ContrarySet};
pub use disruption::Disruption;
pub use fault::{Fault, FaultBody};
pub use habit::Habit;
use history::PRESET_ACCOUNTS;
pub use state::SimulatorSettings;
use state::SimulatorState;
pub use variation::Variation;

/// Period that [`Simulator::last_change`] searches, in milliseconds.
const RECENT: i64 = 10 * 60 * 1000;

/// A simulated Refold. Clones are cheap and share their state.
#[derive(Clone, Debug)]
pub struct Simulator(Arc<SimulatorState>);

impl Simulator {
    /// Creates a simulated Refold whose history ends now and continues with the clock.
    #[must_use]
    pub fn new(settings: SimulatorSettings, clock: Clock) -> Self {
        Self(Arc::new(SimulatorState::new(settings, clock)))
    }

    /// Serves HTTP/1.1 and delivers webhooks until the future is dropped.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        tokio::select! {
            failed = server::accept(&self.0, listener) => failed,
            () = webhooks::deliver_changes(&self.0) => Ok(()),
        }
    }

    /// Answers one request for executions, without a socket and without faults.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Bytes> {
        Api::new(&self.0).respond(request)
    }

    /// Returns the page that a query would be answered with now. It needs no credential and counts no request.
    #[must_use]
    pub fn peek(&self, linked_account: &str, query: Option<&str>) -> Option<Bytes> {
        Api::new(&self.0).peek(linked_account, query, self.0.now())
    }

    /// Returns the page that a query would have been answered with at a moment, with lists that contradict each other in these
    /// ways, and if no caller has acted on executions since.
    #[must_use]
    pub fn peek_at(
        &self,
        linked_account: &str,
        query: Option<&str>,
        at: Timestamp,
        contrary: ContrarySet,
    ) -> Option<Bytes> {
        Api::new(&self.0).contrary(contrary).peek(linked_account, query, at.as_millisecond())
    }

    /// Number of requests for executions so far, refused ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Number of requests so far that were refused because of the rate limit.
    #[must_use]
    pub fn rate_limited(&self) -> u64 {
        self.0.rate_limited.load(Ordering::SeqCst)
    }

    /// Returns the latest requests for executions with a valid credential, in the order of their arrival.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.0.arrivals.all()
    }

    /// Applies a fault to every following request until the next call; `None` ends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.0.set_fault(fault);
    }

    /// Adds a lasting behaviour, or replaces the one of the same kind.
    pub fn set_habit(&self, habit: Habit) {
        self.0.set_habit(habit);
    }

    /// Disrupts all connections that are open now.
    pub fn disrupt_connections(&self, disruption: Disruption) {
        self.0.connections.disrupt(disruption);
    }

    /// Returns the session token of a linked account; it depends only on the seed and the account.
    #[must_use]
    pub fn session_token(&self, linked_account: &str) -> String {
        self.0.session_token(linked_account)
    }

    /// Refuses a session token from now on.
    pub fn revoke_session_token(&self, token: &str) {
        self.0.revoke_session_token(token);
    }

    /// Returns the preset linked accounts, each with its present number of executions.
    #[must_use]
    pub fn linked_accounts(&self) -> Vec<(&'static str, u64)> {
        PRESET_ACCOUNTS.iter().map(|(id, ..)| (*id, self.executions(id))).collect()
    }

    /// Returns the present number of executions of a linked account.
    #[must_use]
    pub fn executions(&self, linked_account: &str) -> u64 {
        u64::from(self.0.history.account(linked_account).total(self.0.now()))
    }

    /// Returns when an execution of a linked account last changed its status; `None` if that was more than ten minutes ago.
    #[must_use]
    pub fn last_change(&self, linked_account: &str) -> Option<Timestamp> {
        let now = self.0.now();
        let account = self.0.history.account(linked_account);
        let last = account.changes(now - RECENT, now).iter().map(|execution| execution.changed).max()?;
        Timestamp::from_millisecond(last).ok()
    }
}
