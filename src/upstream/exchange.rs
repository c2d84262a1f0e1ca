//! One exchange with Refold: permit, circuit, attempt and, after a 401, another attempt with the tenant's other org key.
//!
//! Every request to Refold is sent by [`Exchange::send`]: fetches, actions and pass-through requests only differ in the request
//! that they build and in the way they receive the response, buffered or streaming.

use http::{Request, Response, StatusCode};
use tokio::sync::SemaphorePermit;

use super::call::{FetchDemand, UpstreamCall};
use super::error::{self, FetchError};
use super::health::{Breaker, CircuitPermit, FailureEffect};
use super::permit_queue::{PermitQueue, UpstreamPermit};
use super::request;
use super::retry_after::RetryAfter;
use crate::caller::{Caller, Credential};
use crate::error::ClientError;
use crate::http_client::{RequestBody, ResendPermits, TransportError, TransportErrorKind};
use crate::log_events;
use crate::observe::UpstreamOutcome;
use crate::tenant::{OrgKey, UpstreamVerdict};

/// One exchange with Refold, which holds its permit until it is dropped.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    breaker: &'a Breaker,
    permits: &'a PermitQueue,
    retry_after: &'a RetryAfter,
    call: &'a UpstreamCall<'a>,
    _permit: UpstreamPermit<'a>,
}

impl<'a> Exchange<'a> {
    /// Waits for a permit.
    ///
    /// # Errors
    /// If the circuit is open, or there is no permit.
    pub(super) async fn begin(
        breaker: &'a Breaker,
        permits: &'a PermitQueue,
        retry_after: &'a RetryAfter,
        call: &'a UpstreamCall<'a>,
        demand: FetchDemand<'_>,
    ) -> Result<Self, FetchError> {
        // While the circuit is open, no request waits for a permit or spends budget.
        breaker.check().map_err(error::circuit_open)?;
        let permit = permits.acquire(call, demand).await?;
        Ok(Self { breaker, permits, retry_after, call, _permit: permit })
    }

    /// Sends a request by means of `transmit`, and records the verdict of the response on the credential and the budget.
    ///
    /// If Refold answers 401 to an org key that the gateway put in, the request is sent again with the other key, so keys are
    /// rotated without a failed request. A streamed body can't be sent again.
    ///
    /// # Errors
    /// If the circuit is open, there is no response, or the budget for a second attempt is used up. A response with an error
    /// status is no error here.
    pub(super) async fn send<B, F>(
        &self,
        request: Request<RequestBody>,
        transmit: impl Fn(Request<RequestBody>) -> F,
    ) -> Result<Response<B>, ClientError>
    where
        F: Future<Output = Result<Response<B>, TransportError>>,
    {
        let caller = self.call.caller;
        let keys = caller.tenant().org_keys();
        let key = org_key(caller);
        let fallback = keys.fallback(key).filter(|_| caller.injects_org_key());
        let fallback = fallback.and_then(|other| Some((other, request::try_clone(&request)?)));
        let mut response = self.attempt(request, key, &transmit).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some((other, request)) = fallback
        {
            drop(response);
            self.permits.acquire_again(self.call).await?;
            response = self.attempt(request, other, &transmit).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                keys.promote(other);
            }
        }
        self.record_verdict(&response);
        Ok(response)
    }

    /// Sends a request once, if the circuit lets it pass.
    async fn attempt<B, F>(
        &self,
        mut request: Request<RequestBody>,
        key: OrgKey,
        transmit: impl Fn(Request<RequestBody>) -> F,
    ) -> Result<Response<B>, ClientError>
    where
        F: Future<Output = Result<Response<B>, TransportError>>,
    {
        request::insert_credential(request.headers_mut(), self.call.caller, key);
        let is_streamed = request::is_streamed(&request);
        let permit = self.breaker.try_acquire().map_err(error::circuit_open)?;
        let attempt = self.call.telemetry.attempt(&mut request);
        let result = transmit(request).await;
        attempt.end(match &result {
            Ok(response) => UpstreamOutcome::Answered(response.status()),
            Err(error) => UpstreamOutcome::Failed(error.kind()),
        });
        match &result {
            Ok(response) if !response.status().is_server_error() => permit.succeeded(),
            // Refold responded; the size of its response says nothing about its health.
            Err(error) if matches!(error.kind(), TransportErrorKind::TooLarge { .. }) => permit.succeeded(),
            // The caller may have caused the failure: its request body may not have arrived.
            Err(_) if is_streamed => drop(permit),
            _ => self.record_failure(permit),
        }
        result.map_err(error::transport)
    }

    /// Records what the status of a response says about the credential and the org key's budget.
    fn record_verdict<B>(&self, response: &Response<B>) {
        let caller = self.call.caller;
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => {
                caller.tenant().upstream_budget.pause(self.retry_after.pause(response.headers()));
            }
            StatusCode::UNAUTHORIZED => {
                if !matches!(caller.credential(), Credential::SessionToken(_)) {
                    tracing::error!(tenant = %caller.tenant().config.id, message = log_events::UPSTREAM_REJECTED_ORG_KEY);
                }
                caller.record_upstream_verdict(UpstreamVerdict::Refused);
            }
            // A 304 too is only given to a credential that Refold accepts.
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => {
                caller.record_upstream_verdict(UpstreamVerdict::Accepted);
            }
            _ => {}
        }
    }

    fn record_failure(&self, permit: CircuitPermit<'_>) {
        if permit.failed() == FailureEffect::CircuitOpened {
            self.call.telemetry.count_opened_circuit();
        }
    }
}

impl<'a> ResendPermits for Exchange<'a> {
    type Permit = SemaphorePermit<'a>;

    fn try_acquire(&self) -> Option<Self::Permit> {
        self.permits.try_acquire(self.call)
    }

    async fn acquire(&self) -> bool {
        self.permits.acquire_again(self.call).await.is_ok()
    }
}

/// Returns the org key to send on behalf of a caller: the caller's own if it presented one, otherwise the active one.
fn org_key(caller: &Caller) -> OrgKey {
    match caller.credential() {
        Credential::OrgKey(key) => *key,
        _ => caller.tenant().org_keys().active(),
    }
}
