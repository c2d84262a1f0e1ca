//! Hands out permits for requests to Refold: within the org key's budget, fairly between credentials and their linked accounts, and
//! at most `max_concurrent` at once, fairly between tenants too.
//!
//! A session token that Refold has not accepted yet also needs a share of the tenant's probation budget, and only one of its
//! requests is sent at a time, so made-up tokens can't spend what Refold grants to known callers. All of them together hold at most
//! a quarter of the places, so they can't fill those either with requests that hang.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::call::{FetchDemand, UpstreamCall};
use super::error::{self, FetchError};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::config;
use crate::error::ClientError;
use crate::http_client::TransportErrorKind;
use crate::limit::{Place, PlaceHolder, Places, UpstreamBudget, Urgency};
use crate::tenant::{OrgKey, ProbationPermit, TokenStatus};

/// Session tokens that Refold has not accepted may hold one of so many places.
const UNPROVEN_SHARE: usize = 4;

/// The queue for permits, shared by all tenants.
#[derive(Debug)]
pub(super) struct PermitQueue {
    clock: Clock,
    places: Places,
    /// Places that session tokens may hold which Refold has not accepted; they need one of these first.
    unproven_places: Semaphore,
    /// Longest wait for a place, or for the verdict on a session token.
    max_wait: Duration,
}

/// The right to send a request now. Held until the response has arrived.
#[derive(Debug)]
pub(super) struct UpstreamPermit<'a> {
    /// The org key whose budget was spent.
    pub(super) key: OrgKey,
    _place: Place,
    _probation: Option<(ProbationPermit<'a>, SemaphorePermit<'a>)>,
}

impl PermitQueue {
    pub(super) fn new(config: &config::UpstreamConfig, tenants: usize, clock: Clock) -> Self {
        Self {
            clock,
            places: Places::new(config.max_concurrent, tenants),
            unproven_places: Semaphore::new(config.max_concurrent.div_ceil(UNPROVEN_SHARE)),
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
        let probation = self.pass_probation(call.caller).await?;
        check_token_pause(call.caller)?;
        let key = call.caller.org_key();
        let budget = call.caller.tenant().org_keys().budget(key);
        self.spend_budget(call, budget, demand).await?;
        let (tenant, flow) = (call.caller.tenant().interned_id(), call.caller.flow(self.clock.now()));
        let holder = PlaceHolder { tenant, flow };
        let place = if let Some(place) = self.places.try_acquire(holder) {
            place
        } else {
            let place = self.acquire_place(holder, demand).await?;
            // The budget granted the request for an earlier moment. Without a second grant, requests that waited for a place
            // would be sent in a burst above the rate.
            self.spend_budget(call, budget, demand).await?;
            place
        };
        // The token may have been paused while this request waited.
        check_token_pause(call.caller)?;
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
        granted.map_err(error::budget_exceeded)
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
    async fn spend_budget(
        &self,
        call: &UpstreamCall<'_>,
        budget: &UpstreamBudget,
        demand: FetchDemand<'_>,
    ) -> Result<(), FetchError> {
        let FetchDemand { urgency: first, demand, stale } = demand;
        let wait = call.telemetry.budget_wait();
        let flow = call.caller.flow(self.clock.now());
        let mut urgency = first;
        let granted = loop {
            // Of one account's fetches, the one that renews the oldest entry is first.
            let renews = stale.map_or(self.clock.now(), |entry| entry.request_time);
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
        let lost = async {
            match demand.urgency {
                Urgency::Foreground => demand.demand.lost().await,
                Urgency::Background => std::future::pending().await,
            }
        };
        tokio::select! {
            place = self.places.acquire(holder) => Ok(place),
            () = lost => Err(FetchError::NoDemand),
            () = self.clock.sleep_until(self.clock.now() + self.max_wait) => Err(error::too_many_in_flight().into()),
        }
    }

    /// Lets one request of an unproven session token pass at a time; the others wait for Refold's verdict on it.
    async fn pass_probation<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> Result<Option<(ProbationPermit<'a>, SemaphorePermit<'a>)>, ClientError> {
        let partition = caller.partition();
        if partition.token_status(self.clock.now()) == TokenStatus::Accepted {
            return Ok(None);
        }
        let turn = async {
            let probation = partition.acquire_probation().await;
            (probation, self.unproven_places.acquire().await.expect("the semaphore is never closed"))
        };
        let first = tokio::time::timeout(self.max_wait, turn).await;
        let turn = first.map_err(|_| error::transport(TransportErrorKind::Timeout.into()))?;
        let now = self.clock.now();
        match partition.token_status(now) {
            TokenStatus::Accepted => Ok(None),
            TokenStatus::Refused => Err(ClientError::invalid_credentials()),
            TokenStatus::Unproven => match caller.tenant().unproven_budget.spend(now).refused {
                None => Ok(Some(turn)),
                Some(retry_after) => Err(error::too_many_unproven_tokens(retry_after)),
            },
        }
    }
}

/// Refuses a request of a session token that Refold has asked to pause.
fn check_token_pause(caller: &Caller) -> Result<(), ClientError> {
    caller.token_pause().map_or(Ok(()), |pause| Err(error::token_paused(pause)))
}
