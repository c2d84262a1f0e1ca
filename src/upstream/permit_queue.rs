//! Hands out permits for requests to Refold: within the org key's budget, fairly between linked accounts, and at most
//! `max_concurrent` at once.
//!
//! A session token that Refold has not accepted yet also needs a share of the tenant's probation budget, and only one of its
//! requests is sent at a time, so made-up tokens can't spend what Refold grants to known callers.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::call::{FetchDemand, UpstreamCall};
use super::error::{self, FetchError};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::config;
use crate::error::ClientError;
use crate::http_client::TransportErrorKind;
use crate::limit::{UpstreamBudget, Urgency};
use crate::tenant::{OrgKey, ProbationPermit, TokenStatus};

/// The queue for permits, shared by all tenants.
#[derive(Debug)]
pub(super) struct PermitQueue {
    clock: Clock,
    places: Semaphore,
    /// Longest wait for a place, or for the verdict on a session token.
    max_wait: Duration,
}

/// The right to send a request now. Held until the response has arrived.
#[derive(Debug)]
pub(super) struct UpstreamPermit<'a> {
    /// The org key whose budget was spent.
    pub(super) key: OrgKey,
    _place: SemaphorePermit<'a>,
    _probation: Option<ProbationPermit<'a>>,
}

impl PermitQueue {
    pub(super) fn new(config: &config::Upstream, clock: Clock) -> Self {
        Self { clock, places: Semaphore::new(config.max_concurrent), max_wait: config.total_timeout }
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
        let place = if let Ok(place) = self.places.try_acquire() {
            place
        } else {
            let place = self.acquire_place(demand).await?;
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
        let (flow, now) = (call.caller.partition().flow_id(), self.clock.now());
        let budget = call.caller.tenant().org_keys().budget(key);
        let granted = budget.acquire(flow, Urgency::Foreground, now).await;
        wait.end(Urgency::Foreground, &granted);
        granted.map_err(error::budget_exceeded)
    }

    /// Waits for the org key's budget, in the queue of the present urgency.
    ///
    /// A background fetch joins the foreground as soon as a caller waits for it, and goes back when the last one disconnects. A
    /// fetch that began in the foreground is cancelled then.
    async fn spend_budget(
        &self,
        call: &UpstreamCall<'_>,
        budget: &UpstreamBudget,
        demand: FetchDemand<'_>,
    ) -> Result<(), FetchError> {
        let FetchDemand { urgency: first, demand, stale } = demand;
        let wait = call.telemetry.budget_wait();
        let flow = call.caller.partition().flow_id();
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
    async fn acquire_place(&self, demand: FetchDemand<'_>) -> Result<SemaphorePermit<'_>, FetchError> {
        let lost = async {
            match demand.urgency {
                Urgency::Foreground => demand.demand.lost().await,
                Urgency::Background => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(place) = self.places.acquire() => Ok(place),
            () = lost => Err(FetchError::NoDemand),
            () = self.clock.sleep_until(self.clock.now() + self.max_wait) => Err(error::too_many_in_flight().into()),
        }
    }

    /// Lets one request of an unproven session token pass at a time; the others wait for Refold's verdict on it.
    async fn pass_probation<'a>(&self, caller: &'a Caller) -> Result<Option<ProbationPermit<'a>>, ClientError> {
        let partition = caller.partition();
        if partition.token_status(self.clock.now()) == TokenStatus::Accepted {
            return Ok(None);
        }
        let first = tokio::time::timeout(self.max_wait, partition.acquire_probation()).await;
        let probation = first.map_err(|_| error::transport(TransportErrorKind::Timeout.into()))?;
        let now = self.clock.now();
        match partition.token_status(now) {
            TokenStatus::Accepted => Ok(None),
            TokenStatus::Refused => Err(ClientError::invalid_credentials()),
            TokenStatus::Unproven => match caller.tenant().unproven_budget.spend(now).refused {
                None => Ok(Some(probation)),
                Some(retry_after) => Err(error::too_many_unproven_tokens(retry_after)),
            },
        }
    }
}

/// Refuses a request of a session token that Refold has asked to pause.
fn check_token_pause(caller: &Caller) -> Result<(), ClientError> {
    caller.token_pause().map_or(Ok(()), |pause| Err(error::token_paused(pause)))
}
