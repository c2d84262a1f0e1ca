//! A request's straight line, one call a step. Read this file first; what happens behind the cache is in `pending` and `fetch`.
//!
//! ```text
//! route -> identify -> normalise -> admit -> look up -> fetch -> translate -> respond
//! ```
//!
//! [`Gateway::handle`] decides at once, on the thread that the request came to, whether it can be answered there: a hit or
//! a refusal is a finished response and no future. Only what needs the upstream becomes one.

mod derive;
mod fetch;
mod pending;
mod status;
mod succession;
mod unanswered;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;

use self::fetch::Errand;
use self::pending::{Miss, Pending};
pub use self::status::{Explained, Readiness, Status, TenantReadiness};
use self::unanswered::{Unanswered, Wait};
use crate::admit::{admit, must_write};
use crate::body::Body;
use crate::cache::{CacheKey, Coding, Directives, Entry, Flights, Store, Usable};
use crate::caller::{Caller, Callers, Entrance, Known, Unidentified};
use crate::client::{Client, ClientSetupError};
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::cors::{self, Cors};
use crate::error::{ClientError, Reason};
use crate::executions::{Asked, BatchesQuery, Question, no_parameters};
use crate::fields::Fields;
use crate::observe::{Connected, Context, Observer, Record, Span, Spent, Tracer, Who};
use crate::origin::Origin;
use crate::respond::{self, CacheResult, Facts, RequestId};
use crate::route::{Endpoint, Resource, Route, route};
use crate::tenant::Tenant;

/// Everything that requests share. One for all workers.
#[derive(Debug)]
pub struct Gateway {
    config: Arc<Config>,
    clock: Clock,
    callers: Callers,
    store: Store,
    flights: Arc<Flights<Option<Context>>>,
    cors: Option<Cors>,
    origin: Origin,
    observer: Arc<Observer>,
    tracer: Option<Tracer>,
}

/// Where a request came in.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The upstream pool of this worker.
    pub client: Client,
    /// What the connection says of who sends requests over it.
    pub entrance: Entrance,
    /// Turns true when what is not answered yet is given up, since the process ends.
    pub over: watch::Receiver<bool>,
}

const NOT_CACHED: &str = "there is no answer in the cache that the request's Cache-Control takes";

/// A request on its way, and what the steps have found out about it.
struct Exchange {
    head: Parts,
    facts: Facts,
    began: Moment,
    resource: Resource,
    caller: Option<Caller>,
    /// Who would be the caller, had it been allowed.
    known: Option<Known>,
    key: Option<CacheKey>,
    /// The question's canonical form, if it is written out already.
    canonical: Option<Arc<str>>,
    /// How old the answer is.
    age: Option<Duration>,
    span: Span,
    /// What it cost at the upstream.
    spent: Option<Arc<Spent>>,
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
    Revalidate(Errand, Arc<Entry>),
    /// A browser asks what it may do; these methods.
    Preflight(Cow<'static, str>),
    Pending(Pending),
}

impl Gateway {
    /// A gateway with an empty cache.
    ///
    /// # Errors
    /// If an issuer's key server or the collector of traces can't be reached in the way that the configuration says.
    pub fn new(config: Arc<Config>, clock: Clock) -> Result<Self, ClientSetupError> {
        let observer = Arc::new(Observer::new(clock.clone()));
        Ok(Self {
            callers: Callers::new(&config, &clock)?,
            store: store(config.cache.capacity.bytes(), &observer),
            flights: Arc::default(),
            cors: config.cors.as_ref().map(Cors::new),
            origin: Origin::new(Arc::clone(&config), clock.clone()),
            tracer: observer.tracer(&config.traces)?,
            observer,
            config,
            clock,
        })
    }

    /// All tenants, in the order of the configuration.
    #[must_use]
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        self.callers.tenants()
    }

    /// Where somebody comes in who has shown a certificate with these names at an entrance.
    #[must_use]
    pub fn entrance_with_certificate(&self, entrance: &Entrance, names: &[String]) -> Entrance {
        let known = self.callers.by_certificate(names).or_else(|| entrance.known.clone());
        Entrance { known, ..entrance.clone() }
    }

    /// A connection of a caller is open, for as long as what is returned.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.observer.connection()
    }

    /// Waits a moment for the spans of what was answered to be sent.
    pub fn flush_traces(&self) {
        if let Some(tracer) = &self.tracer {
            tracer.flush();
        }
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
        let facts = Facts {
            request_id: RequestId::new(),
            head: head.method == Method::HEAD,
            budget: None,
            cache: CacheResult::NotAsked,
            coding: None,
            is_conditional: false,
            cors: self.cors.as_ref().map(|cors| cors.allowed(&head.headers)),
        };
        let mut exchange = Exchange {
            span: self.tracer.as_ref().map_or_else(Span::default, |tracer| tracer.serve(&head.headers)),
            head,
            facts,
            began: now,
            resource: Resource::Other,
            caller: None,
            known: None,
            key: None,
            canonical: None,
            age: None,
            spent: None,
        };
        let wait = match self.decide(scope, &mut exchange, now) {
            Ok(decision) => match self.settle(scope, &mut exchange, decision, now) {
                Settled::Now(response) => {
                    self.ended(&mut exchange, response.status(), None);
                    return Answer::Now(response);
                }
                Settled::Later(pending) => Wait::ForUpstream(pending),
            },
            Err(Undecided::UnknownKey(issuer)) => Wait::ForIssuer(issuer),
            Err(Undecided::Refused(error)) => return Answer::Now(self.refuse(&mut exchange, &error)),
        };
        self.later(scope, wait, exchange, body)
    }

    /// Out of line: futures are large, and a hit must not make room for one on the stack.
    #[inline(never)]
    fn later(self: &Arc<Self>, scope: &Scope, wait: Wait, exchange: Exchange, body: Incoming) -> Answer {
        Answer::Later(Box::pin(Unanswered::new(Arc::clone(self), exchange).answer(scope.clone(), wait, body)))
    }

    /// Answers what can be answered at once.
    fn settle(self: &Arc<Self>, scope: &Scope, exchange: &mut Exchange, decision: Decision, now: Moment) -> Settled {
        let response = match decision {
            Decision::Hit(entry) => {
                let response = give(exchange, &entry, now);
                encode_later(&exchange.facts, entry);
                response
            }
            Decision::Revalidate(errand, entry) => {
                let response = give(exchange, &entry, now);
                let _nobody_waits = self.join(scope.client.clone(), errand);
                response
            }
            Decision::Preflight(methods) => respond::preflight(&mut exchange.facts, self.cors.as_ref(), &methods),
            Decision::Pending(pending) => return Settled::Later(pending),
        };
        Settled::Now(response)
    }

    /// The steps that need nobody else.
    fn decide(&self, scope: &Scope, exchange: &mut Exchange, now: Moment) -> Result<Decision, Undecided> {
        let Exchange { head, facts, span, known, .. } = exchange;
        // Before anything is known of the caller, only the shape of the request is looked at.
        let route = route(head, &self.config.server, &self.config.pass_through)?;
        exchange.resource = route.resource();
        let endpoint = match route {
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
        let fields = Fields::of(&head.headers);
        // Before the query is read, so that somebody unknown learns nothing of what is accepted.
        let caller = self.callers.identify(&fields, &scope.entrance, now).map_err(|none| match none {
            Unidentified::Refused(error) => Undecided::Refused(error),
            Unidentified::Known(error, who) => {
                *known = Some(who);
                Undecided::Refused(error)
            }
            Unidentified::UnknownKey(issuer) => Undecided::UnknownKey(issuer),
        })?;
        let caller = &*exchange.caller.insert(caller);
        // Before the query is judged: a caller that sends nonsense spends its budget all the same.
        admit(caller, &mut facts.budget, now)?;
        let asked = match endpoint {
            Endpoint::List => Asked::list(head.uri.query(), &self.config.query)?,
            Endpoint::Document(execution) => {
                no_parameters(head.uri.query(), &self.config.query)?;
                Question::Document(execution).into()
            }
            Endpoint::Batches(execution, node) => {
                let query = BatchesQuery::parse(head.uri.query(), &self.config.query)?;
                Question::Batches(execution, node, query).into()
            }
            Endpoint::Other(allowed) => {
                let reads = head.method == Method::GET || head.method == Method::HEAD;
                if !reads {
                    must_write(caller)?;
                }
                facts.cache = CacheResult::Bypass;
                return Ok(Decision::Pending(Pending::Pass { caller: caller.clone(), allowed }));
            }
            Endpoint::Action(execution, action) => {
                must_write(caller)?;
                no_parameters(head.uri.query(), &self.config.query)?;
                facts.cache = CacheResult::Bypass;
                return Ok(Decision::Pending(Pending::Act { caller: caller.clone(), execution, action }));
            }
        };
        facts.coding = if fields.accepts_encodings { Coding::preferred(&head.headers) } else { None };
        facts.is_conditional = fields.is_conditional;
        exchange.canonical = asked.canonical;
        let key = &*exchange.key.insert(CacheKey::new(caller, asked.question));
        let directives = Directives::of(&head.headers, &caller.tenant().config.request_directives);
        let (entry, usable) = match self.store.get(key) {
            None => (None, Usable::No),
            Some(entry) => {
                let usable = match directives.accept(&entry, now) {
                    None => entry.usable(&caller.tenant().config.stale, now),
                    // Stale, and the caller says that this will do.
                    Some(true) => Usable::WhileFailing,
                    Some(false) => {
                        facts.cache = CacheResult::Request;
                        Usable::No
                    }
                };
                (Some(entry), usable)
            }
        };
        match (entry, usable) {
            (Some(entry), Usable::Fresh) => {
                facts.cache = CacheResult::Hit;
                Ok(Decision::Hit(entry))
            }
            (Some(entry), Usable::WhileFailing) => {
                facts.cache = CacheResult::HitStale;
                Ok(Decision::Hit(entry))
            }
            (Some(entry), Usable::WhileRevalidating) => {
                facts.cache = CacheResult::HitStale;
                let trip = self.observer.trip(caller, span, &head.headers);
                Ok(Decision::Revalidate(Errand::renewal(caller, key, &entry, trip), entry))
            }
            _ if directives.only_if_cached() => Err(ClientError::new(Reason::NotCached, NOT_CACHED).into()),
            (entry, _) => {
                // What the caller did not take is no comfort either if nothing newer is to be had.
                let stale = entry.filter(|_| facts.cache != CacheResult::Request);
                let (caller, key) = (caller.clone(), key.clone());
                Ok(Decision::Pending(Pending::Fetch(Miss { caller, key, stale, directives })))
            }
        }
    }

    /// The answer with an error.
    #[cold]
    fn refuse(&self, exchange: &mut Exchange, error: &ClientError) -> Response<Body> {
        let response = respond::error(&mut exchange.facts, error);
        self.ended(exchange, response.status(), Some((error.error_code(), error.label())));
        response
    }

    /// Tells whoever watches, with the code of the error if it was one, and the label for it. The last thing that is done for
    /// any request.
    fn ended(&self, exchange: &mut Exchange, status: StatusCode, error: Option<(&str, &'static str)>) {
        let now = self.clock.now();
        let record = Record {
            request_id: exchange.facts.request_id,
            method: &exchange.head.method,
            resource: exchange.resource,
            who: match (&exchange.caller, &exchange.known) {
                (Some(caller), _) => Some(Who::from(caller)),
                (None, Some(known)) => Some(Who::from(known)),
                (None, None) => None,
            },
            key: exchange.key.as_ref(),
            canonical: exchange.canonical.as_deref(),
            status,
            error_code: error.map(|(code, _)| code),
            error_label: error.map(|(_, label)| label),
            cache: exchange.facts.cache,
            age: exchange.age,
            at: now,
            duration: now.since(exchange.began),
            upstream: exchange.spent.as_ref().and_then(|spent| spent.upstream()),
            trace: exchange.span.context().map(|context| context.trace),
        };
        self.observer.answered(&self.config.log, &record);
        exchange.span.answered(exchange.head.uri.path(), &record);
    }
}

/// An empty cache.
fn store(capacity: u64, observer: &Arc<Observer>) -> Store {
    let observer = Arc::clone(observer);
    Store::new(capacity, move || observer.evicted())
}

/// The answer with an entry.
fn give(exchange: &mut Exchange, entry: &Entry, now: Moment) -> Response<Body> {
    exchange.age = Some(entry.age(now));
    respond::entry(&mut exchange.facts, &exchange.head.headers, entry, now)
}

/// Has an entry coded in the way that a request would have liked, for those who come after.
fn encode_later(facts: &Facts, entry: Arc<Entry>) {
    if let Some(coding) = facts.coding.filter(|coding| entry.claims(*coding)) {
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

/// A response that is there already, or one that has to be waited for.
pub enum Answer {
    /// Here it is.
    Now(Response<Body>),
    /// It will be.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}
