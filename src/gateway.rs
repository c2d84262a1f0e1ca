//! A request's straight line, one call a step. Read this file first.
//!
//! ```text
//! route -> identify -> normalise -> admit -> look up -> fetch -> translate -> respond
//! ```
//!
//! [`Gateway::handle`] decides at once, on the thread that the request came to, whether it can be answered there: a hit or
//! a refusal is a finished response and no future. Only what needs the upstream becomes one.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::body::Body;
use crate::cache::{CacheKey, Entry, Flight, Flights, Joined, Store, Usable, Waiter};
use crate::caller::{Caller, Callers, Credential, Entrance, Unidentified};
use crate::client::{Client, ClientSetupError};
use crate::clock::{Clock, Moment};
use crate::config::{Access, Config};
use crate::cors::{self, Cors};
use crate::error::{ClientError, Reason};
use crate::executions::{BatchesQuery, ListQuery, PathId, Question, no_parameters};
use crate::limit::{ClientBudget, Urgency};
use crate::origin::Origin;
use crate::respond::{self, CacheResult, Facts, RequestId};
use crate::route::{Action, Endpoint, Route, route};
use crate::tenant::Standing;

/// Everything that requests share. One for all workers.
#[derive(Debug)]
pub struct Gateway {
    config: Arc<Config>,
    clock: Clock,
    callers: Callers,
    store: Store,
    flights: Arc<Flights>,
    cors: Option<Cors>,
    origin: Origin,
}

/// Where a request came in.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The upstream pool of this worker.
    pub client: Client,
    /// What the connection says of who sends requests over it.
    pub entrance: Entrance,
}

/// A request that needs the upstream.
enum Pending {
    Fetch { caller: Caller, key: CacheKey, stale: Option<Arc<Entry>> },
    Act { caller: Caller, execution: PathId, action: Action },
    Pass { caller: Caller, allowed: usize },
}

/// Why a request can't be decided on.
enum Undecided {
    Refused(ClientError),
    /// The key of an issuer's token is not known yet.
    UnknownKey(usize),
}

impl<E: Into<ClientError>> From<E> for Undecided {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// What a decision came to.
enum Settled {
    Now(Response<Body>),
    Later(Pending),
}

enum Decision {
    Hit(Arc<Entry>),
    /// Given as it is, and fetched anew behind the caller's back.
    Revalidate {
        caller: Caller,
        key: CacheKey,
        entry: Arc<Entry>,
    },
    /// A browser asks what it may do; these methods.
    Preflight(Cow<'static, str>),
    Pending(Pending),
}

impl Gateway {
    /// A gateway with an empty cache.
    ///
    /// # Errors
    /// If an issuer's key server can't be reached in the way that the configuration says.
    pub fn new(config: Arc<Config>, clock: Clock) -> Result<Self, ClientSetupError> {
        Ok(Self {
            callers: Callers::new(&config, &clock)?,
            store: Store::new(config.cache.capacity),
            flights: Arc::default(),
            cors: config.cors.as_ref().map(Cors::new),
            origin: Origin::new(Arc::clone(&config), clock.clone()),
            config,
            clock,
        })
    }

    /// Where somebody comes in who has shown a certificate with these names at an entrance.
    #[must_use]
    pub fn entrance_with_certificate(&self, entrance: &Entrance, names: &[String]) -> Entrance {
        let known = self.callers.by_certificate(names).or_else(|| entrance.known.clone());
        Entrance { known, ..entrance.clone() }
    }

    /// What has to be done though nobody asks for it, for as long as it is polled. One worker does it for all.
    pub async fn keep_house(&self) {
        self.callers.keep_issuers_fresh().await;
    }

    /// Answers a request. The hit path: nothing in here waits, and no lock is taken that a miss can hold.
    #[must_use]
    pub fn handle(self: &Arc<Self>, scope: &Scope, request: Request<Incoming>) -> ResponseFuture {
        let (head, body) = request.into_parts();
        let now = self.clock.now();
        let mut facts = Facts {
            request_id: RequestId::new(),
            head: head.method == Method::HEAD,
            budget: None,
            cache: CacheResult::NotAsked,
            cors: self.cors.as_ref().map(|cors| cors.allowed(&head.headers)),
        };
        match self.decide(scope, &head, &mut facts, now) {
            Ok(decision) => match self.settle(scope, &head, &mut facts, decision, now) {
                Settled::Now(response) => ResponseFuture::ready(response),
                Settled::Later(pending) => {
                    let (gateway, client) = (Arc::clone(self), scope.client.clone());
                    ResponseFuture::pending(gateway.go_upstream(client, pending, head, body, facts))
                }
            },
            Err(Undecided::UnknownKey(issuer)) => {
                let (gateway, scope) = (Arc::clone(self), scope.clone());
                ResponseFuture::pending(gateway.ask_issuer(scope, issuer, head, body, facts))
            }
            Err(Undecided::Refused(error)) => ResponseFuture::ready(refuse(&facts, &error)),
        }
    }

    /// Decides again, once an issuer has been asked for its keys.
    async fn ask_issuer(
        self: Arc<Self>,
        scope: Scope,
        issuer: usize,
        head: Parts,
        body: Incoming,
        mut facts: Facts,
    ) -> Response<Body> {
        self.callers.ask_issuer(issuer).await;
        let now = self.clock.now();
        match self.decide(&scope, &head, &mut facts, now) {
            Ok(decision) => match self.settle(&scope, &head, &mut facts, decision, now) {
                Settled::Now(response) => response,
                Settled::Later(pending) => self.go_upstream(scope.client, pending, head, body, facts).await,
            },
            Err(Undecided::UnknownKey(_)) => refuse(&facts, &ClientError::invalid_credentials()),
            Err(Undecided::Refused(error)) => refuse(&facts, &error),
        }
    }

    /// Answers what can be answered at once.
    fn settle(
        self: &Arc<Self>,
        scope: &Scope,
        head: &Parts,
        facts: &mut Facts,
        decision: Decision,
        now: Moment,
    ) -> Settled {
        let response = match decision {
            Decision::Hit(entry) => respond::entry(facts, &head.headers, &entry, now),
            Decision::Revalidate { caller, key, entry } => {
                let response = respond::entry(facts, &head.headers, &entry, now);
                let _nobody_waits = self.join(scope.client.clone(), caller, key, Some(entry), Urgency::Background);
                response
            }
            Decision::Preflight(methods) => respond::preflight(facts, self.cors.as_ref(), &methods),
            Decision::Pending(pending) => return Settled::Later(pending),
        };
        log(facts, &response);
        Settled::Now(response)
    }

    /// The steps that need nobody else.
    fn decide(&self, scope: &Scope, head: &Parts, facts: &mut Facts, now: Moment) -> Result<Decision, Undecided> {
        // Before anything is known of the caller, only the shape of the request is looked at.
        let endpoint = match route(head, &self.config.server, &self.config.pass_through)? {
            // It has no credential: the browser asks before it sends one.
            Route::Preflight(methods) => return preflight(methods, head, facts),
            Route::To(endpoint) => endpoint,
        };
        // Before the query is read, so that somebody unknown learns nothing of what is accepted.
        let caller = self.callers.identify(&head.headers, &scope.entrance, now).map_err(|none| match none {
            Unidentified::Refused(error) => Undecided::Refused(error),
            Unidentified::UnknownKey(issuer) => Undecided::UnknownKey(issuer),
        })?;
        // Before the query is judged: a caller that sends nonsense spends its budget all the same.
        admit(&caller, facts, now)?;
        let question = match endpoint {
            Endpoint::List => Question::List(ListQuery::parse(head.uri.query(), &self.config.query)?),
            Endpoint::Document(execution) => {
                no_parameters(head.uri.query(), &self.config.query)?;
                Question::Document(execution)
            }
            Endpoint::Batches(execution, node) => {
                Question::Batches(execution, node, BatchesQuery::parse(head.uri.query(), &self.config.query)?)
            }
            Endpoint::Other(allowed) => {
                let reads = head.method == Method::GET || head.method == Method::HEAD;
                if !reads {
                    must_write(&caller)?;
                }
                facts.cache = CacheResult::Bypass;
                return Ok(Decision::Pending(Pending::Pass { caller, allowed }));
            }
            Endpoint::Action(execution, action) => {
                must_write(&caller)?;
                no_parameters(head.uri.query(), &self.config.query)?;
                facts.cache = CacheResult::Bypass;
                return Ok(Decision::Pending(Pending::Act { caller, execution, action }));
            }
        };
        let key = CacheKey::new(&caller, question);
        match self.store.get(&key) {
            Some(entry) if entry.is_fresh(now) => {
                facts.cache = CacheResult::Hit;
                Ok(Decision::Hit(entry))
            }
            Some(entry) => match entry.usable(&caller.tenant().config.stale, now) {
                Usable::WhileFailing => {
                    facts.cache = CacheResult::HitStale;
                    Ok(Decision::Hit(entry))
                }
                Usable::WhileRevalidating => {
                    facts.cache = CacheResult::HitStale;
                    Ok(Decision::Revalidate { caller, key, entry })
                }
                _ => Ok(Decision::Pending(Pending::Fetch { caller, key, stale: Some(entry) })),
            },
            None => Ok(Decision::Pending(Pending::Fetch { caller, key, stale: None })),
        }
    }

    /// The steps behind the cache.
    async fn go_upstream(
        self: Arc<Self>,
        client: Client,
        pending: Pending,
        head: Parts,
        body: Incoming,
        mut facts: Facts,
    ) -> Response<Body> {
        let response = match pending {
            Pending::Fetch { caller, key, stale } => {
                let windows = caller.tenant().config.stale;
                let caller_wait = caller.tenant().config.upstream_budget.max_wait;
                let (waiter, collapsed) = self.join(client, caller, key, stale.clone(), Urgency::Foreground);
                facts.cache =
                    if stale.is_some() { CacheResult::Stale { collapsed } } else { CacheResult::Miss { collapsed } };
                // Whoever could have an older answer does not wait for a newer one for ever.
                let patience = stale.as_ref().map(|_| caller_wait);
                let outcome = self.within(patience, waiter).await;
                let now = self.clock.now();
                match (outcome, stale) {
                    (Ok(entry), _) => respond::entry(&facts, &head.headers, &entry, now),
                    (Err(error), Some(stale)) if error.is_passing() && stale.usable(&windows, now) != Usable::No => {
                        facts.cache = CacheResult::HitStale;
                        respond::entry(&facts, &head.headers, &stale, now)
                    }
                    (Err(error), _) => return refuse(&facts, &error),
                }
            }
            Pending::Act { caller, execution, action } => {
                let gateway = Arc::clone(&self);
                // In a task of its own: what the upstream has begun to do must be noted here, also when the caller leaves.
                let acting =
                    tokio::spawn(
                        async move { gateway.origin.act(&client, &caller, &execution, action.name(), body).await },
                    );
                match acting.await.unwrap_or_else(|_| Err(given_up())) {
                    Ok(body) => respond::outcome(&facts, body),
                    Err(error) => return refuse(&facts, &error),
                }
            }
            Pending::Pass { caller, allowed } => {
                let allowed = &self.config.pass_through[allowed];
                match self.origin.pass(&client, &caller, allowed, &head, body).await {
                    Ok((answer, body)) => respond::passed(&facts, &answer, body),
                    Err(error) => return refuse(&facts, &error),
                }
            }
        };
        log(&facts, &response);
        response
    }

    /// The end of a fetch, or that it took longer than somebody is made to wait who has an older answer.
    async fn within(&self, patience: Option<Duration>, waiter: Waiter) -> Result<Arc<Entry>, ClientError> {
        let Some(patience) = patience else { return waiter.outcome().await };
        tokio::select! {
            outcome = waiter.outcome() => outcome,
            () = self.clock.sleep_until(self.clock.now() + patience) => {
                Err(ClientError::new(Reason::UpstreamTimeout, "Refold did not answer in time"))
            }
        }
    }

    /// Joins the fetch of a key, or starts it in a task of its own, so that it goes on when its callers leave.
    fn join(
        self: &Arc<Self>,
        client: Client,
        caller: Caller,
        key: CacheKey,
        stale: Option<Arc<Entry>>,
        urgency: Urgency,
    ) -> (Waiter, bool) {
        match self.flights.join(&key) {
            Joined::Waits(waiter) => (waiter, true),
            Joined::Leads(flight, waiter) => {
                let gateway = Arc::clone(self);
                tokio::spawn(gateway.fly(client, caller, key, stale, urgency, flight));
                (waiter, false)
            }
        }
    }

    async fn fly(
        self: Arc<Self>,
        client: Client,
        caller: Caller,
        key: CacheKey,
        stale: Option<Arc<Entry>>,
        urgency: Urgency,
        flight: Flight,
    ) {
        // Another fetch may have ended between the look-up and the start of this one.
        if let Some(entry) = self.store.get(&key).filter(|entry| entry.is_fresh(self.clock.now())) {
            return flight.land(Ok(entry));
        }
        let fetched = self.origin.fetch(&client, &caller, key.question(), stale.as_deref(), urgency).await;
        let outcome = fetched.map(Arc::new);
        match (&outcome, stale) {
            (Ok(entry), _) => self.store.put(key, Arc::clone(entry)),
            (Err(error), Some(stale)) if error.is_passing() => stale.refetch_failed(self.clock.now()),
            // What it said is about the caller or the question: what was kept is of no use any more.
            (Err(_), Some(_)) => self.store.remove(&key),
            (Err(_), None) => {}
        }
        flight.land(outcome);
    }
}

/// Lets pass who may change something.
fn must_write(caller: &Caller) -> Result<(), ClientError> {
    if caller.access() == Access::ReadWrite {
        return Ok(());
    }
    Err(ClientError::new(Reason::ReadOnlyCredentials, "this credential may read and nothing else"))
}

/// A browser's question what it may do: only pages of known origins are answered.
fn preflight(methods: Cow<'static, str>, head: &Parts, facts: &Facts) -> Result<Decision, Undecided> {
    let allowed = matches!(facts.cors, Some(Some(_)));
    if allowed && cors::is_preflight(&head.headers) {
        Ok(Decision::Preflight(methods))
    } else {
        Err(ClientError::method_not_allowed(methods).into())
    }
}

/// Takes the request off the caller's budgets, and lets it pass if they are not spent.
fn admit(caller: &Caller, facts: &mut Facts, now: Moment) -> Result<(), ClientError> {
    // A token that nobody vouches for has no budget of its own to show.
    if caller.partition().standing(now) != Standing::Known {
        return Ok(());
    }
    let own = match caller.credential() {
        Credential::ClientKey(key) => key.budget.as_ref().map(ClientBudget::spend),
        Credential::Jwt(_) | Credential::OrgKey(_) | Credential::SessionToken(_) => None,
    };
    // A key that has spent its own budget takes nothing off its linked account's, which others share.
    let spent = match own {
        Some(own) if own.refused.is_some() => own,
        _ => caller.partition().budget.spend(),
    };
    facts.budget = Some((spent, caller.tenant().rate_limit_policy().clone()));
    match spent.refused {
        None => Ok(()),
        Some(wait) => {
            let message = "too many requests for this linked account or key; slow down";
            Err(ClientError::new(Reason::RateLimitExceeded, message).retry_after(wait))
        }
    }
}

/// The task that worked for a caller has died.
fn given_up() -> ClientError {
    ClientError::new(Reason::Overloaded, "the request to Refold was given up; try again")
        .retry_after(Duration::from_secs(1))
}

fn refuse(facts: &Facts, error: &ClientError) -> Response<Body> {
    let response = respond::error(facts, error);
    tracing::debug!(
        request_id = %facts.request_id,
        status = error.status().as_u16(),
        error_code = error.error_code(),
        "refused"
    );
    response
}

fn log(facts: &Facts, response: &Response<Body>) {
    tracing::debug!(
        request_id = %facts.request_id,
        status = response.status().as_u16(),
        cache = facts.cache.name(),
        "answered"
    );
}

/// A response that is there already, or one that has to be waited for.
pub struct ResponseFuture(State);

enum State {
    Ready(Option<Response<Body>>),
    Pending(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl ResponseFuture {
    fn ready(response: Response<Body>) -> Self {
        Self(State::Ready(Some(response)))
    }

    fn pending(response: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self(State::Pending(Box::pin(response)))
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            // Polled after it was ready: like every other such future, it stays pending.
            State::Ready(response) => response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            State::Pending(response) => response.as_mut().poll(context).map(Ok),
        }
    }
}
