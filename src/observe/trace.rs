//! Spans: what was done on a request's behalf, when, and below what.
//!
//! A request that is not sampled has a [`Span`] that is nothing: all that it costs is the look at one header and one random
//! number. A span tells itself when it goes, so one whose future is dropped is told all the same.
//!
//! The spans are sent by a small exporter of our own (`export`). The crates of OpenTelemetry were tried: 19 more of them in
//! the tree, an exporter that takes settings from the environment past our configuration, prints the headers it was given
//! and does not say what it dropped, and spans whose ids can't be known before they begin, which a fetch's has to be, so
//! that those who wait for it can point at it.

mod context;
mod export;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use prometheus::IntCounter;

pub use self::context::{Context, TraceId};
use self::context::{Incoming, SpanId, TRACEPARENT, TRACESTATE};
use self::export::Exporter;
use super::Record;
use crate::client::ClientSetupError;
use crate::clock::Clock;
use crate::config;

/// Decides which requests are traced, and takes their spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    sample: f64,
    exporter: Exporter,
}

impl Tracer {
    pub(super) fn start(
        settings: &config::Traces,
        clock: Clock,
        dropped: IntCounter,
    ) -> Result<Option<Self>, ClientSetupError> {
        let Some(endpoint) = settings.span_endpoint() else { return Ok(None) };
        let exporter = Exporter::start(settings, endpoint, dropped)?;
        Ok(Some(Self(Arc::new(Inner { clock, sample: settings.sample, exporter }))))
    }

    /// The span of a request, if it is to be traced: as its caller has decided, or by chance. Part of the hit path.
    #[must_use]
    pub fn serve(&self, headers: &HeaderMap) -> Span {
        let incoming = if headers.contains_key(TRACEPARENT) { Incoming::of(headers) } else { None };
        let sampled = incoming.map_or_else(|| fastrand::f64() < self.0.sample, |incoming| incoming.sampled);
        if !sampled {
            return Span::default();
        }
        let state = incoming.map_or_else(Vec::new, |_| headers.get_all(TRACESTATE).iter().cloned().collect());
        let trace = incoming.map_or_else(TraceId::new, |incoming| incoming.context.trace);
        let parent = incoming.map(|incoming| incoming.context.span);
        let mut span = self.span(trace, parent, SpanKind::Server, state.into());
        span.begin("request");
        span
    }

    /// Waits a moment for what was told so far to be sent.
    pub fn flush(&self) {
        self.0.exporter.flush();
    }

    fn span(&self, trace: TraceId, parent: Option<SpanId>, kind: SpanKind, state: Arc<[HeaderValue]>) -> Span {
        let place = Place { context: Context { trace, span: SpanId::new() }, parent, kind };
        Span(Recorded::Here(Box::new(Open { tracer: self.clone(), state, place, told: None })))
    }
}

/// Where a span is among others.
#[derive(Clone, Copy, Debug)]
struct Place {
    context: Context,
    parent: Option<SpanId>,
    kind: SpanKind,
}

/// On which side of what kind of call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SpanKind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// Something that is being done, or nothing if nobody wants to know.
#[derive(Debug, Default)]
pub struct Span(Recorded);

#[derive(Debug, Default)]
enum Recorded {
    #[default]
    Nowhere,
    /// By the caller perhaps; what it sent is for the upstream.
    Elsewhere {
        parent: HeaderValue,
        state: Arc<[HeaderValue]>,
    },
    Here(Box<Open>),
}

/// A span that has not ended.
#[derive(Debug)]
struct Open {
    tracer: Tracer,
    /// `tracestate`, which is passed on.
    state: Arc<[HeaderValue]>,
    place: Place,
    /// `None` until it begins.
    told: Option<Told>,
}

/// What is told of a span.
#[derive(Debug)]
struct Told {
    name: String,
    start: Timestamp,
    attributes: Vec<(&'static str, Value)>,
    links: Vec<Context>,
    failed: bool,
}

/// A span that has ended.
#[derive(Debug)]
struct Ended {
    place: Place,
    told: Told,
    end: Timestamp,
}

impl Span {
    /// Nothing here, but what a request says of its trace is for the upstream all the same.
    pub(super) fn passed_on(headers: &HeaderMap) -> Self {
        match (Incoming::of(headers), headers.get(TRACEPARENT)) {
            (Some(_), Some(parent)) => {
                let state = headers.get_all(TRACESTATE).iter().cloned().collect();
                Self(Recorded::Elsewhere { parent: parent.clone(), state })
            }
            _ => Self::default(),
        }
    }

    /// What is done below this one; it has an id, and is told of only if it begins.
    pub(super) fn below(&self) -> Self {
        self.child(SpanKind::Internal)
    }

    /// A call of another server, below this one.
    pub(super) fn call(&self) -> Self {
        self.child(SpanKind::Client)
    }

    fn child(&self, kind: SpanKind) -> Self {
        match &self.0 {
            Recorded::Nowhere => Self::default(),
            Recorded::Elsewhere { parent, state } => {
                Self(Recorded::Elsewhere { parent: parent.clone(), state: Arc::clone(state) })
            }
            Recorded::Here(open) => {
                let Context { trace, span } = open.place.context;
                open.tracer.span(trace, Some(span), kind, Arc::clone(&open.state))
            }
        }
    }

    /// It begins now. If it has begun already it goes on as something else.
    pub(super) fn begin(&mut self, name: &'static str) {
        if let Recorded::Here(open) = &mut self.0 {
            if let Some(told) = &mut open.told {
                name.clone_into(&mut told.name);
                return;
            }
            let start = open.tracer.0.clock.wall();
            open.told =
                Some(Told { name: name.to_owned(), start, attributes: Vec::new(), links: Vec::new(), failed: false });
        }
    }

    /// How others point at it, if it is recorded here.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        match &self.0 {
            Recorded::Here(open) => Some(open.place.context),
            _ => None,
        }
    }

    /// A request waits for the fetch of another one.
    #[must_use]
    pub fn waits_for(&self, fetch: Option<Context>) -> Self {
        let mut span = self.below();
        span.begin("wait");
        if let Some(fetch) = fetch {
            span.describe(|span| span.link(fetch));
        }
        span
    }

    /// A request was answered: its span is told.
    pub fn answered(&mut self, path: &str, record: &Record<'_>) {
        self.describe(|span| {
            let route = record.resource.route();
            span.name(route.map_or_else(|| record.method.to_string(), |route| format!("{} {route}", record.method)));
            span.attribute("http.request.method", record.method.as_str());
            if let Some(route) = route {
                span.attribute("http.route", route);
            }
            span.attribute("url.path", path);
            span.attribute("http.response.status_code", record.status.as_u16());
            span.attribute("postern.cache", record.cache.name());
            span.attribute("postern.request_id", &*record.request_id.to_string());
            if let Some(who) = record.who {
                span.attribute("postern.tenant", &*who.tenant.config.id);
            }
            match record.error_label {
                // What is wrong with a request is its caller's failure, not ours (semantic conventions for HTTP spans).
                Some(code) if record.status.is_server_error() => span.failed(code),
                Some(code) => span.attribute("error.type", code),
                None => {}
            }
        });
        self.0 = Recorded::Nowhere;
    }

    /// Says more of it; `describe` runs only if somebody wants to know.
    pub(super) fn describe(&mut self, describe: impl FnOnce(&mut Description<'_>)) {
        if let Recorded::Here(open) = &mut self.0
            && let Some(told) = &mut open.told
        {
            describe(&mut Description(told));
        }
    }

    /// Puts in what says to another server that it is called on behalf of this.
    pub(super) fn name_in(&self, headers: &mut HeaderMap) {
        let (parent, state) = match &self.0 {
            Recorded::Nowhere => return,
            Recorded::Elsewhere { parent, state } => (Some(parent.clone()), state),
            Recorded::Here(open) => (open.place.context.traceparent(), &open.state),
        };
        if let Some(parent) = parent {
            headers.insert(TRACEPARENT, parent);
            headers.remove(TRACESTATE);
            for value in state.iter() {
                headers.append(TRACESTATE, value.clone());
            }
        }
    }
}

/// What can be said of a span.
pub(super) struct Description<'a>(&'a mut Told);

impl Description<'_> {
    pub(super) fn name(&mut self, name: String) {
        self.0.name = name;
    }

    pub(super) fn attribute(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.attributes.push((name, value.into()));
    }

    /// It did not do what it was to do.
    pub(super) fn failed(&mut self, why: &str) {
        self.0.failed = true;
        self.attribute("error.type", why);
    }

    /// It has to do with another span, which is not its parent.
    pub(super) fn link(&mut self, other: Context) {
        self.0.links.push(other);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut told) = self.told.take() {
            // A request's span knows its answer, unless nobody was left to answer.
            if self.place.kind == SpanKind::Server && told.attributes.is_empty() {
                told.attributes.push(("error.type", "caller_left".into()));
            }
            let end = self.tracer.0.clock.wall();
            self.tracer.0.exporter.take(Ended { place: self.place, told, end });
        }
    }
}
