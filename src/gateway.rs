//! A request's straight line, one call a step. Read this file first.
//!
//! ```text
//! route -> identify -> normalise -> admit -> look up -> fetch -> translate -> respond
//! ```
//!
//! [`Gateway::handle`] decides at once, on the thread that the request came to, whether it can be answered there: a hit or
//! a refusal is a finished response and no future. Only what needs the upstream becomes one.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::admit::{admit, must_write};
use crate::body::Body;
use crate::cache::{CacheKey, Coding, Directives, Entry, Flight, Flights, Joined, Store, Usable, Waiter};
use crate::caller::{Caller, Callers, Entrance, Unidentified};
use crate::client::{Client, ClientSetupError};
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::cors::{self, Cors};
use crate::error::{ClientError, Reason};
use crate::executions::{BatchesQuery, ListQuery, PathId, Question, no_parameters};
use crate::limit::Urgency;
use crate::origin::Origin;
use crate::respond::{self, CacheResult, Facts, RequestId};
use crate::route::{Action, Endpoint, Route, route};
use crate::tenant::Tenant;
use crate::webhook;

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

const NOT_CACHED: &str = "there is no answer in the cache that the request's Cache-Control takes";

/// A request that needs the upstream.
enum Pending {
    Fetch { caller: Caller, key: CacheKey, stale: Option<Arc<Entry>>, no_store: bool },
    Act { caller: Caller, execution: PathId, action: Action },
    Pass { caller: Caller, allowed: usize },
    Hook { tenant: Arc<Tenant> },
}

/// What is to be fetched, and for whom.
struct Errand {
    caller: Caller,
    key: CacheKey,
    stale: Option<Arc<Entry>>,
    urgency: Urgency,
    /// Whatever is in the cache.
    anyway: bool,
}

impl Errand {
    /// An entry is to be renewed, and nobody waits for it.
    fn renewal(caller: Caller, key: CacheKey, stale: Arc<Entry>) -> Self {
        Self { caller, key, stale: Some(stale), urgency: Urgency::Background, anyway: false }
    }
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
    pub fn handle(self: &Arc<Self>, scope: &Scope, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let now = self.clock.now();
        let mut facts = Facts {
            request_id: RequestId::new(),
            head: head.method == Method::HEAD,
            budget: None,
            cache: CacheResult::NotAsked,
            coding: Coding::preferred(&head.headers),
            cors: self.cors.as_ref().map(|cors| cors.allowed(&head.headers)),
        };
        match self.decide(scope, &head, &mut facts, now) {
            Ok(decision) => match self.settle(scope, &head, &mut facts, decision, now) {
                Settled::Now(response) => Answer::Now(response),
                Settled::Later(pending) => {
                    let (gateway, client) = (Arc::clone(self), scope.client.clone());
                    Answer::Later(Box::pin(gateway.go_upstream(client, pending, head, body, facts)))
                }
            },
            Err(Undecided::UnknownKey(issuer)) => {
                let (gateway, scope) = (Arc::clone(self), scope.clone());
                Answer::Later(Box::pin(gateway.ask_issuer(scope, issuer, head, body, facts)))
            }
            Err(Undecided::Refused(error)) => Answer::Now(refuse(&facts, &error)),
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
            Decision::Hit(entry) => {
                let response = respond::entry(facts, &head.headers, &entry, now);
                encode_later(facts, entry);
                response
            }
            Decision::Revalidate { caller, key, entry } => {
                let response = respond::entry(facts, &head.headers, &entry, now);
                let _nobody_waits = self.join(scope.client.clone(), Errand::renewal(caller, key, entry));
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
            // Signed, not sent by a caller.
            Route::Hook(tenant) => {
                let tenant = self.callers.tenant_with_webhooks(&tenant).ok_or_else(ClientError::invalid_credentials)?;
                facts.cache = CacheResult::Bypass;
                return Ok(Decision::Pending(Pending::Hook { tenant: Arc::clone(tenant) }));
            }
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
        let directives = Directives::of(&head.headers, &caller.tenant().config.request_directives);
        let entry = self.store.get(&key);
        match entry.as_ref().and_then(|entry| directives.accept(entry, now)) {
            None => {}
            Some(true) => {
                facts.cache = CacheResult::HitStale;
                return entry.map(Decision::Hit).ok_or_else(|| ClientError::new(Reason::NotCached, NOT_CACHED).into());
            }
            Some(false) if directives.only_if_cached() => {
                return Err(ClientError::new(Reason::NotCached, NOT_CACHED).into());
            }
            Some(false) => {
                facts.cache = CacheResult::Request;
                return Ok(Decision::Pending(Pending::Fetch {
                    caller,
                    key,
                    stale: None,
                    no_store: directives.no_store(),
                }));
            }
        }
        let no_store = directives.no_store();
        match entry {
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
                _ if directives.only_if_cached() => Err(ClientError::new(Reason::NotCached, NOT_CACHED).into()),
                _ => Ok(Decision::Pending(Pending::Fetch { caller, key, stale: Some(entry), no_store })),
            },
            None if directives.only_if_cached() => Err(ClientError::new(Reason::NotCached, NOT_CACHED).into()),
            None => Ok(Decision::Pending(Pending::Fetch { caller, key, stale: None, no_store })),
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
            // It must leave nothing behind, so nobody else's fetch is shared either.
            Pending::Fetch { caller, key, no_store: true, .. } => {
                let fetched = self.origin.fetch(&client, &caller, key.question(), None, Urgency::Foreground).await;
                facts.cache = CacheResult::Request;
                match fetched {
                    Ok(entry) => respond::entry(&facts, &head.headers, &entry.not_stored(), self.clock.now()),
                    Err(error) => return refuse(&facts, &error),
                }
            }
            Pending::Fetch { caller, key, stale, .. } => {
                let windows = caller.tenant().config.stale;
                let caller_wait = caller.tenant().config.upstream_budget.max_wait;
                let anyway = facts.cache == CacheResult::Request;
                let (waiter, collapsed) = self
                    .join(client, Errand { caller, key, stale: stale.clone(), urgency: Urgency::Foreground, anyway });
                facts.cache = match (facts.cache, &stale) {
                    (CacheResult::Request, _) => CacheResult::Request,
                    (_, Some(_)) => CacheResult::Stale { collapsed },
                    (_, None) => CacheResult::Miss { collapsed },
                };
                // Whoever could have an older answer does not wait for a newer one for ever.
                let patience = stale.as_ref().map(|_| caller_wait);
                let outcome = self.within(patience, waiter).await;
                let now = self.clock.now();
                match (outcome, stale) {
                    (Ok(entry), _) => {
                        // It has waited for Refold: this is little more, and whoever comes after has it at once.
                        if let Some(coding) = facts.coding.filter(|coding| entry.lacks(*coding)) {
                            entry.encode(coding);
                        }
                        respond::entry(&facts, &head.headers, &entry, now)
                    }
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
            Pending::Hook { tenant } => {
                let taken = match self.origin.read_body(body).await {
                    Ok(body) => webhook::receive(&tenant, &head.headers, &body),
                    Err(error) => Err(error),
                };
                match taken {
                    Ok(()) => respond::taken(&facts),
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
    fn join(self: &Arc<Self>, client: Client, errand: Errand) -> (Waiter, bool) {
        match self.flights.join(&errand.key) {
            Joined::Waits(waiter) => (waiter, true),
            Joined::Leads(flight, waiter) => {
                let gateway = Arc::clone(self);
                tokio::spawn(gateway.fly(client, errand, flight));
                (waiter, false)
            }
        }
    }

    async fn fly(self: Arc<Self>, client: Client, errand: Errand, flight: Flight) {
        let Errand { caller, key, stale, urgency, anyway } = errand;
        // Another fetch may have ended between the look-up and the start of this one.
        let fresh = |entry: &Arc<Entry>| entry.is_fresh(self.clock.now());
        if let Some(entry) = self.store.get(&key).filter(fresh).filter(|_| !anyway) {
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

/// Has an entry coded in the way that a request would have liked, for those who come after.
fn encode_later(facts: &Facts, entry: Arc<Entry>) {
    if let Some(coding) = facts.coding.filter(|coding| entry.lacks(*coding)) {
        tokio::task::spawn_blocking(move || entry.encode(coding));
    }
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
pub enum Answer {
    /// Here it is.
    Now(Response<Body>),
    /// It will be.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}
