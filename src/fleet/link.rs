//! A connection in use: runs scripts on it, each within the time limit, and decides when it is of no more use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::commands::{Call, Unavailable};
use super::connect::Driver;
use super::status::Status;
use crate::log_events;

/// Commands without an answer, one after the other, after which the connection is given up.
const TIMEOUTS: u32 = 3;
/// Errors of a server that is not at fault for a script: it is starting, failing over, full, or a script of someone else runs.
const PASSING_ERRORS: [&str; 7] = ["LOADING", "MASTERDOWN", "READONLY", "NOREPLICAS", "MISCONF", "BUSY", "UNKILLABLE"];

/// A connection in use. Clones use the same one.
#[derive(Clone, Debug)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    time_limit: Duration,
    status: Arc<Status>,
    shared: Arc<Health>,
}

#[derive(Debug)]
struct Health {
    _driver: Driver,
    timeouts: AtomicU32,
    end: watch::Sender<Option<LinkEnd>>,
}

/// The reason why a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEnd {
    /// The server is away, or this connection to it is broken.
    Away,
    /// The server refuses a script, and would again.
    ScriptFailed,
    /// The fleet's names derive from another secret, so this replica is none of its members.
    Stranger,
}

impl Link {
    pub(super) fn new(
        connection: MultiplexedConnection,
        driver: Driver,
        status: Arc<Status>,
        time_limit: Duration,
    ) -> Self {
        let health = Health { _driver: driver, timeouts: AtomicU32::new(0), end: watch::Sender::new(None) };
        Self { connection, time_limit, status, shared: Arc::new(health) }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// If there is no answer in time, or an error.
    pub(super) async fn run(&self, call: &Call) -> Result<Value, Unavailable> {
        let (clock, metrics) = (&self.status.clock, &self.status.metrics);
        let mut connection = self.connection.clone();
        let mut invocation = call.script.hashed().prepare_invoke();
        invocation.key(&call.keys).arg(&call.arguments);
        let sent = clock.now();
        // After NOSCRIPT it loads the script and calls it again.
        let answer = timeout(self.time_limit, invocation.invoke_async::<Value>(&mut connection)).await;
        match answer {
            Ok(Ok(value)) => {
                self.shared.timeouts.store(0, Ordering::Relaxed);
                self.status.script_succeeded(call.script.name());
                metrics.round_trips.observe(clock.now().since(sent).as_secs_f64());
                Ok(value)
            }
            Ok(Err(error)) => {
                self.fail(call, &error);
                Err(Unavailable::Failed)
            }
            Err(_) => {
                metrics.timeouts.inc();
                if self.shared.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
                    self.give_up(LinkEnd::Away);
                }
                Err(Unavailable::TimedOut)
            }
        }
    }

    /// Waits until the connection is given up.
    pub(super) async fn ended(&self) -> LinkEnd {
        let mut end = self.shared.end.subscribe();
        let end = end.wait_for(Option::is_some).await.map(|end| *end);
        // Never an error, since `self` holds the sender.
        end.ok().flatten().unwrap_or(LinkEnd::Away)
    }

    /// Records that the server refused a command that is no script, or broke its connection.
    pub(super) fn command_failed(&self, name: &'static str, error: &RedisError) {
        if is_of_script(error) {
            self.refused(name, error);
        }
    }

    fn fail(&self, call: &Call, error: &RedisError) {
        // Only scripts that store entries are refused by a server without free memory; all others go on.
        if error.code() == Some("OOM") {
            return;
        }
        if !is_of_script(error) {
            self.give_up(LinkEnd::Away);
            return;
        }
        self.refused(call.script.name(), error);
    }

    /// Gives the connection up, since the server refuses a script or command, and would again.
    fn refused(&self, name: &'static str, error: &RedisError) {
        if self.status.script_failed(name) {
            tracing::error!(script = name, %error, message = log_events::FLEET_SCRIPT_FAILED);
            self.status.events.add(log_events::FLEET_SCRIPT_FAILED, format!("the script {name} fails: {error}"));
        }
        self.status.set_problem(Some(format!("the script {name} fails: {error}").into()));
        self.give_up(LinkEnd::ScriptFailed);
    }

    /// Shows why the log can't be read over its own connection, or takes that back, unless something else is the matter.
    pub(super) fn show_log_problem(&self, shown: Option<&Arc<str>>, problem: Option<&Arc<str>>) {
        let present = self.status.problem();
        if present.is_none() || present.as_ref().zip(shown).is_some_and(|(present, shown)| Arc::ptr_eq(present, shown))
        {
            self.status.set_problem(problem.cloned());
        }
    }

    /// Gives the connection up, for the first reason.
    pub(super) fn give_up(&self, end: LinkEnd) {
        self.shared.end.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(end);
            is_first
        });
    }
}

/// Returns whether an error is the script's or the access control list's, not one of the connection or the server's condition.
fn is_of_script(error: &RedisError) -> bool {
    let is_answer = matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension);
    let is_passing = matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript | ServerErrorKind::TryAgain))
        || error.code().is_some_and(|code| PASSING_ERRORS.contains(&code));
    is_answer && !is_passing
}
