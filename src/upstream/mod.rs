//! Sends requests to Refold and reads its responses. The files, in the order in which a request meets them:
//!
//! - [`Upstream`]: the public calls: fetch a document, act on an execution, forward a pass-through request
//! - `exchange`: one exchange: permit, circuit, attempt, the other org key after a 401
//! - `permit_queue`: the org key's budget, requests in flight
//! - `probation`: session tokens that Refold has not accepted
//! - `health`: the circuit breakers
//! - `request`: requests, built from scratch
//! - `key_scan`: the search for org keys in a pass-through response
//! - `passed_headers`: the headers of a pass-through response that reach the caller
//! - `response`: responses, brought into the contract's form
//! - `verify`: checks of the org keys
//! - `retry_after`: the pause that a response asks for
//! - `retry`: whether a failed fetch is sent again, and when
//!
//! This module does not know the store: the result of a fetch is a document, of which the module `fetch` makes an entry.

mod call;
mod error;
mod exchange;
mod forwarded_body;
mod health;
mod key_scan;
mod passed_headers;
mod permit_queue;
mod probation;
mod request;
mod response;
mod retry;
mod retry_after;
mod telemetry;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, HeaderValue};
use http::request::Parts;
use http::{Method, Response, response as http_response};
use hyper::body::Body;
use tokio::sync::oneshot;

pub use self::call::{FetchDemand, UpstreamCall};
pub use self::error::FetchError;
use self::exchange::{Exchange, ExchangeKind};
pub use self::forwarded_body::ForwardedBody;
use self::forwarded_body::forwarded;
use self::health::Breaker;
pub use self::health::Circuit;
use self::key_scan::KeyScan;
use self::passed_headers::PassedHeaders;
use self::permit_queue::PermitQueue;
pub use self::response::{ActionResult, Fetched, FetchedContent};
use self::retry::{Retry, RetryBudget};
pub use self::retry_after::RetryAfter;
pub use self::telemetry::{UpstreamCost, UpstreamTelemetry};
pub use self::verify::ask_about_key;
use crate::cache::Demand;
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::config::{Config, PassThrough, Scope};
use crate::error::{ClientError, Reason};
use crate::executions::{ForwardedParameters, PathId, Question};
use crate::fleet::DropReach;
use crate::http_client::{
    BufferedResponse, RequestBody, ResponseBody, StreamLimits, TransportErrorKind, UploadFailure, buffered, streamed,
    upload,
};
use crate::limit::Urgency;
use crate::offload;
use crate::request::body::{self, CallerBody};
use crate::request::other_account;
use crate::tenant::TokenStatus;

/// Largest pass-through request body that is buffered, so that it can be sent again with the other org key; in bytes.
const MAX_BUFFERED_BODY: u64 = 64 << 10;

/// Sends requests to Refold: within budgets and time limits, through the circuit breaker, with retries.
///
/// One for all workers; a worker's own connections are in the [`UpstreamCall`].
#[derive(Debug)]
pub struct Upstream {
    config: Arc<Config>,
    clock: Clock,
    permits: Arc<PermitQueue>,
    breaker: Arc<Breaker>,
    retries: Arc<Retries>,
    retry_after: RetryAfter,
}

/// The credit for retries of known callers, and of session tokens that Refold has not accepted.
#[derive(Debug, Default)]
struct Retries {
    known: RetryBudget,
    unproven: RetryBudget,
}

impl Upstream {
    /// Makes the upstream of a configuration, with closed circuits.
    #[must_use]
    pub fn new(config: Arc<Config>, clock: Clock) -> Self {
        let breaker = Arc::new(Breaker::new(config.upstream.breaker, clock.clone()));
        breaker.add_circuits(config.tenants.iter().map(|tenant| &tenant.id));
        let permits = Arc::new(PermitQueue::new(&config.upstream, config.tenants.len(), clock.clone()));
        let retry_after = RetryAfter::new(clock.clone(), config.upstream.max_retry_after);
        Self { config, clock, permits, breaker, retries: Arc::default(), retry_after }
    }

    /// Makes the upstream of a changed configuration.
    ///
    /// The circuits' state is kept if the base URL and the breaker's settings are the same. The requests in flight stay counted
    /// if `max_concurrent` and `total_timeout` are the same, and the number of tenants.
    #[must_use]
    pub fn reconfigured(&self, config: &Arc<Config>) -> Self {
        let (old, new) = (&self.config.upstream, &config.upstream);
        let same_breaker = old.breaker == new.breaker && old.base_url == new.base_url;
        let same_permits = old.max_concurrent == new.max_concurrent
            && old.total_timeout == new.total_timeout
            && self.config.tenants.len() == config.tenants.len();
        let fresh = Self::new(Arc::clone(config), self.clock.clone());
        if same_breaker {
            self.breaker.add_circuits(config.tenants.iter().map(|tenant| &tenant.id));
        }
        Self {
            permits: if same_permits { Arc::clone(&self.permits) } else { fresh.permits },
            breaker: if same_breaker { Arc::clone(&self.breaker) } else { fresh.breaker },
            retries: Arc::clone(&self.retries),
            ..fresh
        }
    }

    /// Returns the state of a tenant's circuit.
    #[must_use]
    pub fn circuit(&self, tenant: &str) -> Circuit {
        self.breaker.circuit(tenant)
    }

    /// Fetches the document for a question; conditionally if `demand` has a stale entry with a validator.
    ///
    /// # Errors
    /// If there is no response, the response is an error or invalid, or the demand ends before the request is sent.
    pub async fn fetch(
        &self,
        call: &UpstreamCall<'_>,
        question: &Question,
        demand: FetchDemand<'_>,
    ) -> Result<Fetched, FetchError> {
        let validator = demand.stale.and_then(|entry| entry.validator.as_ref());
        // Boxed: this future is large, and the tasks and futures around it are moved several times.
        let exchange = Box::pin(self.fetch_with_retries(call, question, validator, demand));
        let (request_time, response) = exchange.await?;
        let no_store = self.config.cache.honour_no_store && response::has_no_store(response.headers());
        let content = self.content(call.caller, question, validator.is_some(), response).await?;
        Ok(Fetched { request_time, no_store, content })
    }

    /// Reads the response to a fetch; a large one off the worker's thread.
    async fn content(
        &self,
        caller: &Caller,
        question: &Question,
        is_conditional: bool,
        response: BufferedResponse,
    ) -> Result<FetchedContent, ClientError> {
        if !offload::is_heavy(response.body().len()) {
            return response::content(caller, question, is_conditional, response, &self.retry_after);
        }
        let (caller, question, retry_after) = (caller.clone(), question.clone(), self.retry_after.clone());
        offload::run(move || response::content(&caller, &question, is_conditional, response, &retry_after)).await
    }

    /// Returns the last response, and when its request was sent.
    async fn fetch_with_retries(
        &self,
        call: &UpstreamCall<'_>,
        question: &Question,
        validator: Option<&HeaderValue>,
        demand: FetchDemand<'_>,
    ) -> Result<(Moment, BufferedResponse), FetchError> {
        let retries = self.retries_of(call);
        retries.deposit();
        let begin = || Exchange::begin(&self.breaker, &self.permits, call, ExchangeKind::Executions, demand);
        let mut exchange = begin().await?;
        let mut deadline = None;
        let mut number = 0;
        loop {
            let request_time = self.clock.now();
            // One deadline for all attempts and the pauses between them. The first wait for a permit does not count: the
            // permit queue bounds it.
            let deadline = *deadline.get_or_insert(request_time + self.total_timeout());
            if request_time >= deadline {
                return Err(error::transport(TransportErrorKind::Timeout.into()).into());
            }
            let request = request::fetch(self.config.upstream.dialect, question, validator)?;
            let send = |request, connection, permits| {
                let time_left = deadline.since(self.clock.now());
                async move { call.client.send_with_permits(request, time_left, connection, &permits).await }
            };
            let result = exchange.send(request, &self.retry_after, send).await;
            drop(exchange);
            let retry = retry::next(number, &result, &self.retry_after)
                .filter(|retry| {
                    number < u32::from(self.config.upstream.retries) && self.may_retry(*retry, demand, deadline)
                })
                .filter(|_| retries.withdraw());
            let Some(retry) = retry else { return Ok((request_time, result?)) };
            self.clock.sleep_until(self.clock.now() + retry.pause()).await;
            exchange = match (begin().await, retry) {
                (Ok(exchange), _) => exchange,
                // Refold's own refusal says more than that of the queue.
                (Err(FetchError::Failed(_)), Retry::InTurn) => return Ok((request_time, result?)),
                (Err(error), _) => return Err(error),
            };
            number += 1;
            call.telemetry.count_retry();
        }
    }

    /// Returns whether a retry is in time. A caller for whom there is a stale page does not wait until Refold's pause is over.
    fn may_retry(&self, retry: Retry, demand: FetchDemand<'_>, deadline: Moment) -> bool {
        match retry {
            Retry::After(pause) => self.clock.now() + pause < deadline,
            Retry::InTurn => demand.stale.is_none(),
        }
    }

    fn retries_of(&self, call: &UpstreamCall<'_>) -> &RetryBudget {
        match call.caller.partition().token_status(self.clock.now()) {
            TokenStatus::Accepted => &self.retries.known,
            TokenStatus::Unproven | TokenStatus::Refused => &self.retries.unproven,
        }
    }

    /// Acts on an execution (`stop`, `rerun`), drops the linked account's cached entries, and returns the result.
    ///
    /// # Errors
    /// If there is no response, or its status is not a 2xx.
    pub async fn act(
        &self,
        call: &UpstreamCall<'_>,
        execution: &PathId,
        action: &str,
        forwarded: &ForwardedParameters,
    ) -> Result<ActionResult, ClientError> {
        let exchange = self.begin_unshared(call, ExchangeKind::Executions).await?;
        let deadline = self.clock.now() + self.total_timeout();
        let request = request::act(execution, action, forwarded)?;
        let send =
            |request, connection, _| call.client.send_once(request, deadline.since(self.clock.now()), connection);
        let result = exchange.send(request, &self.retry_after, send).await;
        // Before the response, so that a caller who reads it and looks again sees the effect. Also after an error: it may
        // have come after the action. But a session token that Refold has not accepted has changed nothing.
        let dropped = if call.caller.partition().token_status(self.clock.now()) == TokenStatus::Accepted {
            call.caller.tenant().drop_entries(call.caller.partition()).await
        } else {
            DropReach::Everywhere
        };
        let (caller, response, retry_after) = (call.caller.clone(), result?, self.retry_after.clone());
        // Actions are rare, so even small responses are read off the worker's thread.
        offload::run(move || response::action_result(&caller, response, &retry_after, dropped)).await
    }

    /// Forwards a request of the allow-list, sends the response to `responds`, and streams its body until it ends or the caller
    /// stops reading. The exchange holds its permit until then.
    ///
    /// # Errors
    /// If the request body is too slow, too large or invalid, there is no response, or the response is an error, contains an
    /// org key in a header, or has a content coding in which an org key can't be found. Nothing is sent to `responds` then.
    pub async fn forward(
        &self,
        call: &UpstreamCall<'_>,
        allowed: &PassThrough,
        (head, body): (Parts, CallerBody),
        responds: oneshot::Sender<(http_response::Parts, ForwardedBody)>,
    ) -> Result<(), ClientError> {
        let body = self.forwarded_request_body(call.caller, allowed, &head, body).await?;
        let upload = upload(&body);
        let exchange = self.begin_unshared(call, ExchangeKind::PassThrough).await?;
        let request = request::forward(allowed, &head, body)?;
        let send = |request, _, permits| async move {
            call.client.send_streaming(request, stream_limits(allowed), &permits).await
        };
        let result = exchange.send(request, &self.retry_after, send).await;
        let failure = upload.and_then(|upload| upload.failure());
        let (mut response_head, body) = result.map_err(|error| upload_failed(failure, allowed, error))?.into_parts();
        let base_url = &self.config.upstream.base_url;
        let passed = PassedHeaders { caller: call.caller, base_url, method: &head.method };
        if response_head.status.is_informational() || response_head.status.as_u16() >= 400 {
            let headers = passed.without_body(&response_head.headers)?;
            let body = call.client.read_explanation(&response_head, body, allowed.idle_timeout).await;
            let response = Response::from_parts(response_head, body);
            return Err(response::not_forwarded(call.caller, &response, &self.retry_after).with_headers(headers));
        }
        let scan = key_scan(call.caller, allowed, &response_head, &body)?;
        response_head.headers = passed.with_body(&response_head.headers)?;
        let (reader, body) = forwarded(body, scan);
        if responds.send((response_head, body)).is_ok() {
            reader.run(allowed.idle_timeout).await;
        }
        Ok(())
    }

    /// Returns the body to send: as a whole if it may have to be sent again, or can name a linked account; otherwise streamed.
    async fn forwarded_request_body(
        &self,
        caller: &Caller,
        allowed: &PassThrough,
        head: &Parts,
        body: CallerBody,
    ) -> Result<RequestBody, ClientError> {
        let headers = &head.headers;
        let (limit, time) = (allowed.max_body.as_usize(), self.config.server.body_timeout);
        let confined_to = caller.partition().linked_account_id().filter(|_| allowed.scope == Scope::Account);
        if let Some(own) = confined_to.filter(|_| other_account::can_name_account(headers)) {
            if headers.contains_key(CONTENT_ENCODING) && allowed.request_headers.contains(&CONTENT_ENCODING) {
                let message = "a request body with a content coding can't be checked";
                return Err(ClientError::new(Reason::MalformedRequest, message));
            }
            let body = body::read_within(body, limit, time).await?;
            other_account::check_body(headers, &body, own)?;
            return Ok(buffered(body));
        }
        let is_small = body.size_hint().upper().is_some_and(|size| size <= MAX_BUFFERED_BODY);
        // Proxies send GET and HEAD with a Transfer-Encoding and no content, which is not passed on as content.
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        if is_small || reads {
            let limit = if is_small { limit } else { limit.min(self.config.server.max_request_body.as_usize()) };
            Ok(buffered(body::read_within(body, limit, time).await?))
        } else {
            body::check_length(&body, limit)?;
            Ok(streamed(body, limit, allowed.idle_timeout))
        }
    }

    /// Begins the exchange of a single caller, whose demand lasts as long as the call.
    async fn begin_unshared<'a>(
        &'a self,
        call: &'a UpstreamCall<'a>,
        kind: ExchangeKind,
    ) -> Result<Exchange<'a>, ClientError> {
        let demand = FetchDemand {
            urgency: Urgency::Foreground,
            demand: &Demand::constant(),
            stale: None,
            is_comparison: false,
        };
        let exchange = Exchange::begin(&self.breaker, &self.permits, call, kind, demand).await;
        exchange.map_err(|error| match error {
            FetchError::Failed(error) => error,
            FetchError::NoDemand => error::transport(TransportErrorKind::Timeout.into()),
        })
    }

    fn total_timeout(&self) -> Duration {
        self.config.upstream.total_timeout
    }
}

/// The search for org keys in the body of a pass-through response; `None` if there is no body, or the caller has the key.
fn key_scan(
    caller: &Caller,
    allowed: &PassThrough,
    head: &http_response::Parts,
    body: &ResponseBody,
) -> Result<Option<KeyScan>, ClientError> {
    if !caller.injects_org_key() || body.size_hint().exact() == Some(0) {
        return Ok(None);
    }
    let scan = KeyScan::new(Arc::clone(caller.tenant()), &head.headers, allowed.max_body.as_usize());
    let message = "Refold's response has a content coding that can't be checked";
    scan.map(Some).ok_or_else(|| ClientError::new(Reason::UpstreamInvalidResponse, message))
}

fn stream_limits(allowed: &PassThrough) -> StreamLimits {
    StreamLimits {
        max_body: allowed.max_body.as_usize(),
        first_byte_timeout: allowed.first_byte_timeout,
        idle_timeout: allowed.idle_timeout,
        total_timeout: allowed.total_timeout,
    }
}

/// The error of an exchange without a response: the caller's, if its request body is the reason.
fn upload_failed(failure: Option<UploadFailure>, allowed: &PassThrough, error: ClientError) -> ClientError {
    let (reason, message) = match failure {
        None => return error,
        Some(UploadFailure::Slow) => (Reason::RequestTimeout, "the request body took too long to arrive".to_owned()),
        Some(UploadFailure::TooLarge) => {
            (Reason::PayloadTooLarge, format!("the request body is larger than {} bytes", allowed.max_body.as_usize()))
        }
        Some(UploadFailure::Broken) => {
            (Reason::MalformedRequest, "the request body is not valid HTTP or ended early".to_owned())
        }
    };
    ClientError::new(reason, message)
}
