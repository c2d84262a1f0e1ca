//! One exchange with Refold: permit, circuit, attempt and, after a 401, another attempt with the tenant's other org key.
//!
//! Every request to Refold is sent by [`Exchange::send`]: fetches, actions and pass-through requests only differ in the request
//! that they build and in the way they receive the response, buffered or streaming.

use http::{Request, Response, StatusCode};

use super::call::{FetchDemand, UpstreamCall};
use super::error::{self, FetchError};
use super::health::{Breaker, CircuitPermit, Evidence};
use super::permit_queue::{PermitQueue, UpstreamPermit};
use super::request;
use super::retry_after::RetryAfter;
use crate::caller::Caller;
use crate::error::ClientError;
use crate::http_client::{
    ConnectionChoice, ExchangePhase, RequestBody, ResendPermits, TransportError, TransportErrorKind,
};
use crate::limit::Place;
use crate::observe::UpstreamOutcome;
use crate::tenant::{OrgKey, TokenStatus, UpstreamVerdict};

/// One exchange with Refold, which holds its permit until it is dropped.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    breaker: &'a Breaker,
    permits: &'a PermitQueue,
    call: &'a UpstreamCall<'a>,
    kind: ExchangeKind,
    permit: UpstreamPermit<'a>,
}

/// The kind of an exchange, which decides whether its result says something about Refold's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExchangeKind {
    /// An endpoint of the executions API.
    Executions,
    /// A route of the allow-list, whose duration and status only its caller understands.
    PassThrough,
}

impl<'a> Exchange<'a> {
    /// Waits for a permit.
    ///
    /// # Errors
    /// If the circuit is open, or there is no permit.
    pub(super) async fn begin(
        breaker: &'a Breaker,
        permits: &'a PermitQueue,
        call: &'a UpstreamCall<'a>,
        kind: ExchangeKind,
        demand: FetchDemand<'_>,
    ) -> Result<Self, FetchError> {
        // While the circuit is open, no request waits for a permit or spends budget.
        breaker.check(&call.caller.tenant().config.id).map_err(error::circuit_open)?;
        let permit = permits.acquire(call, demand).await?;
        Ok(Self { breaker, permits, call, kind, permit })
    }

    /// Sends a request by means of `transmit`, which also gets the choice of a connection and the permits for further requests, and records the verdict of the response on the credential and the budget.
    /// `retry_after` reads the pause that a 429 asks for.
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
        retry_after: &RetryAfter,
        transmit: impl Fn(Request<RequestBody>, ConnectionChoice, AttemptPermits<'a>) -> F,
    ) -> Result<Response<B>, ClientError>
    where
        F: Future<Output = Result<Response<B>, TransportError>>,
    {
        let caller = self.call.caller;
        let keys = caller.tenant().org_keys();
        let key = self.permit.key;
        let fallback = keys.fallback(key).filter(|_| caller.injects_org_key());
        let fallback = fallback.and_then(|other| Some((other, request::try_clone(&request)?)));
        let (mut response, mut sent) = (self.attempt(request, key, &transmit).await?, key);
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some((other, request)) = fallback
        {
            drop(response);
            self.permits.acquire_again(self.call, other).await?;
            sent = other;
            response = self.attempt(request, other, &transmit).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                keys.promote(other);
            }
        }
        record_verdict(caller, sent, &response, retry_after);
        Ok(response)
    }

    /// Sends a request once, if the circuit lets it pass.
    async fn attempt<B, F>(
        &self,
        mut request: Request<RequestBody>,
        key: OrgKey,
        transmit: impl Fn(Request<RequestBody>, ConnectionChoice, AttemptPermits<'a>) -> F,
    ) -> Result<Response<B>, ClientError>
    where
        F: Future<Output = Result<Response<B>, TransportError>>,
    {
        request::insert_credential(request.headers_mut(), self.call.caller, key);
        let permit = self.pass_circuit()?;
        let attempt = self.call.telemetry.attempt(&mut request);
        let is_probe = permit.as_ref().is_some_and(CircuitPermit::is_probe);
        // A probe says something about the upstream only if it does not depend on what became of earlier connections.
        let connection = if is_probe { ConnectionChoice::New } else { ConnectionChoice::Idle };
        let permits = AttemptPermits { permits: self.permits, call: self.call, key };
        let result = transmit(request, connection, permits).await;
        attempt.end(match &result {
            Ok(response) => UpstreamOutcome::Answered(response.status()),
            Err(error) => UpstreamOutcome::Failed(error.kind()),
        });
        if let Some(permit) = permit {
            for tenant in permit.end(evidence(&result)) {
                self.call.telemetry.count_opened_circuit(&tenant);
            }
        }
        result.map_err(error::transport)
    }

    /// Passes the tenant's circuit. No permit means that the result does not count, and that this is no probe.
    ///
    /// # Errors
    /// If the circuit is open.
    fn pass_circuit(&self) -> Result<Option<CircuitPermit<'_>>, ClientError> {
        let caller = self.call.caller;
        let (tenant, partition) = (&*caller.tenant().config.id, caller.partition());
        let counts = self.kind == ExchangeKind::Executions
            && partition.token_status(self.permits.now()) == TokenStatus::Accepted;
        let permit = if counts {
            self.breaker.try_acquire(tenant, partition.flow_id()).map(Some)
        } else {
            self.breaker.check(tenant).map(|()| None)
        };
        permit.map_err(error::circuit_open)
    }
}

/// Permits for the further requests of one attempt, from the budget of the org key that it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptPermits<'a> {
    permits: &'a PermitQueue,
    call: &'a UpstreamCall<'a>,
    key: OrgKey,
}

impl ResendPermits for AttemptPermits<'_> {
    type Permit = Place;

    async fn acquire_beside(&self) -> Option<Place> {
        self.permits.acquire_beside(self.call, self.key).await
    }

    async fn acquire(&self) -> bool {
        self.permits.acquire_again(self.call, self.key).await.is_ok()
    }
}

/// Returns what the result of an attempt says about Refold's health.
fn evidence<B>(result: &Result<Response<B>, TransportError>) -> Evidence {
    match result {
        Ok(response) => match response.status() {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Evidence::Failing
            }
            status if status.is_server_error() => Evidence::None,
            _ => Evidence::Healthy,
        },
        Err(error) => match (error.kind(), error.phase()) {
            (_, ExchangePhase::Connect) => Evidence::Unreachable,
            (TransportErrorKind::Timeout, _) => Evidence::Failing,
            // Refold responded; the size of its response says nothing about its health.
            (TransportErrorKind::TooLarge { .. }, _) => Evidence::Healthy,
            (
                TransportErrorKind::Unreachable | TransportErrorKind::Incomplete | TransportErrorKind::InvalidResponse,
                _,
            ) => Evidence::None,
        },
    }
}

/// Records what the status of a response says about the credential and its budget. `key` is the org key that was sent, if any
/// was.
fn record_verdict<B>(caller: &Caller, key: OrgKey, response: &Response<B>, retry_after: &RetryAfter) {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => {
            caller.record_upstream_pause(key, retry_after.pause(response.headers()));
        }
        StatusCode::UNAUTHORIZED => {
            caller.record_upstream_verdict(key, UpstreamVerdict::Refused);
        }
        // A 304 too is only given to a credential that Refold accepts.
        status if status.is_success() || status == StatusCode::NOT_MODIFIED => {
            caller.record_upstream_verdict(key, UpstreamVerdict::Accepted);
        }
        _ => {}
    }
}
