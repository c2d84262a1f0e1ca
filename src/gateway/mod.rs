//! Calls the steps of a request in order, one call per step. Read this file first.
//!
//! ```text
//! route -> identify -> admit -> normalise -> look up -> (fetch -> translate ->) respond
//! ```
//!
//! [`Gateway::handle`] runs the steps up to the look-up on the thread that the request arrived on, and none of them
//! waits. A hit or a refusal is a finished response. A request that needs an issuer's keys or Refold becomes an
//! [`Unfinished`], which [`Gateway::finish`] (in `finish`) completes.

mod answer;
mod context;
mod error;
mod finish;
mod fleet_status;
mod look_up;
mod maintenance;
mod normalise;
mod reload;
mod status;
mod unfinished;
mod unparsed;

use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response};

use self::answer::{Answer, preflight, serve};
pub use self::context::{ConnectionContext, KnownCaller};
use self::context::{RequestContext, Sent};
pub use self::error::GatewayError;
pub use self::fleet_status::FleetStatus;
use self::look_up::{Lookup, look_up, not_cached};
use self::normalise::{Miss, Normalised, Renewal, UpstreamOp, canonical_of_refused, normalise};
pub use self::status::{Explained, Readiness, Status, TenantReadiness, TenantState};
pub use self::unfinished::Unfinished;
use self::unfinished::Wait;
use crate::admit::{NotAdmitted, admit};
use crate::cache::{CacheKey, CacheOutcome, Coding, CutOff, Directives, Encoder, Entry, RenewalClaim};
use crate::caller::{Authenticated, Caller, Callers, IssuerIndex, Unidentified};
use crate::clock::{Clock, Moment};
use crate::config::{Config, LoggedRequests};
use crate::error::{ClientError, Reason};
use crate::fetch::{FetchRequest, Fetcher};
use crate::fleet::{EventSink, Fleet, FleetError};
use crate::limit::{BudgetQuestion, Policy};
use crate::observe::{AccessError, AccessRecord, LogWriter, Observer, Tracer, WebhookOutcome};
use crate::request::body::CallerBody;
use crate::request::cors::CorsPolicy;
use crate::request::headers::RequestHeaders;
use crate::request::route::{Endpoint, Route, route};
use crate::respond::{self, Body, ResponseContext};
use crate::tenant::{Tenant, TenantDropper};
use crate::upstream::UpstreamTelemetry;
use crate::webhook::{DeliveryMemory, Signature};

/// The state that all requests share. All workers use one gateway until a reload replaces it.
#[derive(Debug)]
pub struct Gateway {
    config: Arc<Config>,
    clock: Clock,
    callers: Callers,
    cors: Option<CorsPolicy>,
    fetcher: Arc<Fetcher>,
    encoder: Encoder,
    deliveries: DeliveryMemory,
    observer: Arc<Observer>,
    tracer: Option<Tracer>,
    fleet: Option<Fleet>,
}

/// The result of [`Gateway::handle`].
pub enum Handled {
    /// The response, complete.
    Response(Response<Body>),
    /// A request that has to wait; [`Gateway::finish`] answers it.
    Unfinished(Box<Unfinished>),
}

/// The result of the steps up to the look-up.
enum Decision {
    /// The request can be answered now.
    Answer(Answer),
    /// The request needs the upstream.
    Upstream(UpstreamOp),
}

/// The reason for which the steps of [`Gateway::decide`] reach no [`Decision`].
enum Unresolved {
    Refused(ClientError),
    /// The JWT names an unknown key, so the issuer's keys have to be fetched first.
    UnknownKey(IssuerIndex),
    /// The fleet's server has to decide about a budget of the caller.
    Budget(Policy, BudgetQuestion),
}

impl<E: Into<ClientError>> From<E> for Unresolved {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl Gateway {
    /// A gateway with an empty cache. `access_log`, if given, receives the lines of the access log. Joins the fleet of the
    /// configuration, if there is one.
    ///
    /// # Errors
    /// If the TLS settings for an issuer's key server, the trace collector or the fleet can't be used.
    pub fn new(config: Arc<Config>, clock: Clock, access_log: Option<LogWriter>) -> Result<Self, GatewayError> {
        let observer = Arc::new(Observer::new(clock.clone(), access_log));
        let fleet = start_fleet(&config, &clock, &observer)?;
        let fetcher = Fetcher::new(Arc::clone(&config), clock.clone(), &observer, fleet.as_ref());
        let callers = Callers::new(&config, &clock, fleet.as_ref())?;
        observer.configure(callers.tenants());
        if let Some(fleet) = &fleet {
            fleet.set_dropper(Arc::new(TenantDropper::new(callers.tenants())));
        }
        Ok(Self {
            callers,
            cors: config.cors.as_ref().map(CorsPolicy::new),
            encoder: Encoder::new(fetcher.store().clone()),
            fetcher: Arc::new(fetcher),
            deliveries: DeliveryMemory::default(),
            tracer: observer.tracer(&config.traces)?,
            observer,
            config,
            clock,
            fleet,
        })
    }

    /// Answers a request, or returns it as [`Handled::Unfinished`] if it has to wait.
    ///
    /// The hit path: it takes no lock that a miss can hold, does no I/O and copies no body.
    #[must_use]
    pub fn handle(self: &Arc<Self>, connection: &ConnectionContext, request: Request<CallerBody>) -> Handled {
        let (head, body) = request.into_parts();
        let now = self.clock.now();
        let mut context = RequestContext::new(&head, now, self.cors.as_ref(), self.tracer.as_ref());
        context.peer = connection.identity.peer;
        let wait = match self.decide(connection, &head, &mut context, now) {
            Ok(Decision::Upstream(op)) => Wait::Upstream(op),
            Ok(Decision::Answer(answer)) => {
                let response = self.answer(connection, &head, &mut context, answer, now);
                self.record(&head, &mut context, Sent::from(&response), None);
                return Handled::Response(response);
            }
            Err(Unresolved::Refused(error)) => return Handled::Response(self.refuse(&head, &mut context, &error)),
            Err(Unresolved::UnknownKey(issuer)) => Wait::Issuer(issuer),
            Err(Unresolved::Budget(policy, question)) => Wait::Budget(policy, question),
        };
        Handled::Unfinished(Unfinished::boxed(connection, head, context, wait, body))
    }

    /// Runs the steps that need no I/O, in order.
    fn decide(
        &self,
        connection: &ConnectionContext,
        head: &Parts,
        context: &mut RequestContext,
        now: Moment,
    ) -> Result<Decision, Unresolved> {
        // First: it needs only the method, the target and the header fields, not the caller.
        let route = route(head, &self.config.server, &self.config.pass_through)?;
        context.resource = route.resource();
        let endpoint = match route {
            Route::Endpoint(endpoint) => endpoint,
            // A CORS preflight carries no credential.
            Route::Preflight(permitted) => return Ok(Decision::Answer(preflight(head, context, permitted)?)),
            // A webhook carries a signature instead of a credential.
            Route::Webhook(tenant) => return self.webhook(head, context, &tenant),
        };
        // Also the log line of a refusal names it.
        if let Endpoint::Action(execution, _) = &endpoint {
            context.execution = Some(execution.clone());
        }
        // Before a trusted listener identifies its caller: the request may be a web page's.
        connection.identity.check_source(head, context.response.cors.as_ref().and_then(Option::as_ref))?;
        let headers = RequestHeaders::of(&head.headers);
        // Before the query is parsed, so that a request without valid credentials gets no hint about valid parameters.
        let identified = self.callers.identify(&headers, &connection.identity, now);
        let caller = &*context.caller.insert(identified.map_err(|error| unresolved(error, &mut context.refused))?);
        if caller.is_known(now) {
            connection.known_caller.record();
        }
        // Before the query is parsed, so that invalid queries spend the caller's budget too.
        admit(caller, &mut context.response.budgets, now).map_err(undecided)?;
        // Before the look-up, so that every spelling of a question finds the same entry.
        let asked = match normalise(endpoint, caller, head, (&connection.query_memo, &self.config.query))? {
            Normalised::Question(asked) => asked,
            Normalised::Uncached(op) => {
                context.response.cache = CacheOutcome::Bypass;
                return Ok(Decision::Upstream(op));
            }
        };
        context.response.coding = headers.accepts_encodings.then(|| Coding::preferred(&head.headers)).flatten();
        context.response.is_conditional = headers.is_conditional;
        context.canonical = asked.canonical;
        // Before the key is made: a drop that the replica applies between the two would leave it trust and the old key.
        let cut_off = self.fetcher.store().cut_off(now);
        let key = &*context.key.insert(CacheKey::new(caller, asked.question));
        // Last of the steps that need no I/O: finds the entry in this caller's partition, or decides to fetch.
        self.look_up(head, caller, key, &mut context.response, (now, cut_off))
    }

    /// The cache step: serve a stored entry, or fetch.
    fn look_up(
        &self,
        head: &Parts,
        caller: &Caller,
        key: &CacheKey,
        response: &mut ResponseContext,
        at: (Moment, Option<CutOff>),
    ) -> Result<Decision, Unresolved> {
        let tenant = caller.tenant();
        let directives = Directives::of(&head.headers, &tenant.config.request_directives);
        let (outcome, answer) = match look_up(self.fetcher.store(), key, &directives, tenant, at) {
            Lookup::Hit(entry, outcome) => (outcome, Answer::Hit(entry)),
            Lookup::Renewable(stale, claim, CacheOutcome::HitStale) if self.fetcher.asks_fleet() => {
                response.cache = CacheOutcome::HitStale;
                let renewal = Renewal { caller: caller.clone(), key: key.clone(), stale, claim };
                return Ok(Decision::Upstream(UpstreamOp::Renew(Box::new(renewal))));
            }
            Lookup::Renewable(entry, claim, outcome) => (outcome, Answer::Renew(entry, claim)),
            Lookup::Miss { stale, outcome } => {
                response.cache = outcome;
                if directives.only_if_cached() {
                    return Err(not_cached().into());
                }
                let miss = Miss { caller: caller.clone(), key: key.clone(), stale, directives };
                return Ok(Decision::Upstream(UpstreamOp::Fetch(Box::new(miss))));
            }
        };
        response.cache = outcome;
        Ok(Decision::Answer(answer))
    }

    /// The response to a request that needs no upstream.
    fn answer(
        &self,
        connection: &ConnectionContext,
        head: &Parts,
        context: &mut RequestContext,
        answer: Answer,
        now: Moment,
    ) -> Response<Body> {
        match answer {
            Answer::Hit(entry) => {
                let response = serve(head, context, &entry, now);
                // As this request would have preferred it, for the requests that follow.
                if let (Some(coding), Some(key)) = (context.response.coding, &context.key) {
                    drop(self.encoder.start(key, &entry, coding));
                }
                response
            }
            Answer::Renew(entry, claim) => {
                let response = serve(head, context, &entry, now);
                self.renew(connection, head, context, (entry, claim));
                response
            }
            Answer::Preflight(resource) => respond::preflight(&mut context.response, self.cors.as_ref(), &resource),
        }
    }

    /// Renews an entry in the background.
    fn renew(
        &self,
        connection: &ConnectionContext,
        head: &Parts,
        context: &RequestContext,
        (entry, claim): (Arc<Entry>, RenewalClaim),
    ) {
        let (Some(caller), Some(key)) = (&context.caller, &context.key) else { return };
        let telemetry = UpstreamTelemetry::new(Arc::clone(&self.observer), caller, &context.span, &head.headers);
        let renewal = FetchRequest::renewal(caller, key, entry, claim, telemetry);
        let (_follower, _role) = self.fetcher.join(connection.client.clone(), renewal);
    }

    /// A webhook for a tenant. The form of its signature is checked before its body is read, the signature afterwards.
    fn webhook(&self, head: &Parts, context: &mut RequestContext, tenant: &str) -> Result<Decision, Unresolved> {
        let tenant = self.callers.tenant_with_webhooks(tenant).cloned();
        let signature = Signature::of(&head.headers)
            .inspect_err(|_| self.count_webhook(tenant.as_deref(), WebhookOutcome::Refused))?;
        context.response.cache = CacheOutcome::Bypass;
        Ok(Decision::Upstream(UpstreamOp::Webhook { tenant, signature }))
    }

    /// Counts a webhook of a tenant, if the tenant exists.
    fn count_webhook(&self, tenant: Option<&Tenant>, outcome: WebhookOutcome) {
        if let Some(tenant) = tenant {
            self.observer.webhook(tenant, outcome);
        }
    }

    /// The error response.
    #[cold]
    fn refuse(&self, head: &Parts, context: &mut RequestContext, error: &ClientError) -> Response<Body> {
        // A budget refuses a request before its query is parsed; the log shows what is asked too often all the same.
        if context.key.is_none()
            && error.is(Reason::RateLimitExceeded)
            && self.config.log.requests != LoggedRequests::None
        {
            context.canonical = self.canonical_of_refused(head);
        }
        let response = respond::error(&mut context.response, error);
        self.record(head, context, Sent::from(&response), Some(AccessError::from(error)));
        response
    }

    /// The canonical query of a request that was refused before its query was parsed.
    fn canonical_of_refused(&self, head: &Parts) -> Option<Arc<str>> {
        match route(head, &self.config.server, &self.config.pass_through).ok()? {
            Route::Endpoint(endpoint) => canonical_of_refused(endpoint, head.uri.query(), &self.config.query),
            Route::Preflight(_) | Route::Webhook(_) => None,
        }
    }

    /// Records the finished request in metrics, log and trace. The last thing that happens for every request.
    fn record(&self, head: &Parts, context: &mut RequestContext, sent: Sent, error: Option<AccessError<'_>>) {
        let mut span = std::mem::take(&mut context.span);
        let trace_id = span.context().map(|span| span.trace_id());
        let mut record = AccessRecord { trace_id, ..context.record(head, sent, error, self.clock.now()) };
        record.origin.trusted_proxies = &self.config.server.trusted_proxies;
        self.observer.answered(&self.config.log, &record);
        span.answered(head.uri.path(), &record);
    }
}

/// Joins the fleet of a configuration.
fn start_fleet(config: &Config, clock: &Clock, observer: &Arc<Observer>) -> Result<Option<Fleet>, FleetError> {
    let Some(fleet) = &config.fleet else { return Ok(None) };
    let events = Arc::clone(observer);
    let events = EventSink::new(move |event, details| events.event(event, None, details));
    Fleet::start(fleet, clock.clone(), observer.fleet_metrics(), events).map(Some)
}

/// Keeps the owner of a refused credential for the log.
fn unresolved(error: Unidentified, refused: &mut Option<Authenticated>) -> Unresolved {
    match error {
        Unidentified::Refused(error) => Unresolved::Refused(error),
        Unidentified::NotAuthorized(error, owner) => {
            *refused = Some(owner);
            Unresolved::Refused(error)
        }
        Unidentified::UnknownKey(issuer) => Unresolved::UnknownKey(issuer),
    }
}

/// A request that was not admitted, as far as is known without waiting.
fn undecided(error: NotAdmitted) -> Unresolved {
    match error {
        NotAdmitted::Refused(error) => Unresolved::Refused(error),
        NotAdmitted::Undecided(policy, question) => Unresolved::Budget(policy, question),
    }
}
