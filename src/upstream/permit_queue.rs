//! Hands out permits for requests to Refold: within the org key's budget, fairly between credentials and their linked accounts, and
//! at most `max_concurrent` at once, fairly between tenants too.
//! A session token that Refold has not accepted passes `probation` first.

use std::time::Duration;

use super::call::{FetchDemand, UpstreamCall};
use super::error::{self, FetchError};
use super::probation::{Probation, ProbationPass};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::config;
use crate::error::ClientError;
use crate::limit::{BudgetSlot, Place, PlaceHolder, Places, UpstreamBudget, Urgency};
use crate::tenant::{OrgKey, TokenStatus};

/// The queue for permits, shared by all tenants.
#[derive(Debug)]
pub(super) struct PermitQueue {
    clock: Clock,
    places: Places,
    probation: Probation,
    /// Longest wait for a place.
    max_wait: Duration,
}

/// The right to send a request now. Held until the response has arrived.
#[derive(Debug)]
pub(super) struct UpstreamPermit<'a> {
    /// The org key whose budget was spent.
    pub(super) key: OrgKey,
    _place: Place,
    _probation: Option<ProbationPass<'a>>,
}

impl PermitQueue {
    pub(super) fn new(config: &config::UpstreamConfig, tenants: usize, clock: Clock) -> Self {
        Self {
            places: Places::new(config.max_concurrent, tenants),
            probation: Probation::new(config, tenants, clock.clone()),
            clock,
            max_wait: config.total_timeout,
        }
    }

    /// The present time.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Waits for a permit while the fetch is in demand.
    ///
    /// # Errors
    /// If the budget is used up, all places stay taken, Refold has refused the session token, or the demand ends.
    pub(super) async fn acquire<'a>(
        &'a self,
        call: &UpstreamCall<'a>,
        demand: FetchDemand<'_>,
    ) -> Result<UpstreamPermit<'a>, FetchError> {
        check_token_pause(call.caller)?;
        let probation = self.probation.pass(call.caller, demand).await?;
        check_token_pause(call.caller)?;
        let key = call.caller.org_key();
        let budget = call.caller.tenant().org_keys().budget(key);
        let slot = self.acquire_slot(call, budget, demand).await?;
        let (tenant, flow) = (call.caller.tenant().interned_id(), call.caller.flow(self.clock.now()));
        let holder = PlaceHolder { tenant, flow };
        let (place, slot) = if let Some(place) = self.places.try_acquire(holder) {
            (place, slot)
        } else {
            // The budget grants a request for the present moment: requests that wait for a place with their slot would be sent in
            // a burst above the rate.
            drop(slot);
            (self.acquire_place(holder, demand).await?, self.acquire_slot(call, budget, demand).await?)
        };
        // The token may have been paused while this request waited.
        check_token_pause(call.caller)?;
        slot.spend();
        Ok(UpstreamPermit { key, _place: place, _probation: probation })
    }

    /// Spends the budget of an org key for one more request under a permit.
    ///
    /// # Errors
    /// If the budget is used up.
    pub(super) async fn acquire_again(&self, call: &UpstreamCall<'_>, key: OrgKey) -> Result<(), ClientError> {
        let wait = call.telemetry.budget_wait();
        let now = self.clock.now();
        let flow = call.caller.flow(now);
        let budget = call.caller.tenant().org_keys().budget(key);
        let granted = budget.acquire(flow, Urgency::Foreground, now).await;
        wait.end(Urgency::Foreground, &granted);
        granted.map(BudgetSlot::spend).map_err(error::budget_exceeded)
    }

    /// Takes one more place if there is one at once, and waits for the budget of an org key for a request in it. A session token
    /// that Refold has not accepted, or has asked to pause, gets none.
    pub(super) async fn acquire_beside(&self, call: &UpstreamCall<'_>, key: OrgKey) -> Option<Place> {
        let (caller, now) = (call.caller, self.clock.now());
        if caller.partition().token_status(now) != TokenStatus::Accepted || caller.token_pause().is_some() {
            return None;
        }
        let holder = PlaceHolder { tenant: caller.tenant().interned_id(), flow: caller.flow(now) };
        let place = self.places.try_acquire(holder)?;
        self.acquire_again(call, key).await.ok()?;
        Some(place)
    }

    /// Waits for the org key's budget, in the queue of the present urgency.
    ///
    /// A background fetch moves to the foreground as soon as a caller waits for it. When the last caller disconnects, a fetch
    /// that began in the background returns there, and a fetch that began in the foreground is cancelled.
    async fn acquire_slot(
        &self,
        call: &UpstreamCall<'_>,
        budget: &UpstreamBudget,
        demand: FetchDemand<'_>,
    ) -> Result<BudgetSlot, FetchError> {
        let FetchDemand { urgency: first, demand, stale, is_comparison } = demand;
        let wait = call.telemetry.budget_wait();
        // Comparisons are not the account's own demand, so they do not use up its turns.
        let flow = if is_comparison { call.caller.comparison_flow() } else { call.caller.flow(self.clock.now()) };
        let mut urgency = first;
        let granted = loop {
            // Of one account's fetches, the one that renews the oldest entry is first.
            let oldest = if is_comparison { Moment::default() } else { self.clock.now() };
            let renews = stale.map_or(oldest, |entry| entry.request_time.min(oldest));
            let granted = budget.acquire(flow, urgency, renews);
            urgency = match urgency {
                Urgency::Background => tokio::select! {
                    biased;
                    granted = granted => break granted,
                    () = demand.gained() => Urgency::Foreground,
                },
                Urgency::Foreground => tokio::select! {
                    biased;
                    granted = granted => break granted,
                    () = demand.lost() => match first {
                        Urgency::Foreground => {
                            wait.abandon();
                            return Err(FetchError::NoDemand);
                        }
                        Urgency::Background => Urgency::Background,
                    },
                },
            };
        };
        wait.end(urgency, &granted);
        granted.map_err(|exhausted| error::budget_exceeded(exhausted).into())
    }

    /// Waits for one of the places in flight.
    async fn acquire_place(&self, holder: PlaceHolder, demand: FetchDemand<'_>) -> Result<Place, FetchError> {
        tokio::select! {
            place = self.places.acquire(holder) => Ok(place),
            () = demand.ended() => Err(FetchError::NoDemand),
            () = self.clock.sleep_until(self.clock.now() + self.max_wait) => Err(error::too_many_in_flight().into()),
        }
    }
}

/// Refuses a request of a session token that Refold has asked to pause.
fn check_token_pause(caller: &Caller) -> Result<(), ClientError> {
    caller.token_pause().map_or(Ok(()), |pause| Err(error::token_paused(pause)))
}
