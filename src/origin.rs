//! One exchange with Refold on a caller's behalf: what it costs of the budgets, which key is shown, what the answer says
//! about both, and how long it holds. The steps `fetch` and `translate` of the line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Request, StatusCode, response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};

use crate::body::Passed;
use crate::cache::{Class, Entry};
use crate::caller::{Caller, Credential, Verdict};
use crate::client::{Client, FetchError, Outgoing, Reply, whole};
use crate::clock::{Clock, Moment};
use crate::config::{Config, PassThrough};
use crate::error::{ClientError, Reason};
use crate::executions::{PathId, Progress, Question};
use crate::limit::Urgency;
use crate::observe::{Trip, UpstreamOutcome};
use crate::resilience::{Breaker, Circuit, Failure, Permit, RetryBudget, backoff};
use crate::tenant::{OnProbation, OrgKey, Standing};
use crate::translate;
use crate::upstream;

/// Bodies of up to this size are read before they are passed on, so that a request can be sent again; in bytes.
const SMALL_BODY: u64 = 64 << 10;

/// Refold, as callers are let near it.
#[derive(Debug)]
pub struct Origin {
    config: Arc<Config>,
    clock: Clock,
    breaker: Breaker,
    retries: RetryBudget,
}

impl Origin {
    /// The upstream that the configuration names.
    #[must_use]
    pub fn new(config: Arc<Config>, clock: Clock) -> Self {
        let breaker = Breaker::new(config.upstream.breaker, clock.clone());
        Self { config, clock, breaker, retries: RetryBudget::default() }
    }

    /// Whether it is left alone since it kept failing.
    #[must_use]
    pub fn circuit_is_open(&self) -> bool {
        self.breaker.circuit() == Circuit::Open
    }

    /// Asks a question; an answer that was there before is renewed if it still holds.
    ///
    /// # Errors
    /// If there is no answer, or an error.
    pub async fn fetch(
        &self,
        client: &Client,
        caller: &Caller,
        question: &Question,
        stale: Option<&Entry>,
        urgency: Urgency,
        trip: &Trip,
    ) -> Result<Entry, ClientError> {
        let validator = stale.and_then(|entry| entry.validator.as_ref());
        let dialect = self.config.upstream.dialect;
        let ask = |key| upstream::ask(dialect, caller, key, question, validator);
        let deadline = self.clock.now() + self.config.upstream.connection.total_timeout;
        self.retries.deposit();
        let mut retry = 0;
        let (asked_at, response) = loop {
            let until_the_verdict =
                self.spend_upstream_budget(caller, urgency, stale.map(|entry| entry.stored_at), trip).await?;
            let asked_at = self.clock.now();
            let answered = self.exchange(client, caller, ask, trip).await;
            drop(until_the_verdict);
            let Some(pause) = self.pause_before_retry(&answered, retry, deadline) else { break (asked_at, answered?) };
            self.clock.sleep_until(self.clock.now() + pause).await;
            retry += 1;
            trip.retried();
        };
        if let (StatusCode::NOT_MODIFIED, Some(stale)) = (response.status, stale.filter(|_| validator.is_some())) {
            let lifetime = self.lifetime(caller, question, stale.progress);
            return Ok(stale.renewed(lifetime, asked_at));
        }
        let no_store = self.config.cache.honour_no_store && asks_not_to_store(&response.headers);
        let validator = response.headers.get(ETAG).and_then(kept_copy);
        let document = translate::answer(caller, question, response)?;
        let lifetime = self.lifetime(caller, question, document.progress);
        let mut entry = Entry::new(document, lifetime, asked_at);
        entry.validator = validator;
        let stale = &caller.tenant().config.stale;
        entry.kept_for = stale.while_revalidate.max(stale.if_error);
        Ok(if no_store { entry.not_stored() } else { entry })
    }

    /// Does something to an execution, and drops what is cached for its linked account.
    ///
    /// # Errors
    /// If there is no answer, or an error.
    pub async fn act(
        &self,
        client: &Client,
        caller: &Caller,
        execution: &PathId,
        action: &str,
        body: Incoming,
        trip: &Trip,
    ) -> Result<Bytes, ClientError> {
        let body = self.read_body(body).await?;
        let _until_the_verdict = self.spend_upstream_budget(caller, Urgency::Foreground, None, trip).await?;
        let request = |key| upstream::act(caller, key, execution, action, body.clone());
        let result = self.exchange(client, caller, request, trip).await;
        // Before the answer, so that whoever reads it and looks again sees what they did. Also after a failure: it may
        // have come after the deed.
        caller.tenant().drop_entries(caller.partition());
        translate::outcome(caller, result?)
    }

    /// How long to wait before a question is asked again; `None` if the answer is to be taken as it is.
    fn pause_before_retry(
        &self,
        answered: &Result<Reply, ClientError>,
        retry: u32,
        deadline: Moment,
    ) -> Option<Duration> {
        let asked_for = match answered {
            Ok(reply) => match reply.status {
                StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => None,
                StatusCode::SERVICE_UNAVAILABLE => {
                    reply.headers.contains_key(RETRY_AFTER).then(|| translate::pause(reply))
                }
                _ => return None,
            },
            Err(error) if error.error_code() == "UPSTREAM_UNREACHABLE" => None,
            Err(_) => return None,
        };
        let pause = backoff(retry, asked_for);
        let in_time = self.clock.now() + pause < deadline;
        (retry < u32::from(self.config.upstream.retries) && in_time && self.retries.withdraw()).then_some(pause)
    }

    /// Sends one request, if the circuit is closed.
    async fn send(&self, client: &Client, mut request: Request<Outgoing>, trip: &Trip) -> Result<Reply, ClientError> {
        let permit = self.permit()?;
        let attempt = trip.attempt(&mut request);
        let result = client.send(request).await;
        attempt.ended(match &result {
            Ok(reply) => UpstreamOutcome::Answered(reply.status),
            Err(error) => UpstreamOutcome::Failed(*error),
        });
        match &result {
            Ok(reply) if !reply.status.is_server_error() => permit.succeeded(),
            // It answers; that this was more than is read says nothing of its health.
            Err(FetchError::TooLarge { .. }) => permit.succeeded(),
            _ => failed(permit, trip),
        }
        result.map_err(translate::failure)
    }

    fn permit(&self) -> Result<Permit<'_>, ClientError> {
        self.breaker.permit().map_err(|open| {
            let message = "Refold has failed several times in a row and is left alone for a moment";
            ClientError::new(Reason::UpstreamCircuitOpen, message).retry_after(open.retry_after)
        })
    }

    /// Sends a request and notes what the answer says about the credential and the budget. An org key that Refold does not
    /// take is followed by the other one, if there is one: a key is rotated with no failed request.
    async fn exchange(
        &self,
        client: &Client,
        caller: &Caller,
        request: impl Fn(OrgKey) -> Request<Outgoing>,
        trip: &Trip,
    ) -> Result<Reply, ClientError> {
        let keys = caller.tenant().org_keys();
        let key = key_of(caller);
        let mut reply = self.send(client, request(key), trip).await?;
        note_key(caller, key, reply.status);
        if reply.status == StatusCode::UNAUTHORIZED
            && caller.is_injected()
            && let Some(other) = keys.other(key)
        {
            self.spend_upstream_budget(caller, Urgency::Foreground, None, trip).await?;
            let second = self.send(client, request(other), trip).await?;
            note_key(caller, other, second.status);
            if second.status != StatusCode::UNAUTHORIZED {
                keys.took(other);
                reply = second;
            }
        }
        note_verdict(caller, &reply);
        Ok(reply)
    }

    /// Reads the body of a request whole.
    ///
    /// # Errors
    /// 413, 408, or 400 if it is broken.
    pub async fn read_body(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let limit = self.config.server.max_request_body;
        let read = Limited::new(body, limit).collect();
        match tokio::time::timeout(self.config.server.body_timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("the request body is larger than {limit} bytes");
                Err(ClientError::new(Reason::PayloadTooLarge, message))
            }
            Ok(Err(_)) => Err(ClientError::new(Reason::MalformedRequest, "the request body is broken")),
            Err(_) => Err(ClientError::new(Reason::RequestTimeout, "the request body took too long to arrive")),
        }
    }

    /// Only fetches spend what Refold grants. A token that nobody vouches for yet has a small share of its own first.
    /// Of its requests one goes first, and the others wait to hear what it was told.
    async fn spend_upstream_budget<'a>(
        &self,
        caller: &'a Caller,
        urgency: Urgency,
        renews: Option<Moment>,
        trip: &Trip,
    ) -> Result<Option<OnProbation<'a>>, ClientError> {
        let partition = caller.partition();
        let mut on_probation = None;
        if partition.standing(self.clock.now()) == Standing::Unproven {
            let first = tokio::time::timeout(self.config.upstream.connection.total_timeout, partition.go_first()).await;
            on_probation = Some(first.map_err(|_| translate::failure(FetchError::Timeout))?);
        }
        match partition.standing(self.clock.now()) {
            Standing::Known => on_probation = None,
            Standing::Refused => return Err(ClientError::invalid_credentials()),
            Standing::Unproven => {
                if let Some(wait) = caller.tenant().probation.spend().refused {
                    let message = "too many session tokens that Refold has not seen yet; try again later";
                    return Err(ClientError::new(Reason::RateLimitExceeded, message).retry_after(wait));
                }
            }
        }
        let renews = renews.unwrap_or(self.clock.now());
        let wait = trip.waits(urgency);
        let granted = caller.tenant().upstream_budget.acquire(caller.partition().line(), urgency, renews).await;
        wait.ended(&granted);
        granted.map_err(|exhausted| {
            let message = "the requests that Refold grants are spent; try again later";
            ClientError::new(Reason::UpstreamBudgetExceeded, message).retry_after(exhausted.retry_after)
        })?;
        Ok(on_probation)
    }

    /// How long an answer holds. Asked anew for an answer that has not changed: it can have become closed with time.
    fn lifetime(&self, caller: &Caller, question: &Question, progress: Progress) -> Duration {
        let class = match question {
            Question::List(query) => Class::of_page(progress, query.end(), self.clock.wall()),
            Question::Batches(..) => Class::of_page(progress, None, self.clock.wall()),
            Question::Document(_) => Class::of_document(progress),
        };
        let lifetime = class.lifetime(&caller.tenant().config.freshness);
        match caller.credential() {
            // Its answers must not outlive it.
            Credential::SessionToken(token) => token.says_it_ends().map_or(lifetime, |end| {
                let left = end.saturating_sub(self.clock.wall().as_second());
                lifetime.min(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
            }),
            _ => lifetime,
        }
    }

    /// Passes a request of the allow-list on, and its answer back, both as they come in.
    ///
    /// # Errors
    /// If there is no answer, or an error.
    pub async fn pass(
        &self,
        client: &Client,
        caller: &Caller,
        allowed: &PassThrough,
        head: &Parts,
        body: Incoming,
        trip: &Trip,
    ) -> Result<(response::Parts, Passed), ClientError> {
        let small = body.size_hint().upper().is_some_and(|size| size <= SMALL_BODY);
        let mut body = if small {
            whole(self.read_body(body).await?)
        } else {
            Outgoing::Right(Limited::new(body, allowed.max_body))
        };
        let _until_the_verdict = self.spend_upstream_budget(caller, Urgency::Foreground, None, trip).await?;
        let keys = caller.tenant().org_keys();
        let mut key = key_of(caller);
        let mut retried = false;
        loop {
            // A small body can be sent again; a stream is gone once it was sent.
            let again = match &body {
                Outgoing::Left(whole) => Some(Outgoing::Left(whole.clone())),
                Outgoing::Right(_) => None,
            };
            let mut request = upstream::pass(caller, key, allowed, head, body);
            let permit = self.permit()?;
            let attempt = trip.attempt(&mut request);
            let begun = client.begin(request, allowed.max_body).await;
            attempt.ended(match &begun {
                Ok((answer, _)) => UpstreamOutcome::Answered(answer.status),
                Err(error) => UpstreamOutcome::Failed(*error),
            });
            match &begun {
                Ok((answer, _)) if !answer.status.is_server_error() => permit.succeeded(),
                _ => failed(permit, trip),
            }
            let (answer, arriving) = begun.map_err(translate::failure)?;
            note_key(caller, key, answer.status);
            if answer.status.is_success() && !answer.headers.contains_key(CONTENT_ENCODING) {
                caller.judged_by_upstream(Verdict::Accepted);
                if retried {
                    keys.took(key);
                }
                let secret = caller.is_injected().then(|| Arc::clone(caller.tenant()));
                return Ok((answer, Passed::new(arriving, secret)));
            }
            let other = keys.other(key).filter(|_| !retried && caller.is_injected());
            match (answer.status, other, again) {
                (StatusCode::UNAUTHORIZED, Some(other), Some(again)) => {
                    self.spend_upstream_budget(caller, Urgency::Foreground, None, trip).await?;
                    (key, body, retried) = (other, again, true);
                }
                (status, ..) => {
                    let body = arriving.read().await.map_err(translate::failure)?;
                    let reply = Reply { status, headers: answer.headers, body };
                    note_verdict(caller, &reply);
                    return Err(translate::unexpected(caller, &reply));
                }
            }
        }
    }
}

/// The upstream has failed.
fn failed(permit: Permit<'_>, trip: &Trip) {
    if permit.failed() == Failure::Opened {
        trip.circuit_opened();
    }
}

/// What an answer says about the key that was shown, if it was one of the tenant's own.
fn note_key(caller: &Caller, key: OrgKey, status: StatusCode) {
    match caller.credential() {
        Credential::SessionToken(_) => {}
        _ if status == StatusCode::UNAUTHORIZED => caller.tenant().org_keys().was_refused(key),
        _ if status.is_success() || status == StatusCode::NOT_MODIFIED => caller.tenant().org_keys().was_taken(key),
        _ => {}
    }
}

/// The key to show for a caller: its own, if it has one.
fn key_of(caller: &Caller) -> OrgKey {
    match caller.credential() {
        Credential::OrgKey(key) => *key,
        _ => caller.tenant().org_keys().good(),
    }
}

/// What an answer says about the caller and its budget, whatever else is in it.
fn note_verdict(caller: &Caller, response: &Reply) {
    match response.status {
        StatusCode::TOO_MANY_REQUESTS => caller.tenant().upstream_budget.hold(translate::pause(response)),
        StatusCode::UNAUTHORIZED => {
            if !matches!(caller.credential(), Credential::SessionToken(_)) {
                tracing::error!(tenant = %caller.tenant().config.id, "upstream_rejected_org_key");
            }
            caller.judged_by_upstream(Verdict::Refused);
        }
        // To say that nothing has changed, it has to know for whom.
        status if status.is_success() || status == StatusCode::NOT_MODIFIED => {
            caller.judged_by_upstream(Verdict::Accepted);
        }
        _ => {}
    }
}

/// A copy of its own: a header value is a part of the connection's read buffer, all of which it would keep in memory.
fn kept_copy(value: &HeaderValue) -> Option<HeaderValue> {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    // Whatever an upstream may have put into it.
    copy.set_sensitive(true);
    Some(copy)
}

fn asks_not_to_store(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|directive| {
            let directive = directive.trim_ascii();
            directive.eq_ignore_ascii_case(b"no-store")
        })
    })
}
