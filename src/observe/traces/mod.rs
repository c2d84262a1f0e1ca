//! Traces: the spans of sampled requests, and their propagation to Refold.
//!
//! A request that is not sampled has a [`Span`] that does nothing; its cost is one header look-up and one random number. A
//! span is exported when it is dropped, so it is exported too if its future is dropped before it ends.
//!
//! OpenTelemetry's SDK batches and exports the spans (`exporter`), over Postern's own HTTP client (`collector`). The spans
//! themselves are made here and not by its `Tracer`: a fetch has an id before it begins, so that the requests that wait for it
//! can link to it, and a request that is not sampled costs nothing.

mod collector;
mod context;
mod exporter;
mod span;

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::SpanKind;
pub use opentelemetry::trace::{SpanContext, TraceId};
use prometheus::IntCounter;

pub(super) use self::context::{TRACEPARENT, trace_of_caller};
use self::context::{TRACESTATE, TraceParent, new_trace, recorded, trace_state};
use self::exporter::Exporter;
pub use self::span::Span;
use self::span::{Parent, SpanIdentity, SpanRecorder};
use crate::clock::Clock;
use crate::config;
use crate::http_client::ClientSetupError;

/// Decides which requests are traced. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    /// Share of the requests without `traceparent` that are traced, from 0 to 1.
    sample: f64,
    recorder: Arc<SpanRecorder>,
}

impl Tracer {
    pub(super) fn start(
        settings: &config::Traces,
        clock: Clock,
        dropped: IntCounter,
    ) -> Result<Option<Self>, ClientSetupError> {
        let Some(export) = settings.export() else { return Ok(None) };
        let exporter = Exporter::start(export, dropped)?;
        let scope = InstrumentationScope::builder("postern").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Some(Self { sample: settings.sample, recorder: Arc::new(SpanRecorder { clock, scope, exporter }) }))
    }

    /// The span of a request. It is recorded if the caller's `traceparent` is sampled, or by chance if there is none. Part
    /// of the hit path.
    #[must_use]
    pub fn serve(&self, headers: &HeaderMap) -> Span {
        let incoming = if headers.contains_key(TRACEPARENT) { TraceParent::of(headers) } else { None };
        let sampled = incoming.map_or_else(|| fastrand::f64() < self.sample, |incoming| incoming.sampled);
        if !sampled {
            return Span::default();
        }
        let tracestate: Arc<[_]> = match incoming {
            Some(_) => headers.get_all(TRACESTATE).iter().cloned().collect(),
            None => Arc::default(),
        };
        let trace = incoming.map_or_else(new_trace, |incoming| incoming.trace);
        let parent = incoming.map(|incoming| Parent { span: incoming.span, is_remote: true });
        let context = recorded(trace, trace_state(&tracestate));
        let identity = SpanIdentity { context, parent, kind: SpanKind::Server };
        let mut span = Span::recorded(Arc::clone(&self.recorder), identity, tracestate);
        span.begin("request");
        span
    }

    /// Waits up to two seconds for all finished spans to be sent. Later spans are lost.
    pub fn flush(&self) {
        self.recorder.exporter.flush();
    }
}
