//! A circuit breaker: after several failures in a row nobody asks for a while; then one request tries whether the upstream
//! is back, and the others wait for what it finds.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::config::BreakerSettings;
use crate::log_events;

/// The circuit to one upstream.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Everything passes; so many failures in a row.
    Closed { failures: u32 },
    /// Nothing passes before this.
    Open { until: Moment },
    /// One request tries; were it never to end, another one does from this moment on.
    HalfOpen { next_probe: Moment },
}

/// How the circuit stands, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Everything passes.
    Closed,
    /// One request tries, or may.
    HalfOpen,
    /// Nothing passes.
    Open,
}

/// What a failure has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It was noted.
    Noted,
    /// It has opened the circuit.
    Opened,
}

impl State {
    fn lets_pass(&self, now: Moment) -> Result<(), Open> {
        match *self {
            Self::Open { until: opens } | Self::HalfOpen { next_probe: opens } if now < opens => {
                Err(Open { retry_after: opens.since(now) })
            }
            _ => Ok(()),
        }
    }
}

/// The circuit is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// The right to ask once. Say how it ended; dropped without a word it counts as nothing, and if it was for trying whether the
/// upstream is back, somebody else may try at once.
#[derive(Debug)]
#[must_use]
pub(super) struct Permit<'a> {
    breaker: &'a Breaker,
    tries: bool,
}

impl Breaker {
    /// A closed circuit.
    #[must_use]
    pub(super) fn new(settings: BreakerSettings, clock: Clock) -> Self {
        Self { settings, clock, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Asks to ask.
    ///
    /// # Errors
    /// If the circuit is open.
    pub(super) fn permit(&self) -> Result<Permit<'_>, Open> {
        let now = self.clock.now();
        let mut state = self.state();
        state.lets_pass(now)?;
        let tries = !matches!(*state, State::Closed { .. });
        if tries {
            *state = State::HalfOpen { next_probe: now + self.settings.open_for };
        }
        Ok(Permit { breaker: self, tries })
    }

    /// Whether it is of no use to wait for a turn, since nobody may ask.
    ///
    /// # Errors
    /// If the circuit is open.
    pub(super) fn look(&self) -> Result<(), Open> {
        self.state().lets_pass(self.clock.now())
    }

    /// How it stands.
    #[must_use]
    pub(super) fn circuit(&self) -> Circuit {
        match *self.state() {
            State::Closed { .. } => Circuit::Closed,
            State::Open { until } if self.clock.now() < until => Circuit::Open,
            State::Open { .. } | State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// The upstream has answered, whatever it said.
    pub(super) fn succeeded(self) {
        *self.breaker.state() = State::Closed { failures: 0 };
    }

    /// It could not be reached, took too long, or failed.
    pub(super) fn failed(self) -> Failure {
        let until = self.breaker.clock.now() + self.breaker.settings.open_for;
        let mut state = self.breaker.state();
        let (next, failure) = match *state {
            State::Closed { failures } if failures + 1 < self.breaker.settings.failures.get() => {
                (State::Closed { failures: failures + 1 }, Failure::Noted)
            }
            // What was asked before it opened says nothing of now.
            State::HalfOpen { next_probe } if !self.tries => (State::HalfOpen { next_probe }, Failure::Noted),
            State::Closed { .. } | State::HalfOpen { .. } => {
                tracing::warn!(message = log_events::UPSTREAM_CIRCUIT_OPENED);
                (State::Open { until }, Failure::Opened)
            }
            // One of those that were under way when it opened.
            State::Open { until } => (State::Open { until }, Failure::Noted),
        };
        *state = next;
        failure
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.tries
            && let State::HalfOpen { next_probe } = &mut *self.breaker.state()
        {
            *next_probe = self.breaker.clock.now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_lets_one_try_and_closes_when_that_succeeds() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let failures = NonZeroU32::new(3).expect("not zero");
        let breaker = Breaker::new(BreakerSettings { failures, open_for: Duration::from_secs(5) }, clock.clone());
        let fail = || breaker.permit().map(Permit::failed);
        assert_eq!((fail(), fail()), (Ok(Failure::Noted), Ok(Failure::Noted)));
        assert_eq!(breaker.circuit(), Circuit::Closed);
        breaker.permit().expect("it is closed").succeeded();
        let late = breaker.permit().expect("it is closed");
        assert_eq!((fail(), fail(), fail()), (Ok(Failure::Noted), Ok(Failure::Noted), Ok(Failure::Opened)));
        assert_eq!((late.failed(), breaker.circuit()), (Failure::Noted, Circuit::Open));
        clock.advance(Duration::from_secs(2));
        assert_eq!(fail(), Err(Open { retry_after: Duration::from_secs(3) }));
        assert_eq!(breaker.circuit(), Circuit::Open);
        clock.advance(Duration::from_secs(3));
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        let probe = breaker.permit().expect("one may try");
        assert_eq!(fail(), Err(Open { retry_after: Duration::from_secs(5) }));
        assert_eq!(probe.failed(), Failure::Opened);
        clock.advance(Duration::from_secs(4));
        assert!(fail().is_err());
        clock.advance(Duration::from_secs(1));
        breaker.permit().expect("one may try").succeeded();
        assert_eq!(breaker.circuit(), Circuit::Closed);
        assert!(breaker.permit().is_ok() && breaker.permit().is_ok());
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let settings = BreakerSettings { failures: NonZeroU32::MIN, open_for: Duration::from_secs(5) };
        let breaker = Breaker::new(settings, clock.clone());
        breaker.permit().expect("it is closed").failed();
        clock.advance(Duration::from_secs(5));
        std::mem::forget(breaker.permit().expect("one may try"));
        assert!(breaker.permit().is_err() && breaker.look().is_err());
        clock.advance(Duration::from_secs(5));
        // One whose caller has left is followed by another at once.
        drop(breaker.permit().expect("one may try"));
        assert!(breaker.look().is_ok());
        breaker.permit().expect("one may try").succeeded();
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }
}
