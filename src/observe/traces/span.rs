//! Spans that are recorded, propagated to Refold, or neither.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::{TRACEPARENT, TRACESTATE, TraceParent, recorded, traceparent};
use super::exporter::Exporter;
use crate::clock::Clock;
use crate::observe::access_record::AccessRecord;

/// The ids of a span, and its kind.
#[derive(Clone, Debug)]
pub(super) struct SpanIdentity {
    pub(super) context: SpanContext,
    /// `None` for the first span of a trace.
    pub(super) parent: Option<Parent>,
    pub(super) kind: SpanKind,
}

/// The parent of a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parent {
    pub(super) span: SpanId,
    /// True if another process has it.
    pub(super) is_remote: bool,
}

/// The clock and the exporter of recorded spans.
#[derive(Debug)]
pub(super) struct SpanRecorder {
    pub(super) clock: Clock,
    pub(super) scope: InstrumentationScope,
    pub(super) exporter: Exporter,
}

impl SpanRecorder {
    /// The present, in the type of the SDK. It is after 1970.
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.clock.wall().as_duration().unsigned_abs()
    }
}

/// A piece of work on a request's behalf. Does nothing unless the request is traced.
#[derive(Debug, Default)]
pub struct Span(Recording);

#[derive(Debug, Default)]
enum Recording {
    /// The request is not traced.
    #[default]
    None,
    /// Not recorded here; the caller's trace headers are propagated to Refold.
    Propagated { traceparent: HeaderValue, tracestate: Arc<[HeaderValue]> },
    /// Recorded here, and exported when dropped.
    Active(Box<ActiveSpan>),
}

/// A recorded span that has not ended.
#[derive(Debug)]
struct ActiveSpan {
    recorder: Arc<SpanRecorder>,
    tracestate: Arc<[HeaderValue]>,
    identity: SpanIdentity,
    /// `None` until the span begins; a span that never begins is not exported.
    data: Option<SpanData>,
}

impl Span {
    /// A span that is recorded once it begins.
    pub(super) fn recorded(
        recorder: Arc<SpanRecorder>,
        identity: SpanIdentity,
        tracestate: Arc<[HeaderValue]>,
    ) -> Self {
        Self(Recording::Active(Box::new(ActiveSpan { recorder, tracestate, identity, data: None })))
    }

    /// A span that is not recorded but propagates the trace headers of a request, if they are valid.
    pub(crate) fn propagated(headers: &HeaderMap) -> Self {
        match (TraceParent::of(headers), headers.get(TRACEPARENT)) {
            (Some(_), Some(traceparent)) => {
                let tracestate = headers.get_all(TRACESTATE).iter().cloned().collect();
                Self(Recording::Propagated { traceparent: traceparent.clone(), tracestate })
            }
            _ => Self::default(),
        }
    }

    /// A span for a part of this work. It has an id at once, and is exported only if it begins.
    pub(crate) fn child(&self) -> Self {
        self.child_of_kind(SpanKind::Internal)
    }

    /// A child span for a request to another server.
    pub(crate) fn client_child(&self) -> Self {
        self.child_of_kind(SpanKind::Client)
    }

    fn child_of_kind(&self, kind: SpanKind) -> Self {
        match &self.0 {
            Recording::None => Self::default(),
            Recording::Propagated { traceparent, tracestate } => {
                Self(Recording::Propagated { traceparent: traceparent.clone(), tracestate: Arc::clone(tracestate) })
            }
            Recording::Active(active) => {
                let parent = &active.identity.context;
                let context = recorded(parent.trace_id(), parent.trace_state().clone());
                let parent = Some(Parent { span: parent.span_id(), is_remote: false });
                let identity = SpanIdentity { context, parent, kind };
                Self::recorded(Arc::clone(&active.recorder), identity, Arc::clone(&active.tracestate))
            }
        }
    }

    /// Begins the span now. A span that has already begun only changes its name.
    pub(crate) fn begin(&mut self, name: &'static str) {
        if let Recording::Active(active) = &mut self.0 {
            match &mut active.data {
                Some(data) => data.name = name.into(),
                None => active.data = Some(active.begun(name)),
            }
        }
    }

    /// The ids of the span, if it is recorded here.
    #[must_use]
    pub fn context(&self) -> Option<SpanContext> {
        match &self.0 {
            Recording::Active(active) => Some(active.identity.context.clone()),
            _ => None,
        }
    }

    /// Begins a child span for the wait for another request's fetch, with a link to that fetch if it is recorded.
    #[must_use]
    pub fn waits_for(&self, fetch: Option<SpanContext>) -> Self {
        let mut span = self.child();
        span.begin("wait");
        if let Some(fetch) = fetch {
            span.describe(|span| span.link(fetch));
        }
        span
    }

    /// Ends the span of a request with the attributes of its answer.
    pub fn answered(&mut self, path: &str, record: &AccessRecord<'_>) {
        self.describe(|span| {
            let route = record.resource.route();
            span.name(route.map_or_else(|| record.method.to_owned(), |route| format!("{} {route}", record.method)));
            span.attribute("http.request.method", record.method);
            if let Some(route) = route {
                span.attribute("http.route", route);
            }
            span.attribute("url.path", path.to_owned());
            span.attribute("http.response.status_code", i64::from(record.status.as_u16()));
            span.attribute("postern.cache", record.cache.name());
            span.attribute("postern.request_id", record.request_id.to_string());
            if let Some(caller) = record.caller {
                span.attribute("postern.tenant", Arc::clone(&caller.tenant.config.id));
            }
            match record.error {
                // A 4xx is the caller's failure, not the server's (OpenTelemetry's semantic conventions for HTTP spans).
                Some(error) if record.status.is_server_error() => span.failed(error.label),
                Some(error) => span.attribute("error.type", error.label),
                None => {}
            }
        });
        self.0 = Recording::None;
    }

    /// Adds details to the span. `describe` runs only if the span is recorded and has begun.
    pub(crate) fn describe(&mut self, describe: impl FnOnce(&mut SpanDetails<'_>)) {
        if let Recording::Active(active) = &mut self.0
            && let Some(data) = &mut active.data
        {
            describe(&mut SpanDetails(data));
        }
    }

    /// Sets the trace headers of a request to another server (W3C Trace Context).
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        let (traceparent, tracestate) = match &self.0 {
            Recording::None => return,
            Recording::Propagated { traceparent, tracestate } => (Some(traceparent.clone()), tracestate),
            Recording::Active(active) => (traceparent(&active.identity.context), &active.tracestate),
        };
        if let Some(traceparent) = traceparent {
            headers.insert(TRACEPARENT, traceparent);
            headers.remove(TRACESTATE);
            for value in tracestate.iter() {
                headers.append(TRACESTATE, value.clone());
            }
        }
    }
}

/// Adds details to a recorded span.
pub(crate) struct SpanDetails<'a>(&'a mut SpanData);

impl SpanDetails<'_> {
    /// Changes the name of the span.
    pub(crate) fn name(&mut self, name: impl Into<Cow<'static, str>>) {
        self.0.name = name.into();
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.attributes.push(KeyValue::new(name, value));
    }

    /// Marks the span as failed, with the type of the error.
    pub(crate) fn failed(&mut self, error_type: impl Into<Value>) {
        self.0.status = Status::error("");
        self.attribute("error.type", error_type);
    }

    /// Links the span to a related span that is not its parent.
    pub(crate) fn link(&mut self, other: SpanContext) {
        self.0.links.links.push(Link::with_context(other));
    }
}

impl ActiveSpan {
    /// The data of the span, which begins now.
    fn begun(&self, name: &'static str) -> SpanData {
        let now = self.recorder.now();
        SpanData {
            span_context: self.identity.context.clone(),
            parent_span_id: self.identity.parent.map_or(SpanId::INVALID, |parent| parent.span),
            parent_span_is_remote: self.identity.parent.is_some_and(|parent| parent.is_remote),
            span_kind: self.identity.kind.clone(),
            name: name.into(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.recorder.scope.clone(),
        }
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        if let Some(mut data) = self.data.take() {
            // The span of a request gets its attributes with the answer. If it has none, the caller disconnected before the
            // answer.
            if self.identity.kind == SpanKind::Server && data.attributes.is_empty() {
                data.attributes.push(KeyValue::new("error.type", "caller_left"));
            }
            data.end_time = self.recorder.now();
            self.recorder.exporter.export(data);
        }
    }
}
