//! Exports finished spans: OpenTelemetry's batch processor and OTLP exporter (HTTP, protobuf), with the dropped spans counted.
//!
//! The processor has a thread of its own, so no request waits for the collector. The exporter sends a batch again after 429,
//! 502, 503, 504 and transport errors, at most three times, after `Retry-After` if that is within the timeout of an export.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter as _, SpanProcessor as _,
};
use prometheus::IntCounter;

use super::collector::{CollectorClient, LastAnswer};
use crate::config;
use crate::http_client::{Client, ClientSetupError};
use crate::log_events;

/// Longest wait at the end of the process for the last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The queue to the batch processor. When it is dropped, the processor sends what it still holds and ends.
#[derive(Debug)]
pub(super) struct Exporter {
    /// `None` if it could not be started; all spans are dropped then.
    processor: Option<BatchSpanProcessor>,
    queue: Arc<Queue>,
    dropped: IntCounter,
}

/// The reason for which no spans can be exported.
#[derive(Debug, thiserror::Error)]
enum ExportStartError {
    #[error("the runtime of the client can't be started: {0}")]
    Runtime(#[from] io::Error),
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
    #[error("the thread of the batch processor can't be started")]
    Thread,
}

/// Bounds the spans that wait for the processor's thread. The processor has the same bound, but does not tell what it drops.
#[derive(Debug)]
struct Queue {
    waiting: AtomicUsize,
    capacity: usize,
}

/// The exporter of the library, with the spans counted that do not arrive.
#[derive(Debug)]
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    queue: Arc<Queue>,
    last: Arc<LastAnswer>,
    dropped: IntCounter,
}

impl Exporter {
    pub(super) fn start(export: &config::SpanExport, dropped: IntCounter) -> Result<Self, ClientSetupError> {
        let client = Client::new(&export.connection)?;
        let queue = Arc::new(Queue { waiting: AtomicUsize::new(0), capacity: export.batches.queue });
        let processor = collector_client(client, export)
            .and_then(|client| CountingExporter::new(client, export, Arc::clone(&queue), dropped.clone()))
            .and_then(|exporter| processor(exporter, export.batches))
            // The gateway serves without traces; the dropped spans are counted.
            .inspect_err(|error| tracing::error!(%error, message = log_events::TRACES_FAILED));
        Ok(Self { processor: processor.ok(), queue, dropped })
    }

    /// Queues a span, or drops it if the queue is full.
    pub(super) fn export(&self, span: SpanData) {
        match &self.processor {
            Some(processor) if self.queue.enter() => processor.on_end(span),
            _ => self.dropped.inc(),
        }
    }

    /// Waits up to [`FLUSH_TIMEOUT`] for all queued spans to be sent. Later spans are lost.
    pub(super) fn flush(&self) {
        self.end(FLUSH_TIMEOUT);
    }

    fn end(&self, timeout: Duration) {
        if let Some(processor) = &self.processor {
            // The exporter logs and counts what it can't send.
            let _ = processor.shutdown_with_timeout(timeout);
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // Only asks the processor to end: the last span of a previous configuration may be dropped by a worker.
        self.end(Duration::ZERO);
    }
}

fn collector_client(client: Client, export: &config::SpanExport) -> Result<CollectorClient, ExportStartError> {
    let mut headers = HeaderMap::new();
    export.add_headers(&mut headers);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(CollectorClient { client, headers, timeout: export.connection.total_timeout, runtime, last: Arc::default() })
}

/// Starts the batch processor with its thread.
fn processor(exporter: CountingExporter, batches: config::SpanBatches) -> Result<BatchSpanProcessor, ExportStartError> {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(batches.queue)
        .with_max_export_batch_size(batches.batch)
        .with_scheduled_delay(batches.delay)
        .build();
    // The processor panics if it can't start its thread.
    catch_unwind(AssertUnwindSafe(|| BatchSpanProcessor::new(exporter, config))).map_err(|_| ExportStartError::Thread)
}

/// The attributes of this process: `OTEL_RESOURCE_ATTRIBUTES`, and the service name of the first of file, `OTEL_SERVICE_NAME`
/// and attributes that has one.
fn resource(service_name: Option<&str>) -> Resource {
    let builder = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "postern"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match service_name {
        Some(name) => builder.with_service_name(name.to_owned()).build(),
        None => builder.build(),
    }
}

impl Queue {
    /// Takes a place for a span, if there is one.
    fn enter(&self) -> bool {
        let is_free = self.waiting.fetch_add(1, Ordering::Relaxed) < self.capacity;
        if !is_free {
            self.leave(1);
        }
        is_free
    }

    fn leave(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
    }
}

impl CountingExporter {
    fn new(
        client: CollectorClient,
        export: &config::SpanExport,
        queue: Arc<Queue>,
        dropped: IntCounter,
    ) -> Result<Self, ExportStartError> {
        let last = Arc::clone(&client.last);
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            // The client knows the server.
            .with_endpoint(export.target.as_str())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(client.timeout)
            .with_http_client(client)
            .build()?;
        exporter.set_resource(&resource(export.service_name.as_deref()));
        Ok(Self { exporter, queue, last, dropped })
    }
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = batch.len();
        self.queue.leave(sent);
        let result = self.exporter.export(batch).await;
        let (dropped, reason) = match (&result, self.last.rejected()) {
            // A collector that rejects more spans than it was sent must not count them.
            (Ok(()), Ok(rejected)) => (rejected.min(sent as u64), "the collector rejected them".to_owned()),
            (Ok(()), Err(_)) => (0, String::new()),
            (Err(_), Err(reason)) => (sent as u64, reason),
            (Err(error), Ok(_)) => (sent as u64, error.to_string()),
        };
        if dropped > 0 {
            self.dropped.inc_by(dropped);
            tracing::warn!(spans = dropped, reason, message = log_events::SPANS_DROPPED);
        }
        result
    }
}
