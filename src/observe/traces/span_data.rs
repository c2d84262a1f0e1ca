//! The data of a span, as the exporter sends it.

use jiff::Timestamp;

use super::context::{SpanContext, SpanId, TraceId};

/// The ids of a span, and its kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanIdentity {
    pub(super) context: SpanContext,
    pub(super) parent: Option<SpanId>,
    pub(super) kind: SpanKind,
}

impl SpanIdentity {
    /// The first span of a new trace.
    pub(super) fn root(kind: SpanKind) -> Self {
        Self { context: SpanContext { trace: TraceId::new(), span: SpanId::new() }, parent: None, kind }
    }

    /// A new span below another one, in the same trace.
    pub(super) fn child_of(parent: SpanContext, kind: SpanKind) -> Self {
        let context = SpanContext { trace: parent.trace, span: SpanId::new() };
        Self { context, parent: Some(parent.span), kind }
    }
}

/// The kind of a span, with its number in OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpanKind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttributeValue {
    Text(String),
    Number(i64),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for AttributeValue {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u32> for AttributeValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// The name, start and attributes of a span that has begun.
#[derive(Debug)]
pub(super) struct SpanData {
    pub(super) name: String,
    pub(super) start: Timestamp,
    pub(super) attributes: Vec<(&'static str, AttributeValue)>,
    pub(super) links: Vec<SpanContext>,
    pub(super) failed: bool,
}

impl SpanData {
    pub(super) fn new(name: &str, start: Timestamp) -> Self {
        Self { name: name.to_owned(), start, attributes: Vec::new(), links: Vec::new(), failed: false }
    }
}

/// A span that has ended.
#[derive(Debug)]
pub(super) struct FinishedSpan {
    pub(super) identity: SpanIdentity,
    pub(super) data: SpanData,
    pub(super) end: Timestamp,
}
