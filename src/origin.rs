//! One exchange with Refold on a caller's behalf: what it costs of the budgets, which key is shown, what the answer says
//! about both, and how long it holds. The steps `fetch` and `translate` of the line.

mod turn;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Request, StatusCode, response};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};

pub use self::turn::Wanted;
use self::turn::{Turn, Turns};
use crate::body::Passed;
use crate::cache::{Class, Entry, Interest};
use crate::caller::{Caller, Credential, Verdict};
use crate::client::{Client, FetchError, Outgoing, Reply, whole};
use crate::clock::{Clock, Moment};
use crate::config::{Config, PassThrough};
use crate::error::{ClientError, Reason};
use crate::executions::{Document, PathId, Progress, Question};
use crate::limit::Urgency;
use crate::observe::{Trip, UpstreamOutcome};
use crate::resilience::{Breaker, Circuit, Failure, Open, Permit, RetryBudget, backoff};
use crate::tenant::OrgKey;
use crate::translate;
use crate::upstream;

/// Bodies of up to this size are read before they are passed on, so that a request can be sent again; in bytes.
const SMALL_BODY: u64 = 64 << 10;

/// Refold, as callers are let near it.
#[derive(Debug)]
pub struct Origin {
    config: Arc<Config>,
    clock: Clock,
    turns: Arc<Turns>,
    breaker: Arc<Breaker>,
    retries: Arc<RetryBudget>,
}

/// Why there is no answer to a question.
#[derive(Debug)]
pub enum Unfetched {
    /// It failed.
    Failed(ClientError),
    /// It was not asked: those who wanted to know have left before it was its turn.
    NobodyWaits,
}

impl From<ClientError> for Unfetched {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

impl Origin {
    /// The upstream that the configuration names.
    #[must_use]
    pub fn new(config: Arc<Config>, clock: Clock) -> Self {
        let breaker = Arc::new(Breaker::new(config.upstream.breaker, clock.clone()));
        let turns = Arc::new(Turns::new(&config.upstream, clock.clone()));
        Self { config, clock, turns, breaker, retries: Arc::default() }
    }

    /// The upstream that another configuration names. Its circuit stays as it is if it is the same one, and so does the count
    /// of requests under way if as many are allowed.
    #[must_use]
    pub fn successor(&self, config: &Arc<Config>) -> Self {
        let (was, is) = (&self.config.upstream, &config.upstream);
        let same_circuit = was.breaker == is.breaker && was.base_url == is.base_url;
        let same_places = was.max_concurrent == is.max_concurrent && was.total_timeout == is.total_timeout;
        let fresh = Self::new(Arc::clone(config), self.clock.clone());
        Self {
            turns: if same_places { Arc::clone(&self.turns) } else { fresh.turns },
            breaker: if same_circuit { Arc::clone(&self.breaker) } else { fresh.breaker },
            retries: Arc::clone(&self.retries),
            ..fresh
        }
    }

    /// How the circuit to it stands.
    #[must_use]
    pub fn circuit(&self) -> Circuit {
        self.breaker.circuit()
    }

    /// Asks a question; an answer that was there before is renewed if it still holds.
    ///
    /// # Errors
    /// If there is no answer, or an error, or nobody is interested any longer before it was asked.
    pub async fn fetch(
        &self,
        client: &Client,
        caller: &Caller,
        question: &Question,
        mut wanted: Wanted<'_>,
        trip: &Trip,
    ) -> Result<Entry, Unfetched> {
        let stale = wanted.stale;
        let validator = stale.and_then(|entry| entry.validator.as_ref());
        let dialect = self.config.upstream.dialect;
        let ask = |key| upstream::ask(dialect, caller, key, question, validator);
        self.retries.deposit();
        let mut deadline = None;
        let mut retry = 0;
        let (asked_at, response) = loop {
            self.look_at_circuit()?;
            let turn = self.turns.turn(caller, &mut wanted, trip).await?;
            let asked_at = self.clock.now();
            // For all that follows, pauses and further tries too; whoever waits for a turn is bounded otherwise.
            let deadline = *deadline.get_or_insert(asked_at + self.config.upstream.total_timeout);
            if asked_at >= deadline {
                return Err(translate::failure(FetchError::Timeout).into());
            }
            let answered = self.exchange(client, caller, &turn, deadline, ask, trip).await;
            drop(turn);
            let Some(pause) = self.pause_before_retry(&answered, retry, deadline) else { break (asked_at, answered?) };
            self.clock.sleep_until(self.clock.now() + pause).await;
            retry += 1;
            trip.retried();
        };
        let no_store = self.config.cache.honour_no_store && asks_not_to_store(&response.headers);
        if let (StatusCode::NOT_MODIFIED, Some(stale)) = (response.status, stale.filter(|_| validator.is_some())) {
            let lifetime = self.lifetime(caller, question, stale.progress);
            let renewed = stale.renewed(lifetime, asked_at, self.clock.now());
            return Ok(if no_store { renewed.not_stored() } else { renewed });
        }
        let validator = response.headers.get(ETAG).and_then(kept_copy);
        let document = translate::answer(caller, question, response)?;
        let mut entry = self.entry(caller, question, &document, asked_at);
        if let Some(stale) = stale {
            entry = entry.sharing(stale);
        }
        entry.validator = validator;
        Ok(if no_store { entry.not_stored() } else { entry })
    }

    /// An answer as it is kept, for as long as its tenant says.
    #[must_use]
    pub fn entry(&self, caller: &Caller, question: &Question, document: &Document, asked_at: Moment) -> Entry {
        let lifetime = self.lifetime(caller, question, document.progress);
        let mut entry = Entry::new(document, lifetime, asked_at, self.clock.now());
        let stale = &caller.tenant().config.stale;
        entry.kept_for = stale.while_revalidate.max(stale.if_error);
        entry
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
        let turn = self.turn(caller, trip).await?;
        let deadline = self.clock.now() + self.config.upstream.total_timeout;
        let act = |key| upstream::act(caller, key, execution, action, body.clone());
        let result = self.exchange(client, caller, &turn, deadline, act, trip).await;
        // Before the answer, so that whoever reads it and looks again sees what they did. Also after a failure: it may
        // have come after the deed.
        caller.tenant().drop_entries(caller.partition());
        translate::outcome(caller, result?)
    }

    /// The turn of somebody whose request nobody shares.
    async fn turn<'a>(&'a self, caller: &'a Caller, trip: &Trip) -> Result<Turn<'a>, ClientError> {
        self.look_at_circuit()?;
        let interest = &mut Interest::of_one();
        let mut wanted = Wanted { urgency: Urgency::Foreground, interest, stale: None };
        self.turns.turn(caller, &mut wanted, trip).await.map_err(|unfetched| match unfetched {
            Unfetched::Failed(error) => error,
            Unfetched::NobodyWaits => translate::failure(FetchError::Timeout),
        })
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
            Err(error) if error.is(Reason::UpstreamUnreachable) => None,
            Err(_) => return None,
        };
        let pause = backoff(retry, asked_for);
        let in_time = self.clock.now() + pause < deadline;
        (retry < u32::from(self.config.upstream.retries) && in_time && self.retries.withdraw()).then_some(pause)
    }

    /// Sends one request, if the circuit is closed.
    async fn send(
        &self,
        client: &Client,
        mut request: Request<Outgoing>,
        deadline: Moment,
        trip: &Trip,
    ) -> Result<Reply, ClientError> {
        let permit = self.permit()?;
        let attempt = trip.attempt(&mut request);
        let result = client.send(request, deadline.since(self.clock.now())).await;
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
        self.breaker.permit().map_err(left_alone)
    }

    /// While nobody may ask, nobody waits for a turn or spends what Refold grants.
    fn look_at_circuit(&self) -> Result<(), ClientError> {
        self.breaker.look().map_err(left_alone)
    }

    /// Sends a request and notes what the answer says about the credential and the budget. An org key that Refold does not
    /// take is followed by the other one, if there is one: a key is rotated with no failed request.
    async fn exchange(
        &self,
        client: &Client,
        caller: &Caller,
        _turn: &Turn<'_>,
        deadline: Moment,
        request: impl Fn(OrgKey) -> Request<Outgoing>,
        trip: &Trip,
    ) -> Result<Reply, ClientError> {
        let keys = caller.tenant().org_keys();
        let key = key_of(caller);
        let mut reply = self.send(client, request(key), deadline, trip).await?;
        if reply.status == StatusCode::UNAUTHORIZED
            && caller.is_injected()
            && let Some(other) = keys.other(key)
        {
            self.turns.again(caller, trip).await?;
            let second = self.send(client, request(other), deadline, trip).await?;
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
        let limit = self.config.server.max_request_body.as_usize();
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
            Outgoing::Right(Limited::new(body, allowed.max_body.as_usize()))
        };
        let _turn = self.turn(caller, trip).await?;
        let keys = caller.tenant().org_keys();
        let mut key = key_of(caller);
        let mut retried = false;
        loop {
            // A small body can be sent again; a stream is gone once it was sent.
            let again = match &body {
                Outgoing::Left(whole) => Some(Outgoing::Left(whole.clone())),
                Outgoing::Right(_) => None,
            };
            let streams = again.is_none();
            let mut request = upstream::pass(caller, key, allowed, head, body);
            let permit = self.permit()?;
            let attempt = trip.attempt(&mut request);
            let begun = client.begin(request, allowed.max_body.as_usize()).await;
            attempt.ended(match &begun {
                Ok((answer, _)) => UpstreamOutcome::Answered(answer.status),
                Err(error) => UpstreamOutcome::Failed(*error),
            });
            match &begun {
                Ok((answer, _)) if !answer.status.is_server_error() => permit.succeeded(),
                // It may be the caller's body that did not come.
                Err(_) if streams => drop(permit),
                _ => failed(permit, trip),
            }
            let (answer, arriving) = begun.map_err(translate::failure)?;
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
                    self.turns.again(caller, trip).await?;
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

fn left_alone(open: Open) -> ClientError {
    let message = "Refold has failed several times in a row and is left alone for a moment";
    ClientError::new(Reason::UpstreamCircuitOpen, message).retry_after(open.retry_after)
}

/// The upstream has failed.
fn failed(permit: Permit<'_>, trip: &Trip) {
    if permit.failed() == Failure::Opened {
        trip.circuit_opened();
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
