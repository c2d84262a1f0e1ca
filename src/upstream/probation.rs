//! Session tokens that Refold has not accepted: only one request of each is sent at a time, and the others wait for its result.
//!
//! A token that Refold accepted within the last day, but not in the last minute, waits for the org key's budget only, in a queue of
//! its own. All other tokens are strangers', and may be made up. They spend from the tenant's probation budget, which is shared
//! fairly between the peers that sent them, and all of them together hold at most a quarter of the places, of which each peer leaves
//! some to others. While requests wait for the org key's budget, the probation budget grants a tenth of its rate. So made-up tokens
//! neither spend what Refold grants to known callers, nor fill the places with requests that hang.

use std::time::Duration;

use super::call::FetchDemand;
use super::error::{self, FetchError};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::config;
use crate::error::ClientError;
use crate::http_client::TransportErrorKind;
use crate::limit::{Place, PlaceHolder, Places, Urgency};
use crate::tenant::{ProbationPermit, TokenStatus};

/// Strangers' tokens may hold one of so many places.
const STRANGERS_SHARE: usize = 4;

/// Lets requests of tokens that Refold has not accepted pass, shared by all tenants.
#[derive(Debug)]
pub(super) struct Probation {
    clock: Clock,
    /// Places for strangers' tokens; they need one of these first.
    places: Places,
    /// Longest wait for a place, or for Refold's verdict on a token.
    max_wait: Duration,
}

/// Permits a request of a token that Refold has not accepted.
#[derive(Debug)]
pub(super) struct ProbationPass<'a> {
    _turn: ProbationPermit<'a>,
    /// `None` for a token that was accepted within the last day.
    _place: Option<Place>,
}

impl Probation {
    pub(super) fn new(config: &config::UpstreamConfig, tenants: usize, clock: Clock) -> Self {
        let places = Places::shared_strictly(config.max_concurrent.div_ceil(STRANGERS_SHARE), tenants);
        Self { clock, places, max_wait: config.total_timeout }
    }

    /// Lets one request of a session token that is not accepted pass at a time, while the fetch is in demand. An accepted caller
    /// needs no pass.
    ///
    /// # Errors
    /// If Refold has refused the token, the probation budget is used up, there is no place, or the demand ends.
    pub(super) async fn pass<'a>(
        &self,
        caller: &'a Caller,
        demand: FetchDemand<'_>,
    ) -> Result<Option<ProbationPass<'a>>, FetchError> {
        if self.status(caller) == TokenStatus::Accepted {
            return Ok(None);
        }
        tokio::select! {
            pass = self.wait(caller) => Ok(pass?),
            () = demand.ended() => Err(FetchError::NoDemand),
        }
    }

    async fn wait<'a>(&self, caller: &'a Caller) -> Result<Option<ProbationPass<'a>>, ClientError> {
        let partition = caller.partition();
        let turn = self.within(partition.acquire_probation()).await?;
        match self.status(caller) {
            TokenStatus::Accepted => Ok(None),
            TokenStatus::Refused => Err(ClientError::invalid_credentials()),
            TokenStatus::Unproven if partition.was_accepted() => Ok(Some(ProbationPass { _turn: turn, _place: None })),
            TokenStatus::Unproven => {
                let place = self.admit_stranger(caller).await?;
                Ok(Some(ProbationPass { _turn: turn, _place: Some(place) }))
            }
        }
    }

    /// Waits for the probation budget and a place.
    async fn admit_stranger(&self, caller: &Caller) -> Result<Place, ClientError> {
        let (tenant, flow) = (caller.tenant(), caller.probation_flow());
        tenant.probation_budget.set_slowed(tenant.upstream_budget().queue_depth().total() > 0);
        let slot = tenant.probation_budget.acquire(flow, Urgency::Foreground, self.clock.now()).await;
        let slot = slot.map_err(|exhausted| error::too_many_unproven_tokens(exhausted.retry_after))?;
        let place = self.within(self.places.acquire(PlaceHolder { tenant: tenant.interned_id(), flow })).await?;
        slot.spend();
        Ok(place)
    }

    async fn within<T>(&self, wait: impl Future<Output = T>) -> Result<T, ClientError> {
        let timeout = tokio::time::timeout(self.max_wait, wait).await;
        timeout.map_err(|_| error::transport(TransportErrorKind::Timeout.into()))
    }

    fn status(&self, caller: &Caller) -> TokenStatus {
        caller.partition().token_status(self.clock.now())
    }
}
