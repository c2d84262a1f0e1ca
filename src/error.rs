//! The one error that a client can see, and its documented body.
//!
//! Its goals, which pull in different directions: a client that was written against Refold sees no difference (the two
//! situations that the documentation shows come out to the letter); a person reads what was wrong and what to do; nothing
//! of a credential or of the upstream's insides leaks. So a body can only be made from a [`ClientError`], and a
//! [`ClientError`] only by the constructors here.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::executions::QueryError;

/// An answer that is not the one the caller asked for.
#[derive(Clone, Debug)]
pub struct ClientError(Box<Fields>);

#[derive(Clone, Debug)]
struct Fields {
    status: StatusCode,
    http_error_type: Cow<'static, str>,
    error_code: Cow<'static, str>,
    message: Cow<'static, str>,
    /// The upstream's own id for the request, which its support asks for.
    upstream_request_id: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<Cow<'static, str>>,
}

/// Why a request was refused or failed: the `error_code` of the answer, which decides its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is its error code; when it is used is the README's table of errors")]
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
            Self::NotCached => (StatusCode::GATEWAY_TIMEOUT, "NOT_CACHED"),
        }
    }
}

/// What could be read from an upstream error body; whatever is missing is filled in.
#[derive(Clone, Debug, Default)]
pub struct UpstreamErrorFields {
    /// `http_error_type`
    pub http_error_type: Option<String>,
    /// `error_code`, or `error` as some of Refold's errors have it.
    pub error_code: Option<String>,
    /// `message`
    pub message: Option<String>,
    /// `request_id`
    pub request_id: Option<String>,
}

impl ClientError {
    /// An error of Postern's own. `message` says what was wrong and what to do, and nothing of a credential.
    #[must_use]
    #[cold]
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        let (status, code) = reason.status_and_code();
        Self(Box::new(Fields {
            status,
            http_error_type: class(status),
            error_code: code.into(),
            message: message.into(),
            upstream_request_id: None,
            retry_after: None,
            allow: None,
        }))
    }

    /// The documented 400 for a request that names no linked account: its two type fields are swapped, as Refold's are.
    #[must_use]
    #[cold]
    pub fn no_linked_account() -> Self {
        Self::documented(
            StatusCode::BAD_REQUEST,
            "INVALID_LINKED_ACCOUNT_ID",
            "BAD_REQUEST",
            "linked_account_id or org_id is required",
        )
    }

    /// The documented 401. The same for every credential that is not good, whichever part of it was wrong.
    #[must_use]
    #[cold]
    pub fn invalid_credentials() -> Self {
        Self::documented(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "SERVER_ERROR", "Invalid Credentials")
    }

    #[cold]
    fn documented(
        status: StatusCode,
        http_error_type: &'static str,
        code: &'static str,
        message: &'static str,
    ) -> Self {
        Self(Box::new(Fields {
            status,
            http_error_type: http_error_type.into(),
            error_code: code.into(),
            message: message.into(),
            upstream_request_id: None,
            retry_after: None,
            allow: None,
        }))
    }

    /// 405, with the methods that the resource has (RFC 9110, 15.5.6).
    #[must_use]
    #[cold]
    pub fn method_not_allowed(allow: impl Into<Cow<'static, str>>) -> Self {
        let allow = allow.into();
        let mut error = Self::new(Reason::MethodNotAllowed, format!("this resource accepts {allow}"));
        error.0.allow = Some(allow);
        error
    }

    /// An upstream answer with an error status. The status keeps its number, also if it is none that anybody knows.
    #[must_use]
    pub fn from_upstream(status: StatusCode, fields: UpstreamErrorFields) -> Self {
        Self(Box::new(Fields {
            status,
            http_error_type: fields.http_error_type.map_or_else(|| class(status), Cow::Owned),
            error_code: fields.error_code.map_or_else(|| class(status), Cow::Owned),
            message: fields.message.map_or_else(
                || format!("Refold answered with status {} and no message", status.as_u16()).into(),
                Cow::Owned,
            ),
            upstream_request_id: fields.request_id,
            retry_after: None,
            allow: None,
        }))
    }

    /// Names the upstream's own id for the request.
    #[must_use]
    pub fn of_upstream_request(mut self, request_id: Option<String>) -> Self {
        self.0.upstream_request_id = request_id;
        self
    }

    /// Sets `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Whether an older answer is better than this one: the upstream can't be reached, fails, or is not to be asked now
    /// (RFC 5861, 4). Not so if it said something about the caller or the question.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.0.status.is_server_error() && !self.is(Reason::UpstreamCredentialRejected)
            || self.0.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The specific reason, for logs.
    #[must_use]
    pub fn error_code(&self) -> &str {
        &self.0.error_code
    }

    /// The specific reason, one of a bounded number of texts: what an upstream has made up is `UPSTREAM`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.0.error_code {
            Cow::Borrowed(own) => own,
            Cow::Owned(_) => "UPSTREAM",
        }
    }

    /// Whether this is why; never so for what an upstream said, whatever code it made up.
    #[must_use]
    pub fn is(&self, reason: Reason) -> bool {
        self.label() == reason.status_and_code().1
    }

    /// `Retry-After` in whole seconds, rounded up and at least one (RFC 9110, 10.2.3).
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.0.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).map(|seconds| seconds.max(1))
    }

    /// What a person is told.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The methods for `Allow`.
    #[must_use]
    pub fn allow(&self) -> Option<&str> {
        self.0.allow.as_deref()
    }

    /// The documented body. `request_id` is used where the upstream named none of its own.
    #[must_use]
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
        // Strings and one integer: serialisation has nothing to fail on.
        serde_json::to_vec(&body).unwrap_or_default().into()
    }
}

/// The HTTP class in upper snake case: `NOT_FOUND`. A status that has no name counts as the x00 of its class, as
/// RFC 9110, 15 has it.
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
mod tests {
    use super::*;

    #[test]
    fn the_two_documented_errors_come_out_to_the_letter() {
        assert_eq!(
            ClientError::no_linked_account().body("id"),
            r#"{"status_code":400,"http_error_type":"INVALID_LINKED_ACCOUNT_ID","error_code":"BAD_REQUEST","message":"linked_account_id or org_id is required","request_id":"id"}"#
        );
        assert_eq!(
            ClientError::invalid_credentials().body("id"),
            r#"{"status_code":401,"http_error_type":"UNAUTHORIZED","error_code":"SERVER_ERROR","message":"Invalid Credentials","request_id":"id"}"#
        );
    }

    #[test]
    fn an_unknown_status_keeps_its_number_and_gets_the_name_of_its_class() {
        let status = StatusCode::from_u16(599).expect("a status of three digits");
        let error = ClientError::from_upstream(status, UpstreamErrorFields::default());
        let body = String::from_utf8(error.body("id").to_vec()).expect("JSON is UTF-8");
        assert!(body.contains(r#""status_code":599,"http_error_type":"INTERNAL_SERVER_ERROR""#), "{body}");
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let error = |wait| ClientError::new(Reason::Overloaded, "x").retry_after(wait).retry_after_seconds();
        assert_eq!(error(Duration::from_millis(1)), Some(1));
        assert_eq!(error(Duration::from_secs(2)), Some(2));
        assert_eq!(error(Duration::from_millis(2001)), Some(3));
    }
}
