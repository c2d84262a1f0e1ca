//! W3C Trace Context: the ids of a trace and its spans, and the header `traceparent` that carries them between servers.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use crate::digest::decode_hex;

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// Returns the trace that a request's `traceparent` names.
pub(crate) fn trace_of_caller(headers: &HeaderMap) -> Option<TraceId> {
    TraceParent::of(headers).map(|parent| parent.trace)
}

/// The content of a request's `traceparent`. OpenTelemetry's propagator reads it too, but allocates, also for requests that are
/// not sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace: TraceId,
    /// The caller's span.
    pub(super) span: SpanId,
    /// True if the caller records the trace.
    pub(super) sampled: bool,
}

/// The context of a span that is recorded here. An id of zeros is invalid.
pub(super) fn recorded(trace: TraceId, state: TraceState) -> SpanContext {
    let span = SpanId::from(fastrand::u64(1..));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, state)
}

/// The id of a new trace.
pub(super) fn new_trace() -> TraceId {
    TraceId::from(fastrand::u128(1..))
}

/// The `traceparent` of a request that a recorded span sends.
pub(super) fn traceparent(context: &SpanContext) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("00-{}-{}-01", context.trace_id(), context.span_id())).ok()
}

/// Reads the fields `tracestate`, which are one list. An invalid one is ignored (3.3.1).
pub(super) fn trace_state(fields: &[HeaderValue]) -> TraceState {
    let fields: Option<Vec<&str>> = fields.iter().map(|field| field.to_str().ok()).collect();
    fields.and_then(|fields| fields.join(",").parse().ok()).unwrap_or_default()
}

impl TraceParent {
    /// Reads `traceparent`. An invalid one is ignored (3.2.2.3).
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            _ => None,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let version = lower_hex::<1>(&known[..2])?[0];
        // A later version may append fields to those of version 00.
        let fits = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
        let dashes = [2, 35, 52].iter().all(|index| known[*index] == b'-');
        let (trace, span) = (lower_hex(&known[3..35])?, lower_hex(&known[36..52])?);
        let sampled = lower_hex::<1>(&known[53..])?[0] & 1 == 1;
        (version != 0xff && fits && dashes && trace != [0; 16] && span != [0; 8]).then(|| Self {
            trace: TraceId::from_bytes(trace),
            span: SpanId::from_bytes(span),
            sampled,
        })
    }
}

/// Decodes hexadecimal digits, which are lower-case in a `traceparent` (3.2.2).
fn lower_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.iter().any(u8::is_ascii_uppercase) { None } else { decode_hex(digits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the recommendation, 3.2.2.4.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let read = parse(EXAMPLE).expect("it is good");
        assert!(read.sampled);
        assert_eq!(read.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(read.span.to_string(), "00f067aa0ba902b7");
        let context = SpanContext::new(read.trace, read.span, TraceFlags::SAMPLED, true, TraceState::NONE);
        assert_eq!(traceparent(&context).expect("a value"), EXAMPLE);
        assert!(!parse(&EXAMPLE.replace("-01", "-00")).expect("it is good").sampled);
        assert!(parse(&EXAMPLE.replace("-01", "-03")).expect("other flags are ignored").sampled);
        assert!(parse(&EXAMPLE.replacen("00-", "cc-", 1)).is_some(), "a later version");
        assert!(parse(&format!("{}-what-the-future-holds", EXAMPLE.replacen("00-", "cc-", 1))).is_some());
    }

    #[test]
    fn an_invalid_traceparent_is_ignored() {
        for text in [
            "",
            "00",
            &EXAMPLE.replacen("00-", "ff-", 1),
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replace('-', "_"),
            &format!("{EXAMPLE}-"),
            &format!("{}x", EXAMPLE.replacen("00-", "cc-", 1)),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        }
        assert_eq!(TraceParent::of(&twice), None);
    }
}
