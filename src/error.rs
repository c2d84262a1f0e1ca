//! The only error that a client can receive, and its documented body.
//!
//! A client that was written against Refold sees no difference: the two situations that the documentation shows are
//! answered to the letter. The message tells a person what was wrong and what to do. Neither a credential nor the
//! upstream's internals appear in it: a body can only be made from a [`ClientError`], and a [`ClientError`] only by the
//! constructors here. The cause of an error is kept for the operator's log and never sent.

mod shared;

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

pub use self::shared::SharedError;
use crate::executions::QueryError;

/// The operator's code of the documented 401.
const INVALID_CREDENTIALS: &str = "INVALID_CREDENTIALS";
/// Longest `error_code` and `http_error_type` of an upstream error that are passed on.
const MAX_UPSTREAM_CODE: usize = 64;
/// Longest `message` of an upstream error, in bytes; the rest is replaced by an ellipsis.
const MAX_UPSTREAM_MESSAGE: usize = 2048;
/// Longest `request_id` of an upstream error that is passed on, in bytes.
const MAX_UPSTREAM_REQUEST_ID: usize = 128;

/// The cause of an error, for the operator's log.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// An error response: its status, the documented body fields, and the headers that belong to it.
#[derive(Clone, Debug)]
pub struct ClientError(Box<Fields>);

#[derive(Clone, Debug)]
struct Fields {
    status: StatusCode,
    kind: Kind,
    http_error_type: Cow<'static, str>,
    error_code: Cow<'static, str>,
    message: Cow<'static, str>,
    /// The upstream's own id for the request, which Refold's support asks for.
    upstream_request_id: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<Cow<'static, str>>,
    /// Headers of the upstream's response.
    headers: HeaderMap,
    cause: Option<Cause>,
    /// The precise reason of a refused credential, for metrics.
    credential_problem: Option<&'static str>,
}

/// The source of an error. Metrics and the gateway's decisions depend on it, never on the texts of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One of Postern's own reasons.
    Own(Reason),
    /// The documentation's answer to a request that names no linked account.
    NoLinkedAccount,
    /// The documentation's answer to bad credentials.
    InvalidCredentials,
    /// An error status of the upstream, whatever its body says.
    Upstream,
}

/// A reason to refuse a request: the `error_code` of the response, which determines its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each variant is named as its error code; the table of errors in docs/callers.md describes them"
)]
pub enum Reason {
    InvalidParameter,
    UnknownParameter,
    DuplicateParameter,
    InvalidDateRange,
    AmbiguousCredentials,
    MalformedRequest,
    ExpiredCredentials,
    LinkedAccountNotAllowed,
    ReadOnlyCredentials,
    HostNotAllowed,
    OriginNotAllowed,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    HeadersTooLarge,
    RateLimitExceeded,
    UpstreamBudgetExceeded,
    UpstreamUnreachable,
    UpstreamInvalidResponse,
    UpstreamResponseTooLarge,
    UpstreamCredentialRejected,
    Overloaded,
    ShuttingDown,
    UpstreamTimeout,
    NotCached,
    UpstreamCircuitOpen,
    IssuerKeysUnavailable,
}

impl Reason {
    const fn status_and_code(self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidParameter => (StatusCode::BAD_REQUEST, "INVALID_PARAMETER"),
            Self::UnknownParameter => (StatusCode::BAD_REQUEST, "UNKNOWN_PARAMETER"),
            Self::DuplicateParameter => (StatusCode::BAD_REQUEST, "DUPLICATE_PARAMETER"),
            Self::InvalidDateRange => (StatusCode::BAD_REQUEST, "INVALID_DATE_RANGE"),
            Self::AmbiguousCredentials => (StatusCode::BAD_REQUEST, "AMBIGUOUS_CREDENTIALS"),
            Self::MalformedRequest => (StatusCode::BAD_REQUEST, "MALFORMED_REQUEST"),
            Self::ExpiredCredentials => (StatusCode::UNAUTHORIZED, "EXPIRED_CREDENTIALS"),
            Self::LinkedAccountNotAllowed => (StatusCode::FORBIDDEN, "LINKED_ACCOUNT_NOT_ALLOWED"),
            Self::ReadOnlyCredentials => (StatusCode::FORBIDDEN, "READ_ONLY_CREDENTIALS"),
            Self::HostNotAllowed => (StatusCode::FORBIDDEN, "HOST_NOT_ALLOWED"),
            Self::OriginNotAllowed => (StatusCode::FORBIDDEN, "ORIGIN_NOT_ALLOWED"),
            Self::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE"),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, "URI_TOO_LONG"),
            Self::HeadersTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE"),
            Self::RateLimitExceeded => (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED"),
            Self::UpstreamBudgetExceeded => (StatusCode::TOO_MANY_REQUESTS, "UPSTREAM_BUDGET_EXCEEDED"),
            Self::UpstreamUnreachable => (StatusCode::BAD_GATEWAY, "UPSTREAM_UNREACHABLE"),
            Self::UpstreamInvalidResponse => (StatusCode::BAD_GATEWAY, "UPSTREAM_INVALID_RESPONSE"),
            Self::UpstreamResponseTooLarge => (StatusCode::BAD_GATEWAY, "UPSTREAM_RESPONSE_TOO_LARGE"),
            Self::UpstreamCredentialRejected => (StatusCode::BAD_GATEWAY, "UPSTREAM_CREDENTIAL_REJECTED"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"),
            Self::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "SHUTTING_DOWN"),
            Self::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "UPSTREAM_TIMEOUT"),
            Self::UpstreamCircuitOpen => (StatusCode::SERVICE_UNAVAILABLE, "UPSTREAM_CIRCUIT_OPEN"),
            Self::IssuerKeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE"),
            Self::NotCached => (StatusCode::GATEWAY_TIMEOUT, "NOT_CACHED"),
        }
    }
}

/// Fields of an upstream error body, as the upstream has sent them. [`ClientError::from_upstream`] fills in the missing ones, and
/// those that are too large or of another form than the contract's.
#[derive(Clone, Debug, Default)]
pub struct UpstreamErrorFields {
    /// `http_error_type`
    pub http_error_type: Option<String>,
    /// `error_code`, or `error`, which some of Refold's errors use instead.
    pub error_code: Option<String>,
    /// `message`
    pub message: Option<String>,
    /// `request_id`
    pub request_id: Option<String>,
}

impl ClientError {
    /// An error of Postern's own. `message` says what was wrong and what to do, and reveals nothing of a credential.
    #[must_use]
    #[cold]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        let (status, code) = reason.status_and_code();
        Self::with(Kind::Own(reason), status, class(status), code, message)
    }

    /// The documented 400 for a request that names no linked account. Refold swaps the two type fields in it.
    #[must_use]
    #[cold]
    pub fn no_linked_account() -> Self {
        let message = "linked_account_id or org_id is required";
        Self::with(Kind::NoLinkedAccount, StatusCode::BAD_REQUEST, "INVALID_LINKED_ACCOUNT_ID", "BAD_REQUEST", message)
    }

    /// The documented 401, the same for every bad credential, so that it never says which part was wrong.
    #[must_use]
    #[cold]
    pub fn invalid_credentials() -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self::with(Kind::InvalidCredentials, status, "UNAUTHORIZED", "SERVER_ERROR", "Invalid Credentials")
    }

    /// The error for a request to Refold that ended without a result: its task panicked, or no caller waited any longer.
    #[must_use]
    #[cold]
    pub fn abandoned() -> Self {
        Self::new(Reason::Overloaded, "the request to Refold was abandoned; try again")
            .retry_after(Duration::from_secs(1))
    }

    /// 405, with the methods that the resource supports (RFC 9110, 15.5.6).
    #[must_use]
    #[cold]
    pub fn method_not_allowed(allow: impl Into<Cow<'static, str>>) -> Self {
        let allow = allow.into();
        let mut error = Self::new(Reason::MethodNotAllowed, format!("this resource accepts {allow}"));
        error.0.allow = Some(allow);
        error
    }

    /// An upstream response with an error status. The status keeps its number, even if it is not a registered one.
    ///
    /// Errors are kept, logged and shown to operators, so each field is bounded. A code is upper snake case.
    #[must_use]
    pub fn from_upstream(status: StatusCode, fields: UpstreamErrorFields) -> Self {
        let message = fields.message.map_or_else(
            || format!("Refold answered with status {} and no message", status.as_u16()),
            |message| shortened(message, MAX_UPSTREAM_MESSAGE),
        );
        let code = |text: Option<String>| text.filter(|text| is_code(text)).map_or_else(|| class(status), Cow::Owned);
        let (error_type, code) = (code(fields.http_error_type), code(fields.error_code));
        Self::with(Kind::Upstream, status, error_type, code, message).of_upstream_request(fields.request_id)
    }

    fn with(
        kind: Kind,
        status: StatusCode,
        http_error_type: impl Into<Cow<'static, str>>,
        error_code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Fields {
            status,
            kind,
            http_error_type: http_error_type.into(),
            error_code: error_code.into(),
            message: message.into(),
            upstream_request_id: None,
            retry_after: None,
            allow: None,
            headers: HeaderMap::new(),
            cause: None,
            credential_problem: None,
        }))
    }

    /// Sets the upstream's own id for the request, unless it is too long for one.
    #[must_use]
    pub fn of_upstream_request(mut self, request_id: Option<String>) -> Self {
        self.0.upstream_request_id = request_id.filter(|id| id.len() <= MAX_UPSTREAM_REQUEST_ID);
        self
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets the cause, which the access log shows to the operator and no response contains.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    /// Names what was wrong with a credential, for the operator's metrics: a word from a bounded set.
    #[must_use]
    pub fn with_credential_problem(mut self, problem: &'static str) -> Self {
        self.0.credential_problem = Some(problem);
        self
    }

    /// The precise reason of a refused credential, for the operator's metrics.
    #[must_use]
    pub fn credential_problem(&self) -> Option<&'static str> {
        self.0.credential_problem
    }

    /// Adds headers of the upstream's response, as `Content-Range` of a 416.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.0.headers = headers;
        self
    }

    /// The headers of the upstream's response that this error has too.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The status of Refold's answer, if the error is one of Refold's.
    #[must_use]
    pub fn upstream_status(&self) -> Option<StatusCode> {
        (self.0.kind == Kind::Upstream).then_some(self.0.status)
    }

    /// The `message` of Refold's answer, if the error is one of Refold's.
    #[must_use]
    pub fn upstream_message(&self) -> Option<&str> {
        (self.0.kind == Kind::Upstream).then_some(&*self.0.message)
    }

    /// The `request_id` of Refold's answer, which its support asks for.
    #[must_use]
    pub fn upstream_request_id(&self) -> Option<&str> {
        self.0.upstream_request_id.as_deref()
    }

    /// True if a stale response is better than this error: the upstream can't be reached, fails, or must not be sent
    /// requests now (RFC 5861, 4). False if the error is about the caller or the question.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.0.status.is_server_error() && !self.is(Reason::UpstreamCredentialRejected)
            || self.0.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The code for the operator: the `error_code` of the body, but for the documented 401, whose own says nothing.
    #[must_use]
    pub fn operator_code(&self) -> &str {
        if self.0.kind == Kind::InvalidCredentials { INVALID_CREDENTIALS } else { &self.0.error_code }
    }

    /// The value of the metrics' label `error_code`, from a bounded set: `UPSTREAM` for every upstream error.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.0.kind {
            Kind::Own(reason) => reason.status_and_code().1,
            Kind::NoLinkedAccount => "BAD_REQUEST",
            Kind::InvalidCredentials => INVALID_CREDENTIALS,
            Kind::Upstream => "UPSTREAM",
        }
    }

    /// True if `reason` is the reason; false for every upstream error, whatever code its body has.
    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        self.0.kind == Kind::Own(reason)
    }

    /// The cause, for the operator.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        self.0.cause.as_ref()
    }

    /// `Retry-After` in whole seconds, rounded up and at least one (RFC 9110, 10.2.3).
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.0.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
    }

    /// The `message` of the body.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of `Allow`.
    #[must_use]
    pub fn allow(&self) -> Option<&str> {
        self.0.allow.as_deref()
    }

    /// The documented body. `request_id` is used unless the upstream named an id of its own.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "strings and an integer always serialise")]
    pub fn body(&self, request_id: &str) -> Bytes {
        #[derive(Serialize)]
        struct Body<'a> {
            status_code: u16,
            http_error_type: &'a str,
            error_code: &'a str,
            message: &'a str,
            request_id: &'a str,
        }
        let body = Body {
            status_code: self.0.status.as_u16(),
            http_error_type: &self.0.http_error_type,
            error_code: &self.0.error_code,
            message: &self.0.message,
            request_id: self.0.upstream_request_id.as_deref().unwrap_or(request_id),
        };
        serde_json::to_vec(&body).expect("strings and an integer always serialise").into()
    }
}

/// Returns true for an upper snake case name of a bounded length.
fn is_code(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=MAX_UPSTREAM_CODE).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Returns a text of at most `limit` bytes and an ellipsis, in memory of its own size.
fn shortened(text: String, limit: usize) -> String {
    if text.len() <= limit { text } else { format!("{}…", &text[..text.floor_char_boundary(limit)]) }
}

/// The reason phrase in upper snake case: `NOT_FOUND`. A status that is not registered counts as the x00 of its class
/// (RFC 9110, 15).
fn class(status: StatusCode) -> Cow<'static, str> {
    match status.canonical_reason() {
        Some(name) => name
            .chars()
            .filter(|letter| *letter != '\'')
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' })
            .collect::<String>()
            .into(),
        None if status.as_u16() < 500 => "BAD_REQUEST".into(),
        None => "INTERNAL_SERVER_ERROR".into(),
    }
}

impl From<QueryError> for ClientError {
    fn from(error: QueryError) -> Self {
        let reason = match error {
            QueryError::Invalid { .. } => Reason::InvalidParameter,
            QueryError::Unknown { .. } => Reason::UnknownParameter,
            QueryError::Duplicate { .. } => Reason::DuplicateParameter,
            QueryError::DateRange { .. } => Reason::InvalidDateRange,
            QueryError::Malformed { .. } => Reason::MalformedRequest,
        };
        Self::new(reason, error.to_string())
    }
}

#[cfg(test)]
mod tests;
