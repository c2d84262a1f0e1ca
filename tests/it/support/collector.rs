//! An OpenTelemetry collector: it receives spans by OTLP over HTTP, in protobuf.

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{self as otlp, SpanFlags};
use postern::digest::Hex;
use prost::Message;
use tokio::sync::watch;

use super::Configuration;
use super::until::until;
use super::upstream::http_upstream;

/// A collector that accepts every span, unless a test tells it otherwise.
#[derive(Clone)]
pub(crate) struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    open: watch::Sender<bool>,
}

#[derive(Default)]
struct Received {
    headers: Vec<HeaderMap>,
    /// The attributes of the resource of the last request.
    resource: Vec<KeyValue>,
    spans: Vec<Span>,
    next: VecDeque<CollectorAnswer>,
}

/// An answer of the collector.
pub(crate) enum CollectorAnswer {
    /// A status without success, with `Retry-After`.
    RetryAfter(StatusCode, &'static str),
    /// Success for all but so many spans.
    Rejects(i64),
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let (received, open): (Arc<Mutex<Received>>, _) = (Arc::default(), watch::Sender::new(true));
        let (receiving, gate) = (Arc::clone(&received), open.clone());
        let address = http_upstream(move |request| {
            let (receiving, mut gate) = (Arc::clone(&receiving), gate.subscribe());
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let (head, body) = request.into_parts();
                let body = decompressed(&head.headers, body.collect().await.expect("a body").to_bytes());
                let message = ExportTraceServiceRequest::decode(body).expect("protobuf");
                receiving.lock().expect("no panic").headers.push(head.headers);
                gate.wait_for(|is_open| *is_open).await.expect("the collector lives");
                receiving.lock().expect("no panic").answer(message)
            }
        })
        .await;
        Self { address, received, open }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a share of the traces to this collector.
    pub(crate) fn traces(&self, config: Configuration, sample: u32) -> Configuration {
        config.set("traces.endpoint", format!("http://{}", self.address)).set("traces.sample", sample)
    }

    /// Answers the next request in another way.
    pub(crate) fn answer_next(&self, answer: CollectorAnswer) {
        self.received().next.push_back(answer);
    }

    /// Answers no request until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Waits until so many spans have been accepted, and returns them.
    pub(crate) async fn spans(&self, count: usize) -> Vec<Span> {
        until(|| self.accepted().len() >= count).await;
        let spans = self.accepted();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    /// The spans that have been accepted so far.
    pub(crate) fn accepted(&self) -> Vec<Span> {
        self.received().spans.clone()
    }

    /// The headers of all requests.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.received().headers.clone()
    }

    /// An attribute of the resource that the spans came from.
    pub(crate) fn resource(&self, name: &str) -> Option<String> {
        attribute(&self.received().resource, name)
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("no panic")
    }
}

impl Received {
    fn answer(&mut self, message: ExportTraceServiceRequest) -> Response<Full<Bytes>> {
        let mut answer = ExportTraceServiceResponse::default();
        match self.next.pop_front() {
            Some(CollectorAnswer::RetryAfter(status, delay)) => {
                let response = Response::builder().status(status).header("retry-after", delay);
                return response.body(Full::default()).expect("a response");
            }
            Some(CollectorAnswer::Rejects(rejected_spans)) => {
                let error_message = "too old".to_owned();
                answer.partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            }
            None => {}
        }
        for of_resource in message.resource_spans {
            self.resource = of_resource.resource.expect("a resource").attributes;
            self.spans.extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans).map(Span));
        }
        Response::new(Full::new(answer.encode_to_vec().into()))
    }
}

/// Undoes the content coding of a request.
fn decompressed(headers: &HeaderMap, body: Bytes) -> Bytes {
    if !headers.contains_key("content-encoding") {
        return body;
    }
    let mut text = Vec::new();
    GzDecoder::new(&*body).read_to_end(&mut text).expect("gzip");
    text.into()
}

/// A span as it arrived at the collector.
#[derive(Clone, Debug)]
pub(crate) struct Span(otlp::Span);

impl Span {
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn id(&self) -> String {
        Hex(&self.0.span_id).to_string()
    }

    /// The id of the parent; empty if there is none.
    pub(crate) fn parent(&self) -> String {
        Hex(&self.0.parent_span_id).to_string()
    }

    /// True if another process has the parent.
    pub(crate) fn has_remote_parent(&self) -> bool {
        let is_remote = SpanFlags::ContextIsRemoteMask as u32 | SpanFlags::ContextHasIsRemoteMask as u32;
        self.0.flags & is_remote == is_remote
    }

    pub(crate) fn trace(&self) -> String {
        Hex(&self.0.trace_id).to_string()
    }

    pub(crate) fn trace_state(&self) -> &str {
        &self.0.trace_state
    }

    pub(crate) fn kind(&self) -> otlp::span::SpanKind {
        self.0.kind()
    }

    /// True if the status is an error.
    pub(crate) fn failed(&self) -> bool {
        self.0.status.as_ref().is_some_and(|status| status.code() == otlp::status::StatusCode::Error)
    }

    /// The trace and the span that the only link leads to.
    pub(crate) fn link(&self) -> (String, String) {
        let [link] = &self.0.links[..] else { panic!("one link: {self:#?}") };
        (Hex(&link.trace_id).to_string(), Hex(&link.span_id).to_string())
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.0.attributes, name)
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    match attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text.clone()),
        AnyValue { value: Some(Value::IntValue(number)) } => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

/// The only span for which a condition holds.
pub(crate) fn only<'a>(spans: &'a [Span], what: &str, is: impl Fn(&Span) -> bool) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| is(span)).collect();
    assert_eq!(found.len(), 1, "{what}: {found:#?} of {spans:#?}");
    found[0]
}

/// The only span with a name.
pub(crate) fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    only(spans, name, |span| span.name() == name)
}
