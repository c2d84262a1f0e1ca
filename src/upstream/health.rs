//! A circuit breaker: protects an upstream that fails, and its callers from waiting for it.
//!
//! After a configured number of failures in a row the circuit opens, and no request is sent for a while. Then a single
//! request, the probe, tests whether the upstream has recovered: its result closes the circuit or opens it again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::config::BreakerSettings;
use crate::log_events;

/// The circuit breaker of one upstream.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    clock: Clock,
    state: Mutex<BreakerState>,
}

#[derive(Debug)]
enum BreakerState {
    /// All requests pass; the last `failures` of them failed.
    Closed { failures: u32 },
    /// No request passes before `until`.
    Open { until: Moment },
    /// A probe is in flight. Another one may start at `next_probe`, in case this one never ends.
    HalfOpen { next_probe: Moment },
}

/// The state of the circuit to Refold, for readiness, metrics and the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// All requests pass.
    Closed,
    /// One request may test the upstream, or does so now.
    HalfOpen,
    /// No request passes.
    Open,
}

/// The effect of a failure on the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureEffect {
    /// The failure was counted or ignored.
    None,
    /// The failure opened the circuit.
    CircuitOpened,
}

/// The error for a request that an open circuit does not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CircuitOpen {
    /// Time until the next probe.
    pub retry_after: Duration,
}

/// Permission to send one request through the circuit, to be returned with the request's result.
///
/// Dropped without a result it does not count; if it was for a probe, another request may probe at once.
#[derive(Debug)]
#[must_use]
pub(super) struct CircuitPermit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    /// Makes a breaker whose circuit is closed.
    #[must_use]
    pub(super) fn new(settings: BreakerSettings, clock: Clock) -> Self {
        Self { settings, clock, state: Mutex::new(BreakerState::Closed { failures: 0 }) }
    }

    /// Lets a request pass, as the probe if the circuit is not closed.
    ///
    /// # Errors
    /// If the circuit is open, or another probe is in flight.
    pub(super) fn try_acquire(&self) -> Result<CircuitPermit<'_>, CircuitOpen> {
        let now = self.clock.now();
        let mut state = self.state();
        state.check(now)?;
        let is_probe = !matches!(*state, BreakerState::Closed { .. });
        if is_probe {
            *state = BreakerState::HalfOpen { next_probe: now + self.settings.open_for };
        }
        Ok(CircuitPermit { breaker: self, is_probe })
    }

    /// Checks that a request would pass now, without letting one pass.
    ///
    /// # Errors
    /// If the circuit is open, or a probe is in flight.
    pub(super) fn check(&self) -> Result<(), CircuitOpen> {
        self.state().check(self.clock.now())
    }

    /// Returns the state of the circuit.
    #[must_use]
    pub(super) fn circuit(&self) -> Circuit {
        match *self.state() {
            BreakerState::Closed { .. } => Circuit::Closed,
            BreakerState::Open { until } if self.clock.now() < until => Circuit::Open,
            BreakerState::Open { .. } | BreakerState::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerState {
    fn check(&self, now: Moment) -> Result<(), CircuitOpen> {
        match *self {
            Self::Open { until: next } | Self::HalfOpen { next_probe: next } if now < next => {
                Err(CircuitOpen { retry_after: next.since(now) })
            }
            _ => Ok(()),
        }
    }
}

impl CircuitPermit<'_> {
    /// Records that the upstream responded and is healthy, whatever the response says. Closes the circuit.
    pub(super) fn succeeded(self) {
        *self.breaker.state() = BreakerState::Closed { failures: 0 };
    }

    /// Records that the upstream could not be reached, was too slow, or failed.
    pub(super) fn failed(self) -> FailureEffect {
        let until = self.breaker.clock.now() + self.breaker.settings.open_for;
        let mut state = self.breaker.state();
        let (next, effect) = match *state {
            BreakerState::Closed { failures } if failures + 1 < self.breaker.settings.failures.get() => {
                (BreakerState::Closed { failures: failures + 1 }, FailureEffect::None)
            }
            // A request that was sent before the circuit opened says nothing about the upstream now.
            BreakerState::HalfOpen { next_probe } if !self.is_probe => {
                (BreakerState::HalfOpen { next_probe }, FailureEffect::None)
            }
            BreakerState::Closed { .. } | BreakerState::HalfOpen { .. } => {
                tracing::warn!(message = log_events::UPSTREAM_CIRCUIT_OPENED);
                (BreakerState::Open { until }, FailureEffect::CircuitOpened)
            }
            // The request was sent before the circuit opened: its failure does not keep the circuit open for longer.
            BreakerState::Open { until } => (BreakerState::Open { until }, FailureEffect::None),
        };
        *state = next;
        effect
    }
}

impl Drop for CircuitPermit<'_> {
    fn drop(&mut self) {
        if self.is_probe
            && let BreakerState::HalfOpen { next_probe } = &mut *self.breaker.state()
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
    fn repeated_failures_open_the_circuit_and_a_probe_closes_it() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let failures = NonZeroU32::new(3).expect("not zero");
        let breaker = Breaker::new(BreakerSettings { failures, open_for: Duration::from_secs(5) }, clock.clone());
        let fail = || breaker.try_acquire().map(CircuitPermit::failed);
        assert_eq!((fail(), fail()), (Ok(FailureEffect::None), Ok(FailureEffect::None)));
        assert_eq!(breaker.circuit(), Circuit::Closed);
        breaker.try_acquire().expect("it is closed").succeeded();
        let late = breaker.try_acquire().expect("it is closed");
        assert_eq!(
            (fail(), fail(), fail()),
            (Ok(FailureEffect::None), Ok(FailureEffect::None), Ok(FailureEffect::CircuitOpened))
        );
        assert_eq!((late.failed(), breaker.circuit()), (FailureEffect::None, Circuit::Open));
        clock.advance(Duration::from_secs(2));
        assert_eq!(fail(), Err(CircuitOpen { retry_after: Duration::from_secs(3) }));
        assert_eq!(breaker.circuit(), Circuit::Open);
        clock.advance(Duration::from_secs(3));
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        let probe = breaker.try_acquire().expect("the probe passes");
        assert_eq!(fail(), Err(CircuitOpen { retry_after: Duration::from_secs(5) }));
        assert_eq!(probe.failed(), FailureEffect::CircuitOpened);
        clock.advance(Duration::from_secs(4));
        assert!(fail().is_err());
        clock.advance(Duration::from_secs(1));
        breaker.try_acquire().expect("the probe passes").succeeded();
        assert_eq!(breaker.circuit(), Circuit::Closed);
        assert!(breaker.try_acquire().is_ok() && breaker.try_acquire().is_ok());
    }

    #[test]
    fn a_probe_that_never_ends_is_followed_by_another() {
        let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
        let settings = BreakerSettings { failures: NonZeroU32::MIN, open_for: Duration::from_secs(5) };
        let breaker = Breaker::new(settings, clock.clone());
        breaker.try_acquire().expect("it is closed").failed();
        clock.advance(Duration::from_secs(5));
        std::mem::forget(breaker.try_acquire().expect("the probe passes"));
        assert!(breaker.try_acquire().is_err() && breaker.check().is_err());
        clock.advance(Duration::from_secs(5));
        // A probe that is dropped, since its caller disconnected, is followed by another at once.
        drop(breaker.try_acquire().expect("the probe passes"));
        assert!(breaker.check().is_ok());
        breaker.try_acquire().expect("the probe passes").succeeded();
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }
}
