//! Completes the requests that have to wait: for an issuer's keys, for the fleet's server, for Refold, or for the body of a webhook.
//!
//! Every request is recorded, also if its caller disconnects or the drain timeout ends first.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Response, StatusCode};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::answer::serve;
use super::context::{ConnectionContext, KnownCaller, RequestContext, Sent};
use super::normalise::{Miss, Renewal, UpstreamOp};
use super::unfinished::{Unfinished, Wait};
use super::{Decision, Gateway, Unresolved};
use crate::admit::decided;
use crate::cache::{CacheKey, CacheOutcome, CutOff, Entry, Follower, Servable};
use crate::caller::{Caller, Unidentified};
use crate::config::PassThrough;
use crate::error::{ClientError, Reason};
use crate::executions::{ForwardedParameters, PathId};
use crate::fetch::{FetchPurpose, FetchRequest, FetchRole};
use crate::http_client::Client;
use crate::limit::Urgency;
use crate::observe::{AccessError, WebhookOutcome};
use crate::request::body::{self, CallerBody};
use crate::request::route::Action;
use crate::respond::{self, Body};
use crate::tenant::{SourceOrigin, Tenant};
use crate::upstream::{UpstreamCall, UpstreamTelemetry};
use crate::webhook::{self, Signature};

/// The status and error code in the log for a request whose caller disconnects before the response.
const CLIENT_CLOSED_REQUEST: (u16, &str) = (499, "CLIENT_CLOSED_REQUEST");

/// A request that is being finished. If it is dropped before it has a response, its caller has disconnected, and it is recorded
/// with status 499.
struct InProgress {
    gateway: Arc<Gateway>,
    client: Client,
    head: Parts,
    context: RequestContext,
    known_caller: KnownCaller,
    /// The connection's [`ConnectionContext::half_close`].
    half_close: Option<watch::Receiver<bool>>,
    recorded: bool,
}

/// A task that forwards a request. Dropped before there is a response, it is cancelled: the caller has disconnected.
struct Forwarding {
    task: JoinHandle<Result<(), ClientError>>,
    has_response: bool,
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if !self.has_response {
            self.task.abort();
        }
    }
}

impl Gateway {
    /// Answers a request that had to wait. If the drain timeout ends first, the answer is 503 `SHUTTING_DOWN`, so
    /// that the connection does not end without a response.
    pub async fn finish(self: Arc<Self>, unfinished: Box<Unfinished>) -> Response<Body> {
        let Unfinished { connection, head, context, wait, body } = *unfinished;
        let mut abandon = connection.abandon.clone();
        let (client, known_caller) = (connection.client.clone(), connection.known_caller.clone());
        let half_close = connection.half_close.clone();
        let mut request =
            InProgress { gateway: self, client, head, context, known_caller, half_close, recorded: false };
        let outcome = tokio::select! {
            biased;
            outcome = request.run(&connection, wait, body) => outcome,
            Ok(_) = abandon.wait_for(|abandon| *abandon) => Err(shutting_down()),
        };
        request.respond(outcome)
    }
}

impl InProgress {
    async fn run(
        &mut self,
        connection: &ConnectionContext,
        wait: Wait,
        body: CallerBody,
    ) -> Result<Response<Body>, ClientError> {
        let mut wait = wait;
        let op = loop {
            let may_ask_issuer = match wait {
                Wait::Upstream(op) => break op,
                Wait::Issuer(issuer) => {
                    self.gateway.callers.ask_issuer(issuer).await?;
                    false
                }
                Wait::Budget(policy, question) => {
                    let used = question.ask().await;
                    decided(&mut self.context.response.budgets, policy, used)?;
                    true
                }
            };
            let now = self.gateway.clock.now();
            wait = match self.gateway.decide(connection, &self.head, &mut self.context, now) {
                Ok(Decision::Upstream(op)) => break op,
                Ok(Decision::Answer(answer)) => {
                    return Ok(self.gateway.answer(connection, &self.head, &mut self.context, answer, now));
                }
                Err(Unresolved::Refused(error)) => return Err(error),
                Err(Unresolved::UnknownKey(issuer)) if may_ask_issuer => Wait::Issuer(issuer),
                Err(Unresolved::UnknownKey(issuer)) => return Err(Unidentified::UnknownKey(issuer).into_error()),
                Err(Unresolved::Budget(policy, question)) => Wait::Budget(policy, question),
            };
        };
        // The rare operations are boxed: their futures are large, and a fetch should not carry that room.
        match op {
            UpstreamOp::Fetch(miss) if miss.directives.no_store() => self.fetch_unstored(&miss).await,
            UpstreamOp::Fetch(miss) => self.fetch(miss).await,
            UpstreamOp::Renew(renewal) => Ok(self.renew(*renewal).await),
            UpstreamOp::Act { caller, execution, action, forwarded } => {
                Box::pin(self.act(caller, execution, action, forwarded, body)).await
            }
            UpstreamOp::Forward { caller, allowed } => Box::pin(self.forward(caller, allowed, body)).await,
            UpstreamOp::Webhook { tenant, signature } => Box::pin(self.receive_webhook(tenant, signature, body)).await,
        }
    }

    /// Fetches for a request with `no-store`: nothing may be stored for it, so it shares no fetch with others either.
    async fn fetch_unstored(&mut self, miss: &Miss) -> Result<Response<Body>, ClientError> {
        self.context.response.cache = CacheOutcome::Request;
        let telemetry = self.telemetry(&miss.caller);
        let entry = self.gateway.fetcher.fetch_unstored(&self.client, &miss.caller, &miss.key, telemetry).await?;
        Ok(self.serve(&entry))
    }

    /// Fetches the answer to a question, and falls back on a stale entry if that fails (RFC 5861, 4).
    async fn fetch(&mut self, miss: Box<Miss>) -> Result<Response<Body>, ClientError> {
        match self.fetch_or_wait(&miss).await {
            Ok(entry) => {
                if let Some(outcome) = outcome_without_refold(&entry) {
                    self.context.response.cache = outcome;
                }
                Ok(self.serve_encoded(&miss.key, &entry).await)
            }
            Err(error) => match self.fallback(&miss).filter(|_| error.is_passing()) {
                Some((stale, outcome)) => {
                    self.context.response.cache = outcome;
                    Ok(self.serve(stale))
                }
                None => Err(error),
            },
        }
    }

    /// Renews a stale entry, and waits until it is known whether the fleet has a newer one: fresh, or at least less stale.
    async fn renew(&mut self, renewal: Renewal) -> Response<Body> {
        let Renewal { caller, key, stale, claim } = renewal;
        let gateway = Arc::clone(&self.gateway);
        let observer = Arc::clone(&gateway.observer);
        let telemetry = UpstreamTelemetry::new(observer, &caller, &self.context.span, &self.head.headers);
        let longest = gateway.config.fleet.as_ref().map_or(Duration::ZERO, |fleet| fleet.command_timeout);
        let (begins_wait, waits) = oneshot::channel();
        let request = FetchRequest {
            begins_wait: Some(begins_wait),
            ..FetchRequest::renewal(&caller, &key, Arc::clone(&stale), claim, telemetry)
        };
        let (mut follower, _) = gateway.fetcher.join(self.client.clone(), request);
        let newer = tokio::select! {
            biased;
            outcome = follower.result() => outcome.ok(),
            // Also if the renewal follows a fetch that is under way.
            _ = waits => gateway.fetcher.store().get(&key),
            () = gateway.clock.sleep_until(gateway.clock.now() + longest) => None,
        };
        let is_newer = |entry: &Arc<Entry>| !Arc::ptr_eq(entry, &stale) && !entry.is_withdrawn(caller.tenant().trust());
        let Some(entry) = newer.filter(is_newer) else { return self.serve(&stale) };
        if entry.is_fresh(gateway.clock.now()) {
            self.context.response.cache = outcome_without_refold(&entry).unwrap_or(CacheOutcome::Hit);
        }
        self.serve_encoded(&key, &entry).await
    }

    /// The stale entry that answers if the fetch fails, if it may.
    fn fallback<'a>(&self, miss: &'a Miss) -> Option<(&'a Entry, CacheOutcome)> {
        let (stale, tenant) = (miss.stale.as_deref()?, miss.caller.tenant());
        let (windows, now) = (&tenant.config.stale, self.gateway.clock.now());
        let (servable, outcome) = match self.gateway.fetcher.store().cut_off(now) {
            None => (stale.servable(windows, now), CacheOutcome::HitStale),
            Some(cut_off) if !cut_off.may_use_held() => return None,
            Some(CutOff { since, .. }) => (stale.servable_when_cut_off(windows, since, now), CacheOutcome::HitCutOff),
        };
        // The key last: what is trusted has been dropped as far as is known, and that has changed the keys.
        let may_answer =
            servable != Servable::No && !stale.is_withdrawn(tenant.trust()) && miss.key.is_present(&miss.caller);
        may_answer.then_some((stale, outcome))
    }

    /// Starts the fetch of a question, or joins the one in progress. Repeats this if the joined fetch returns a response that
    /// the request's directives reject.
    async fn fetch_or_wait(&mut self, miss: &Miss) -> Result<Arc<Entry>, ClientError> {
        let Miss { caller, key, stale, directives } = miss;
        loop {
            let request = FetchRequest {
                caller: caller.clone(),
                key: key.clone(),
                stale: stale.clone(),
                urgency: Urgency::Foreground,
                bypass_cache: directives.may_reject_fresh(),
                purpose: FetchPurpose::Response,
                claim: None,
                begins_wait: None,
                telemetry: self.telemetry(caller),
            };
            let (follower, role) = self.gateway.fetcher.join(self.client.clone(), request);
            let collapsed = matches!(role, FetchRole::Follows(_));
            let wait_span = match role {
                FetchRole::Leads => None,
                FetchRole::Follows(fetch) => {
                    self.context.cost = None;
                    Some(self.context.span.waits_for(fetch))
                }
            };
            self.context.response.cache = match (self.context.response.cache, stale) {
                (CacheOutcome::Request, _) => CacheOutcome::Request,
                (_, Some(_)) => CacheOutcome::Stale { collapsed },
                (_, None) => CacheOutcome::Miss { collapsed },
            };
            let outcome = self.wait(follower, self.longest_wait(miss)).await;
            drop(wait_span);
            match outcome {
                Ok(entry)
                    if collapsed
                        && directives.reject_shared(&entry, self.context.received, self.gateway.clock.now()) => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits for a fetch. A peer that ends its output has disconnected, as far as can be known: the request is recorded, and is no
    /// demand for the fetch any more. The peer may still read, so it is sent the response all the same.
    async fn wait(&mut self, mut follower: Follower, longest: Option<Duration>) -> Result<Arc<Entry>, ClientError> {
        let gateway = Arc::clone(&self.gateway);
        if let Some(half_close) = &mut self.half_close {
            tokio::select! {
                biased;
                outcome = gateway.fetcher.wait(&mut follower, longest) => return outcome,
                Ok(_) = half_close.wait_for(|half_closed| *half_closed) => {}
            }
            follower.stop_waiting();
            self.record_disconnect();
        }
        gateway.fetcher.wait(&mut follower, longest).await
    }

    /// The longest wait for a fetch: bounded only if a stale entry could answer instead.
    fn longest_wait(&self, miss: &Miss) -> Option<Duration> {
        self.fallback(miss)?;
        Some(miss.caller.tenant().config.limits.upstream.max_wait)
    }

    /// Stops an execution or runs it again.
    async fn act(
        &mut self,
        caller: Caller,
        execution: PathId,
        action: Action,
        forwarded: ForwardedParameters,
        body: CallerBody,
    ) -> Result<Response<Body>, ClientError> {
        let (gateway, client) = (Arc::clone(&self.gateway), self.client.clone());
        let mut telemetry = self.telemetry(&caller);
        telemetry.begin(action.name());
        // In a task of its own, so that the linked account's entries are dropped even if the caller disconnects.
        let acting = tokio::spawn(async move {
            let call = UpstreamCall { client: &client, caller: &caller, telemetry: &telemetry };
            let outcome = match body::read(body, &gateway.config.server).await {
                // The body is not forwarded: Refold documents none.
                Ok(_) => gateway.fetcher.upstream().act(&call, &execution, action.name(), &forwarded).await,
                Err(error) => Err(error),
            };
            telemetry.end(&outcome);
            outcome
        });
        let result = acting.await.unwrap_or_else(|panic| Err(ClientError::abandoned().caused_by(panic)))?;
        self.context.note_upstream_budget();
        Ok(respond::action_result(&mut self.context.response, result.status, result.body, result.dropped))
    }

    /// Forwards a request of the allow-list; both bodies are streamed.
    async fn forward(
        &mut self,
        caller: Caller,
        allowed: Arc<PassThrough>,
        body: CallerBody,
    ) -> Result<Response<Body>, ClientError> {
        let (gateway, client, head) = (Arc::clone(&self.gateway), self.client.clone(), self.head.clone());
        let mut telemetry = self.telemetry(&caller);
        telemetry.begin("pass");
        let (responds, response) = oneshot::channel();
        // In a task of its own, which goes on with the body of the response.
        let task = tokio::spawn(async move {
            let call = UpstreamCall { client: &client, caller: &caller, telemetry: &telemetry };
            let outcome = gateway.fetcher.upstream().forward(&call, &allowed, (head, body), responds).await;
            telemetry.end(&outcome);
            outcome
        });
        let mut forwarding = Forwarding { task, has_response: false };
        if let Ok((head, body)) = response.await {
            forwarding.has_response = true;
            self.context.note_upstream_budget();
            return Ok(respond::pass_through(&mut self.context.response, head, body));
        }
        let failed =
            (&mut forwarding.task).await.unwrap_or_else(|panic| Err(ClientError::abandoned().caused_by(panic)));
        Err(failed.err().unwrap_or_else(ClientError::abandoned))
    }

    /// Receives a webhook: checks its signature, and drops the entries of the linked accounts that it names.
    async fn receive_webhook(
        &mut self,
        tenant: Option<Arc<Tenant>>,
        signature: Signature,
        body: CallerBody,
    ) -> Result<Response<Body>, ClientError> {
        let Gateway { config, deliveries, .. } = &*self.gateway;
        let received = webhook::receive(tenant.as_deref(), signature, body, deliveries, &config.server).await;
        let outcome = if received.is_ok() { WebhookOutcome::Taken } else { WebhookOutcome::Refused };
        self.gateway.count_webhook(tenant.as_deref(), outcome);
        received?;
        self.known_caller.record();
        Ok(respond::webhook_accepted(&mut self.context.response))
    }

    /// Builds the response from an entry.
    fn serve(&mut self, entry: &Entry) -> Response<Body> {
        self.context.note_upstream_budget();
        let now = self.gateway.clock.now();
        serve(&self.head, &mut self.context, entry, now)
    }

    /// Builds the response from an entry that has just been stored. Encoding takes little time compared with the fetch, and later
    /// requests find the encoded body.
    async fn serve_encoded(&mut self, key: &CacheKey, entry: &Arc<Entry>) -> Response<Body> {
        if let Some(coding) = self.context.response.coding {
            self.gateway.encoder.encode(key, entry, coding).await;
        }
        self.serve(entry)
    }

    /// Returns the recorder of this request's upstream requests.
    fn telemetry(&mut self, caller: &Caller) -> UpstreamTelemetry {
        let observer = Arc::clone(&self.gateway.observer);
        let telemetry = UpstreamTelemetry::new(observer, caller, &self.context.span, &self.head.headers);
        self.context.cost = Some(Arc::clone(telemetry.cost()));
        telemetry
    }

    /// Ends the request with its response, and records it.
    fn respond(mut self, outcome: Result<Response<Body>, ClientError>) -> Response<Body> {
        // Refold may just have accepted the caller's session token.
        if self.context.caller.as_ref().is_some_and(|caller| caller.is_known(self.gateway.clock.now())) {
            self.known_caller.record();
        }
        if outcome.is_err() {
            self.context.note_upstream_budget();
        }
        match outcome {
            Ok(response) if self.recorded => response,
            Err(error) if self.recorded => respond::error(&mut self.context.response, &error),
            Ok(response) => {
                self.recorded = true;
                self.gateway.record(&self.head, &mut self.context, Sent::from(&response), None);
                response
            }
            Err(error) => {
                self.recorded = true;
                self.gateway.refuse(&self.head, &mut self.context, &error)
            }
        }
    }

    /// Records that the caller has disconnected, unless the request is recorded already.
    fn record_disconnect(&mut self) {
        if !std::mem::replace(&mut self.recorded, true) {
            let (status, code) = CLIENT_CLOSED_REQUEST;
            let status = StatusCode::from_u16(status).expect("499 is within the range of statuses");
            let error = AccessError { code, label: code, credential_problem: None, cause: None };
            self.gateway.record(&self.head, &mut self.context, Sent { status, bytes: None }, Some(error));
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.record_disconnect();
    }
}

/// The outcome for an entry that did not come from Refold for this request.
fn outcome_without_refold(entry: &Entry) -> Option<CacheOutcome> {
    if entry.derived.is_some_and(|mark| mark.origin() == SourceOrigin::Stored) {
        Some(CacheOutcome::Derived)
    } else {
        entry.from_fleet.then_some(CacheOutcome::HitShared)
    }
}

fn shutting_down() -> ClientError {
    ClientError::new(Reason::ShuttingDown, "this gateway is shutting down; try again")
        .retry_after(Duration::from_secs(1))
}
