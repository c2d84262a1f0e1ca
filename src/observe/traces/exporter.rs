//! Sends finished spans to a collector: OTLP over HTTP, encoded as JSON, in batches, from a thread of its own.
//!
//! No request waits for the collector: spans that it does not accept in time are dropped and counted.

use std::io;
use std::sync::mpsc as blocking;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use jiff::Timestamp;
use prometheus::IntCounter;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use super::span_data::{AttributeValue, FinishedSpan};
use crate::config;
use crate::http_client::{Client, ClientSetupError, buffered};
use crate::log_events;

/// Most spans that wait to be sent.
const QUEUE: usize = 4096;
/// Most spans in one request to the collector.
const MAX_BATCH: usize = 512;
/// Longest time for which a batch is collected before it is sent.
const BATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait at the end of the process for the last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// `status.code` of a failed span: `STATUS_CODE_ERROR`.
const STATUS_ERROR: u8 = 2;

/// The queue to the exporter's thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Message>,
    dropped: IntCounter,
}

#[derive(Debug)]
enum Message {
    Span(Box<FinishedSpan>),
    /// Sends everything before this message at once, then answers on the channel.
    Flush(blocking::Sender<()>),
}

/// The client of the collector; runs on the exporter's thread.
struct CollectorClient {
    client: Client,
    endpoint: config::SpanEndpoint,
    settings: config::Traces,
    headers: HeaderMap,
    dropped: IntCounter,
}

impl Exporter {
    pub(super) fn start(
        settings: &config::Traces,
        endpoint: config::SpanEndpoint,
        dropped: IntCounter,
    ) -> Result<Self, ClientSetupError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, secret) in &settings.headers {
            let mut value = HeaderValue::from_str(secret.expose()).expect("the configuration checks its secrets");
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = Client::new(&endpoint.connection)?;
        let collector =
            CollectorClient { client, endpoint, settings: settings.clone(), headers, dropped: dropped.clone() };
        if let Err(error) = collector.spawn(waiting) {
            // The gateway serves without traces; the dropped spans are counted.
            tracing::error!(%error, message = log_events::TRACES_FAILED);
        }
        Ok(Self { queue, dropped })
    }

    /// Queues a span, or drops it if the queue is full.
    pub(super) fn export(&self, span: FinishedSpan) {
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits up to [`FLUSH_TIMEOUT`] for all queued spans to be sent.
    pub(super) fn flush(&self) {
        let (done, sent) = blocking::channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = sent.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl CollectorClient {
    fn spawn(self, waiting: mpsc::Receiver<Message>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || runtime.block_on(self.run(waiting)))
            .map(drop)
    }

    async fn run(self, mut waiting: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while let Some(first) = waiting.recv().await {
            let mut flushed = None;
            let mut next = Some(first);
            let deadline = tokio::time::Instant::now() + BATCH_INTERVAL;
            while let Some(message) = next {
                match message {
                    Message::Span(span) => batch.push(span),
                    Message::Flush(done) => {
                        flushed = Some(done);
                        break;
                    }
                }
                if batch.len() == MAX_BATCH {
                    break;
                }
                next = tokio::time::timeout_at(deadline, waiting.recv()).await.unwrap_or_default();
            }
            if !batch.is_empty() {
                self.send(&batch).await;
                batch.clear();
            }
            if let Some(done) = flushed {
                // The receiver no longer listens after its timeout.
                let _ = done.send(());
            }
        }
    }

    async fn send(&self, batch: &[Box<FinishedSpan>]) {
        let body = serde_json::to_vec(&self.export_request(batch)).expect("JSON values always serialise");
        let mut request = Request::new(buffered(body.into()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.endpoint.target.clone().into();
        request.headers_mut().clone_from(&self.headers);
        let (rejected, reason) = match self.client.send(request, self.endpoint.connection.total_timeout).await {
            // A collector that rejects more spans than it was sent must not count them.
            Ok(response) if response.status().is_success() => {
                (rejected(response.body()).min(batch.len() as u64), String::new())
            }
            Ok(response) => {
                (batch.len() as u64, format!("the collector answered with status {}", response.status().as_u16()))
            }
            Err(error) => (batch.len() as u64, error.to_string()),
        };
        if rejected > 0 {
            self.dropped.inc_by(rejected);
            tracing::warn!(spans = rejected, reason, message = log_events::SPANS_DROPPED);
        }
    }

    /// `ExportTraceServiceRequest` of the OpenTelemetry protocol 1.x, in its JSON encoding.
    fn export_request(&self, batch: &[Box<FinishedSpan>]) -> Json {
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        json!({ "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", &self.settings.service_name),
                text("service.version", env!("CARGO_PKG_VERSION")),
            ] },
            "scopeSpans": [{
                "scope": { "name": "postern", "version": env!("CARGO_PKG_VERSION") },
                "spans": batch.iter().map(|span| span_json(span)).collect::<Vec<_>>(),
            }],
        }] })
    }
}

fn span_json(span: &FinishedSpan) -> Json {
    let attribute = |(key, value): &(&str, AttributeValue)| match value {
        AttributeValue::Text(text) => json!({ "key": key, "value": { "stringValue": text } }),
        // 64-bit numbers are strings in the JSON encoding of protocol buffers.
        AttributeValue::Number(number) => json!({ "key": key, "value": { "intValue": number.to_string() } }),
    };
    let mut json = json!({
        "traceId": span.identity.context.trace.to_string(),
        "spanId": span.identity.context.span.to_string(),
        "name": span.data.name,
        "kind": span.identity.kind as u8,
        "startTimeUnixNano": nanoseconds(span.data.start),
        "endTimeUnixNano": nanoseconds(span.end),
        "attributes": span.data.attributes.iter().map(attribute).collect::<Vec<_>>(),
        "links": span.data.links.iter().map(|link| {
            json!({ "traceId": link.trace.to_string(), "spanId": link.span.to_string() })
        }).collect::<Vec<_>>(),
    });
    if let Some(parent) = span.identity.parent {
        json["parentSpanId"] = parent.to_string().into();
    }
    if span.data.failed {
        json["status"] = json!({ "code": STATUS_ERROR });
    }
    json
}

fn nanoseconds(moment: Timestamp) -> String {
    moment.as_nanosecond().to_string()
}

/// The number of spans in a batch that the collector rejected although it accepted the request (partial success).
fn rejected(answer: &[u8]) -> u64 {
    let answer: Json = serde_json::from_slice(answer).unwrap_or_default();
    match &answer["partialSuccess"]["rejectedSpans"] {
        Json::String(number) => number.parse().unwrap_or_default(),
        number => number.as_u64().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_spans_are_read_as_number_or_string() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":3}}"#), 3);
        for text in ["", "{}", "no JSON", r#"{"partialSuccess":{}}"#] {
            assert_eq!(rejected(text.as_bytes()), 0, "{text}");
        }
    }
}
