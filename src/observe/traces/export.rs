//! Spans on their way to a collector: OTLP over HTTP, in its JSON form, in batches, from a thread of its own.
//!
//! Nobody waits for the collector: what it does not take in time is dropped and counted.

use std::io;
use std::sync::mpsc as blocking;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use jiff::Timestamp;
use prometheus::IntCounter;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use super::{Ended, Value};
use crate::config;
use crate::http_client::{Client, ClientSetupError, buffered};
use crate::log_events;

/// Spans that may wait.
const QUEUE: usize = 4096;
/// Most spans that are sent together.
const BATCH: usize = 512;
/// How long spans gather before they are sent together.
const GATHER: Duration = Duration::from_secs(1);
/// How long the end of the process waits for its last spans to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// `status.code` of a span that failed.
const FAILED: u8 = 2;

/// Sends spans for as long as it is there.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Message>,
    dropped: IntCounter,
}

#[derive(Debug)]
enum Message {
    Span(Box<Ended>),
    /// Everything before this is to be sent at once.
    Flush(blocking::Sender<()>),
}

/// Where they are sent.
struct Collector {
    client: Client,
    settings: config::Traces,
    headers: HeaderMap,
    dropped: IntCounter,
}

impl Exporter {
    pub(super) fn start(settings: &config::Traces, dropped: IntCounter) -> Result<Self, ClientSetupError> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, secret) in &settings.headers {
            // The configuration has made sure that it can be a header value.
            let mut value = HeaderValue::from_str(secret.expose()).unwrap_or(HeaderValue::from_static(""));
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = Client::new(&settings.connection)?;
        let collector = Collector { client, settings: settings.clone(), headers, dropped: dropped.clone() };
        if let Err(error) = collector.run_on_its_own(waiting) {
            // Requests are answered all the same; what is dropped is counted.
            tracing::error!(%error, message = log_events::TRACES_FAILED);
        }
        Ok(Self { queue, dropped })
    }

    /// Takes a span, or drops it if too many wait.
    pub(super) fn take(&self, span: Ended) {
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits a moment for all spans to be sent.
    pub(super) fn flush(&self) {
        let (done, sent) = blocking::channel();
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = sent.recv_timeout(PATIENCE);
        }
    }
}

impl Collector {
    fn run_on_its_own(self, waiting: mpsc::Receiver<Message>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || runtime.block_on(self.run(waiting)))
            .map(drop)
    }

    async fn run(self, mut waiting: mpsc::Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = waiting.recv().await {
            let mut flushed = None;
            let mut next = Some(first);
            let deadline = tokio::time::Instant::now() + GATHER;
            while let Some(message) = next {
                match message {
                    Message::Span(span) => batch.push(span),
                    Message::Flush(done) => {
                        flushed = Some(done);
                        break;
                    }
                }
                if batch.len() == BATCH {
                    break;
                }
                next = tokio::time::timeout_at(deadline, waiting.recv()).await.unwrap_or_default();
            }
            if !batch.is_empty() {
                self.send(&batch).await;
                batch.clear();
            }
            if let Some(done) = flushed {
                // Whoever asked may have gone.
                let _ = done.send(());
            }
        }
    }

    async fn send(&self, batch: &[Box<Ended>]) {
        let body = serde_json::to_vec(&self.message(batch)).unwrap_or_default();
        let mut request = Request::new(buffered(body.into()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.settings.target.clone().into();
        request.headers_mut().clone_from(&self.headers);
        let (rejected, reason) = match self.client.send(request, self.settings.connection.total_timeout).await {
            Ok(response) if response.status().is_success() => (rejected(response.body()), String::new()),
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

    /// `ExportTraceServiceRequest` of the OpenTelemetry protocol 1.x, in its JSON form.
    fn message(&self, batch: &[Box<Ended>]) -> Json {
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        json!({ "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", &self.settings.service_name),
                text("service.version", env!("CARGO_PKG_VERSION")),
            ] },
            "scopeSpans": [{
                "scope": { "name": "postern", "version": env!("CARGO_PKG_VERSION") },
                "spans": batch.iter().map(|span| message(span)).collect::<Vec<_>>(),
            }],
        }] })
    }
}

fn message(span: &Ended) -> Json {
    let attribute = |(key, value): &(&str, Value)| match value {
        Value::Text(text) => json!({ "key": key, "value": { "stringValue": text } }),
        // 64-bit numbers are strings in the JSON form of protocol buffers.
        Value::Number(number) => json!({ "key": key, "value": { "intValue": number.to_string() } }),
    };
    let mut message = json!({
        "traceId": span.place.context.trace.to_string(),
        "spanId": span.place.context.span.to_string(),
        "name": span.told.name,
        "kind": span.place.kind as u8,
        "startTimeUnixNano": nanoseconds(span.told.start),
        "endTimeUnixNano": nanoseconds(span.end),
        "attributes": span.told.attributes.iter().map(attribute).collect::<Vec<_>>(),
        "links": span.told.links.iter().map(|link| {
            json!({ "traceId": link.trace.to_string(), "spanId": link.span.to_string() })
        }).collect::<Vec<_>>(),
    });
    if let Some(parent) = span.place.parent {
        message["parentSpanId"] = parent.to_string().into();
    }
    if span.told.failed {
        message["status"] = json!({ "code": FAILED });
    }
    message
}

fn nanoseconds(moment: Timestamp) -> String {
    moment.as_nanosecond().to_string()
}

/// Spans that a collector has taken the others of a batch without.
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
    fn what_a_collector_rejects_is_read_in_both_forms_of_a_number() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":3}}"#), 3);
        for text in ["", "{}", "no JSON", r#"{"partialSuccess":{}}"#] {
            assert_eq!(rejected(text.as_bytes()), 0, "{text}");
        }
    }
}
