//! Circuit breakers, one per tenant: they protect an upstream that fails, and its callers from waiting for it.
//!
//! A fetch counts as failed if it timed out or the response was 502, 503 or 504. A failure to connect says something about the
//! upstream's address, so it counts for all tenants. Anything else that goes wrong may be the fault of one question: a 500 or
//! 501, a connection that is lost, and an invalid response count neither for nor against the upstream. Fetches of session tokens
//! that Refold never accepted and pass-through requests do not count at all, and are never a probe.
//!
//! [`FailureWindow`] says when failures open a circuit. For a while after that no request of the tenant is sent. Then a single
//! request, the probe, tests whether the upstream has recovered, on a connection of its own: its result closes the circuit or opens
//! it again. If the tenant sends no request until all failures have left the window, its circuit closes.

mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::window::{FailureWindow, WINDOW};
use crate::clock::{Clock, Moment};
use crate::config::BreakerSettings;
use crate::limit::FlowId;
use crate::log_events;

/// The circuit breakers of one upstream address.
#[derive(Debug)]
pub(super) struct Breaker {
    settings: BreakerSettings,
    clock: Clock,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    /// The fetches of all tenants. Those that found no connection have failed.
    connects: FailureWindow,
    circuits: HashMap<Arc<str>, TenantCircuit, foldhash::fast::RandomState>,
}

/// The circuit of one tenant.
#[derive(Debug, Default)]
struct TenantCircuit {
    state: CircuitState,
    /// Number of times that the circuit opened or closed. The result of a fetch that began before is out of date.
    changes: u64,
    /// Probes in flight.
    probes: usize,
}

#[derive(Debug)]
enum CircuitState {
    /// All requests pass.
    Closed(FailureWindow),
    /// No request passes before `until`.
    Open { until: Moment, cause: Cause },
    /// A probe is in flight. Another one may start at `next_probe`, in case this one never ends.
    HalfOpen { next_probe: Moment, cause: Cause },
}

/// The part of the upstream that failed when a circuit opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The address, for all tenants.
    Address,
    /// The service, for one tenant.
    Service,
}

/// The state of a tenant's circuit to Refold, for readiness, metrics and the status page. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// All requests pass.
    Closed,
    /// One request may test the upstream, or does so now.
    HalfOpen,
    /// No request passes.
    Open,
}

/// The evidence that the end of a fetch gives about the upstream's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The upstream answered.
    Healthy,
    /// The failure may be the fault of the question.
    None,
    /// The upstream was too slow, or said that it is not available.
    Failing,
    /// There was no connection to the upstream.
    Unreachable,
}

/// The error for a request that an open circuit does not let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CircuitOpen {
    /// Time until the next probe.
    pub retry_after: Duration,
}

/// Permission to send one fetch through a circuit, to be returned with the fetch's result.
///
/// Dropped without a result it does not count; if it was for a probe, another request may probe at once.
#[derive(Debug)]
#[must_use]
pub(super) struct CircuitPermit<'a> {
    breaker: &'a Breaker,
    tenant: &'a str,
    account: FlowId,
    is_probe: bool,
    /// The circuit's number of changes when the fetch began.
    changes: u64,
}

impl Breaker {
    /// Makes a breaker whose circuits are closed.
    #[must_use]
    pub(super) fn new(settings: BreakerSettings, clock: Clock) -> Self {
        Self { settings, clock, state: Mutex::default() }
    }

    /// Adds a closed circuit for each tenant that has none.
    pub(super) fn add_circuits<'a>(&self, tenants: impl IntoIterator<Item = &'a Arc<str>>) {
        let mut state = self.state();
        for tenant in tenants {
            if !state.circuits.contains_key(tenant) {
                state.circuits.insert(Arc::clone(tenant), TenantCircuit::default());
            }
        }
    }

    /// Lets a fetch for a linked account pass, as the probe if the tenant's circuit is not closed.
    ///
    /// # Errors
    /// If the circuit is open, or another probe is in flight.
    pub(super) fn try_acquire<'a>(
        &'a self,
        tenant: &'a str,
        account: FlowId,
    ) -> Result<CircuitPermit<'a>, CircuitOpen> {
        let now = self.clock.now();
        let mut state = self.state();
        let mut permit = CircuitPermit { breaker: self, tenant, account, is_probe: false, changes: 0 };
        if let Some(circuit) = state.circuits.get_mut(tenant) {
            circuit.close_if_idle(now);
            circuit.state.check(now)?;
            permit.changes = circuit.changes;
            if let CircuitState::Open { cause, .. } | CircuitState::HalfOpen { cause, .. } = circuit.state {
                permit.is_probe = true;
                circuit.probes += 1;
                circuit.state = CircuitState::HalfOpen { next_probe: now + self.settings.open_for, cause };
            }
        }
        Ok(permit)
    }

    /// Checks that a request would pass now, without letting one pass.
    ///
    /// # Errors
    /// If the tenant's circuit is open, or a probe is in flight.
    pub(super) fn check(&self, tenant: &str) -> Result<(), CircuitOpen> {
        let now = self.clock.now();
        self.state().circuits.get_mut(tenant).map_or(Ok(()), |circuit| {
            circuit.close_if_idle(now);
            circuit.state.check(now)
        })
    }

    /// Returns the state of a tenant's circuit.
    #[must_use]
    pub(super) fn circuit(&self, tenant: &str) -> Circuit {
        let now = self.clock.now();
        let mut state = self.state();
        let circuit = state.circuits.get_mut(tenant).map(|circuit| {
            circuit.close_if_idle(now);
            &circuit.state
        });
        match circuit {
            None | Some(CircuitState::Closed(_)) => Circuit::Closed,
            Some(CircuitState::Open { until, .. }) if now < *until => Circuit::Open,
            Some(CircuitState::Open { .. } | CircuitState::HalfOpen { .. }) => Circuit::HalfOpen,
        }
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BreakerState {
    /// Counts a fetch, and opens the circuits that it shows to be failing. Returns their tenants.
    fn record(&mut self, permit: &CircuitPermit<'_>, evidence: Evidence, now: Moment) -> Vec<Arc<str>> {
        let BreakerSettings { failures, open_for } = permit.breaker.settings;
        let Some(circuit) = self.circuits.get_mut(permit.tenant) else { return Vec::new() };
        let CircuitState::Closed(window) = &mut circuit.state else { return Vec::new() };
        let is_unreachable = evidence == Evidence::Unreachable;
        let has_failed = is_unreachable || evidence == Evidence::Failing;
        let tenant_fails = window.record(permit.account, has_failed, now, failures);
        let address_fails = self.connects.record(permit.account, is_unreachable, now, failures);
        let until = now + open_for;
        if !address_fails {
            return if tenant_fails { self.open(permit.tenant, until).into_iter().collect() } else { Vec::new() };
        }
        self.connects.clear();
        let closed = self.circuits.iter_mut().filter(|(_, circuit)| matches!(circuit.state, CircuitState::Closed(_)));
        let opened = closed.map(|(tenant, circuit)| {
            circuit.change(CircuitState::Open { until, cause: Cause::Address });
            Arc::clone(tenant)
        });
        opened.collect()
    }

    /// Opens the circuit of one tenant, whose name it returns.
    fn open(&mut self, tenant: &str, until: Moment) -> Option<Arc<str>> {
        let tenant = Arc::clone(self.circuits.get_key_value(tenant)?.0);
        self.circuits.get_mut(&tenant)?.change(CircuitState::Open { until, cause: Cause::Service });
        Some(tenant)
    }

    /// Closes the circuit of a tenant after a successful probe; and, if it opened because the address failed, those of the other
    /// tenants that opened with it.
    fn close(&mut self, tenant: &str) {
        let Some(circuit) = self.circuits.get_mut(tenant) else { return };
        let Some(cause) = circuit.state.cause() else { return };
        circuit.change(CircuitState::default());
        if cause == Cause::Address {
            self.connects.clear();
            let others = self.circuits.values_mut().filter(|circuit| circuit.state.cause() == Some(cause));
            others.for_each(|circuit| circuit.change(CircuitState::default()));
        }
    }
}

impl TenantCircuit {
    fn change(&mut self, state: CircuitState) {
        self.state = state;
        self.changes += 1;
    }

    /// Closes a circuit that no request has probed for so long that the failures which opened it are out of date.
    fn close_if_idle(&mut self, now: Moment) {
        let idle_since = match self.state {
            CircuitState::Closed(_) => return,
            CircuitState::Open { until, .. } => until,
            CircuitState::HalfOpen { next_probe, .. } => next_probe,
        };
        if self.probes == 0 && now.since(idle_since) >= WINDOW {
            self.change(CircuitState::default());
        }
    }
}

impl Default for CircuitState {
    fn default() -> Self {
        Self::Closed(FailureWindow::default())
    }
}

impl CircuitState {
    fn check(&self, now: Moment) -> Result<(), CircuitOpen> {
        match *self {
            Self::Open { until: next, .. } | Self::HalfOpen { next_probe: next, .. } if now < next => {
                Err(CircuitOpen { retry_after: next.since(now) })
            }
            _ => Ok(()),
        }
    }

    fn cause(&self) -> Option<Cause> {
        match *self {
            Self::Closed(_) => None,
            Self::Open { cause, .. } | Self::HalfOpen { cause, .. } => Some(cause),
        }
    }
}

impl CircuitPermit<'_> {
    /// Returns true if the fetch tests whether the upstream has recovered.
    pub(super) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Records the evidence of the fetch's result. Returns the tenants whose circuits it opened.
    pub(super) fn end(self, evidence: Evidence) -> Vec<Arc<str>> {
        // A probe without a verdict is followed by another one: see `drop`.
        if evidence == Evidence::None {
            return Vec::new();
        }
        let now = self.breaker.clock.now();
        let mut state = self.breaker.state();
        let is_current = state.circuits.get(self.tenant).is_some_and(|circuit| circuit.changes == self.changes);
        let mut opened = Vec::new();
        if self.is_probe && evidence == Evidence::Healthy {
            // Also if another probe overtook this one: the upstream works.
            state.close(self.tenant);
        } else if self.is_probe && is_current {
            opened.extend(state.open(self.tenant, now + self.breaker.settings.open_for));
        } else if is_current {
            opened = state.record(&self, evidence, now);
        }
        // Else the fetch was sent before the circuit changed, and says nothing about the upstream now.
        drop(state);
        for tenant in &opened {
            tracing::warn!(%tenant, message = log_events::UPSTREAM_CIRCUIT_OPENED);
        }
        opened
    }
}

impl Drop for CircuitPermit<'_> {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        let mut state = self.breaker.state();
        let Some(circuit) = state.circuits.get_mut(self.tenant) else { return };
        circuit.probes -= 1;
        if circuit.changes == self.changes
            && let CircuitState::HalfOpen { next_probe, .. } = &mut circuit.state
        {
            *next_probe = self.breaker.clock.now();
        }
    }
}

#[cfg(test)]
mod tests;
