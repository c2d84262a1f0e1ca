//! Traces: the spans of sampled requests, and their propagation to Refold.
//!
//! A request that is not sampled has a [`Span`] that does nothing; its cost is one header look-up and one random number. A
//! span is exported when it is dropped, so it is exported too if its future is dropped before it ends.
//!
//! `exporter` is a small OTLP exporter of our own. The OpenTelemetry crates were tried and not used, for these reasons: 19
//! more crates in the tree; an exporter that reads settings from the environment besides our configuration, logs the
//! headers that it is given, and does not count the spans that it drops; and spans that have no id before they begin. A
//! fetch needs its id earlier, so that the requests that wait for it can link to it.

mod context;
mod exporter;
mod span;
mod span_data;

use std::sync::Arc;

use http::HeaderMap;
use prometheus::IntCounter;

pub(super) use self::context::TRACEPARENT;
pub use self::context::{SpanContext, TraceId};
use self::context::{TRACESTATE, TraceParent};
use self::exporter::Exporter;
pub use self::span::Span;
use self::span::SpanRecorder;
use self::span_data::{SpanIdentity, SpanKind};
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
        let Some(endpoint) = settings.span_endpoint() else { return Ok(None) };
        let exporter = Exporter::start(settings, endpoint, dropped)?;
        Ok(Some(Self { sample: settings.sample, recorder: Arc::new(SpanRecorder { clock, exporter }) }))
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
        let tracestate = incoming.map_or_else(Vec::new, |_| headers.get_all(TRACESTATE).iter().cloned().collect());
        let identity = match incoming {
            Some(TraceParent { caller, .. }) => SpanIdentity::child_of(caller, SpanKind::Server),
            None => SpanIdentity::root(SpanKind::Server),
        };
        let mut span = Span::recorded(Arc::clone(&self.recorder), identity, tracestate.into());
        span.begin("request");
        span
    }

    /// Waits up to two seconds for all finished spans to be sent.
    pub fn flush(&self) {
        self.recorder.exporter.flush();
    }
}
