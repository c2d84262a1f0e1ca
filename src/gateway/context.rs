//! The context of a request: the connection that it arrived on, and the results of the steps so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Body as _;
use tokio::sync::watch;

use crate::cache::{CacheKey, CacheOutcome};
use crate::caller::{Authenticated, Caller, ListenerIdentity};
use crate::clock::Moment;
use crate::executions::{PathId, QueryMemo};
use crate::http_client::Client;
use crate::observe::{AccessError, AccessRecord, CallerIdentity, RequestOrigin, Span, Tracer};
use crate::request::RequestId;
use crate::request::cors::CorsPolicy;
use crate::request::method::method_name;
use crate::request::peer::Peer;
use crate::request::route::Resource;
use crate::respond::{Body, ResponseContext};
use crate::upstream::UpstreamCost;

/// The connection that a request arrived on.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    /// The upstream pool of the worker that serves the connection.
    pub client: Client,
    /// The worker's memo of parsed queries.
    pub query_memo: Arc<QueryMemo>,
    /// The identity that the listener and the client certificate give to requests.
    pub identity: ListenerIdentity,
    /// Becomes true when the drain timeout ends: unfinished requests are then answered 503.
    pub abandon: watch::Receiver<bool>,
    /// Records that a known caller sends a request over the connection.
    pub known_caller: KnownCaller,
    /// Becomes true when the peer ends its output while it waits for a response. Most such peers have disconnected, but one may
    /// still read. `None` if the protocol has no such state.
    pub half_close: Option<watch::Receiver<bool>>,
}

impl ConnectionContext {
    /// The same connection, which tells its requests of a peer that ends its output.
    #[must_use]
    pub fn with_half_close(self, half_close: watch::Receiver<bool>) -> Self {
        Self { half_close: Some(half_close), ..self }
    }
}

/// Records whether a known caller has ever sent a request over a connection. A credential that only Refold can verify makes a
/// caller known once Refold has accepted it. Until then the connection is a stranger's, which is the first to close.
#[derive(Clone, Debug, Default)]
pub struct KnownCaller(Arc<AtomicBool>);

impl KnownCaller {
    /// Records a request of a known caller. Part of the hit path: one load, but for the first time.
    pub(super) fn record(&self) {
        if !self.is_known() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Returns true if a known caller has sent a request.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The status of a response, and the length of its body if that is known with the head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) status: StatusCode,
    pub(super) bytes: Option<u64>,
}

impl From<&Response<Body>> for Sent {
    fn from(response: &Response<Body>) -> Self {
        Self { status: response.status(), bytes: response.body().size_hint().exact() }
    }
}

/// The results of the steps for one request so far.
///
/// Each step fills in its own fields. When the request ends, response headers, log line, metrics and span are made from
/// them.
pub(super) struct RequestContext {
    /// The fields that the response is made from.
    pub(super) response: ResponseContext,
    pub(super) received: Moment,
    /// The other end of the connection.
    pub(super) peer: Peer,
    /// The execution that the request is to change.
    pub(super) execution: Option<PathId>,
    pub(super) resource: Resource,
    pub(super) caller: Option<Caller>,
    /// The owner of a credential that is known but was refused.
    pub(super) refused: Option<Authenticated>,
    pub(super) key: Option<CacheKey>,
    /// The text of the canonical query, if the query memo has it, or if a budget refused the request.
    pub(super) canonical: Option<Arc<str>>,
    /// The age of the entry that was served.
    pub(super) age: Option<Duration>,
    pub(super) span: Span,
    /// The attempts to send this request to Refold, and their total duration.
    pub(super) cost: Option<Arc<UpstreamCost>>,
}

impl RequestContext {
    pub(super) fn new(head: &Parts, received: Moment, cors: Option<&CorsPolicy>, tracer: Option<&Tracer>) -> Self {
        Self {
            response: ResponseContext {
                request_id: RequestId::new(),
                head: head.method == Method::HEAD,
                budgets: None,
                cache: CacheOutcome::NotAsked,
                coding: None,
                is_conditional: false,
                cors: cors.map(|cors| cors.allowed(&head.headers)),
            },
            received,
            peer: Peer::Unknown,
            execution: None,
            resource: Resource::Other,
            caller: None,
            refused: None,
            key: None,
            canonical: None,
            age: None,
            span: tracer.map_or_else(Span::default, |tracer| tracer.serve(&head.headers)),
            cost: None,
        }
    }

    /// Adds the state of the budget at Refold to those of the response, if the request has spent from it.
    pub(super) fn note_upstream_budget(&mut self) {
        let has_spent = self.cost.as_ref().is_some_and(|cost| cost.duration().is_some());
        if let (true, Some(caller), Some(budgets)) = (has_spent, &self.caller, &mut self.response.budgets) {
            budgets.upstream = Some(caller.tenant().org_keys().budget(caller.org_key()).state());
        }
    }

    /// The record of the finished request, without its trace.
    pub(super) fn record<'a>(
        &'a self,
        head: &'a Parts,
        Sent { status, bytes }: Sent,
        error: Option<AccessError<'a>>,
        now: Moment,
    ) -> AccessRecord<'a> {
        AccessRecord {
            request_id: self.response.request_id,
            method: method_name(&head.method),
            origin: RequestOrigin { peer: self.peer, head: Some(head), trusted_proxies: &[] },
            execution: self.execution.as_ref(),
            resource: self.resource,
            caller: match (&self.caller, &self.refused) {
                (Some(caller), _) => Some(CallerIdentity::from(caller)),
                (None, Some(refused)) => Some(CallerIdentity::from(refused)),
                (None, None) => None,
            },
            key: self.key.as_ref(),
            canonical: self.canonical.as_deref(),
            status,
            bytes,
            error,
            cache: self.response.cache,
            age: self.age,
            answered_at: now,
            duration: now.since(self.received),
            upstream_duration: self.cost.as_ref().and_then(|cost| cost.duration()),
            trace_id: None,
        }
    }
}
