//! The HTTP client with which OpenTelemetry's exporter reaches the collector: the client of all other servers, so that egress
//! proxy, certificate authorities and limits are the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Request, Response};
use opentelemetry_http::{Bytes, HttpClient, HttpError, ResponseBodyTooLarge};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::runtime::Runtime;

use crate::http_client::{Client, TransportError, TransportErrorKind, buffered};

/// The client of the collector.
#[derive(Debug)]
pub(super) struct CollectorClient {
    pub(super) client: Client,
    /// Added to those of the exporter, and instead of those of the same name.
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) runtime: Runtime,
    pub(super) last: Arc<LastAnswer>,
}

/// The last answer of the collector, of which the exporter tells only whether it was a success.
#[derive(Debug)]
pub(super) struct LastAnswer(Mutex<Result<u64, String>>);

impl Default for LastAnswer {
    fn default() -> Self {
        Self(Mutex::new(Ok(0)))
    }
}

impl LastAnswer {
    /// The number of spans that the collector rejected although it accepted the request, or why there is no success.
    pub(super) fn rejected(&self) -> Result<u64, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, sent: &Result<Response<Bytes>, TransportError>) {
        let noted = match sent {
            Ok(response) if response.status().is_success() => Ok(rejected(response.body())),
            Ok(response) => Err(format!("the collector answered with status {}", response.status().as_u16())),
            Err(error) => Err(error.to_string()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = noted;
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = request.map(buffered);
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        // The thread of the batch processor has nothing else to do, and the processor brings no runtime for it.
        let sent = self.runtime.block_on(self.client.send(request, self.timeout));
        self.last.note(&sent);
        sent.map_err(|error| match error.kind() {
            // The exporter does not send the spans again.
            TransportErrorKind::TooLarge { .. } => ResponseBodyTooLarge::default().into(),
            _ => error.into(),
        })
    }
}

/// The number of spans in a batch that the collector rejected although it accepted the request (partial success).
fn rejected(answer: &[u8]) -> u64 {
    let success = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    // A collector that rejects less than nothing must not turn a counter back.
    success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn rejected_spans_are_never_fewer_than_none() {
        for (rejected_spans, expected) in [(3, 3), (0, 0), (-3, 0), (i64::MAX, i64::MAX.unsigned_abs()), (i64::MIN, 0)]
        {
            let partial_success =
                Some(ExportTracePartialSuccess { rejected_spans, error_message: "too old".to_owned() });
            let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
            assert_eq!(rejected(&answer), expected, "{rejected_spans}");
        }
        for answer in ["", "{}", "no protobuf"] {
            assert_eq!(rejected(answer.as_bytes()), 0, "{answer}");
        }
    }
}
