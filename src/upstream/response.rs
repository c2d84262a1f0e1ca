//! Responses of Refold, brought into the contract's form: pages completed, errors in the documented shape.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::caller::Caller;
use crate::clock::Moment;
use crate::error::{ClientError, Reason, UpstreamErrorFields};
use crate::executions::{Question, ValidatedBody};
use crate::http_client::BufferedResponse;

/// The pause after a 429 or 503 without a `Retry-After`, and the minimum if there is one.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that the upstream can ask for.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// The result of a fetch.
#[derive(Debug)]
pub struct Fetched {
    /// When the request was sent, or, after retries, the last of them (RFC 9111, 4.2.3).
    pub request_time: Moment,
    /// The response has `Cache-Control: no-store`, and the configuration honours it.
    pub no_store: bool,
    /// The content of the response.
    pub content: FetchedContent,
}

/// The content of a response to a fetch.
#[derive(Debug)]
pub enum FetchedContent {
    /// The response was 304: the stale entry is still valid.
    NotModified,
    /// The response was 200.
    Document {
        /// The document in the contract's form.
        document: ValidatedBody,
        /// The `ETag`, for the next conditional request.
        validator: Option<HeaderValue>,
    },
}

/// Reads the response to a fetch.
///
/// # Errors
/// If its status is an error, or its body is not the documented JSON. A 304 to an unconditional request is an error too.
pub(super) fn content(
    caller: &Caller,
    question: &Question,
    is_conditional: bool,
    response: BufferedResponse,
) -> Result<FetchedContent, ClientError> {
    if response.status() == StatusCode::NOT_MODIFIED && is_conditional {
        return Ok(FetchedContent::NotModified);
    }
    let validator = response.headers().get(ETAG).map(stored_validator);
    let body = ok_body(caller, response)?;
    let document = match question {
        Question::List(query) => ValidatedBody::page(body, query.page(), query.limit()),
        Question::Batches(_, _, query) => ValidatedBody::page(body, query.page(), query.limit()),
        Question::Execution(_) => ValidatedBody::single(body),
    };
    match document {
        Ok(document) => Ok(FetchedContent::Document { document, validator }),
        Err(error) => Err(ClientError::new(Reason::UpstreamInvalidResponse, error.to_string()).caused_by(error)),
    }
}

/// Reads the response to an action: any JSON.
///
/// # Errors
/// If its status is an error, or its body is not JSON.
pub(super) fn action_result(caller: &Caller, response: BufferedResponse) -> Result<Bytes, ClientError> {
    let body = ok_body(caller, response)?;
    match serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
        // Copied, so that a slow caller does not keep the connection's read buffer in memory.
        Ok(_) => Ok(Bytes::copy_from_slice(&body)),
        Err(error) => {
            Err(ClientError::new(Reason::UpstreamInvalidResponse, "Refold's response is not JSON").caused_by(error))
        }
    }
}

/// Makes the error for a response to a pass-through request that is not forwarded.
#[must_use]
pub(super) fn not_forwarded(caller: &Caller, response: &BufferedResponse) -> ClientError {
    match response.status() {
        status if status.as_u16() < 400 => {
            let message = format!("Refold responded with status {}, which is not forwarded", status.as_u16());
            ClientError::new(Reason::UpstreamInvalidResponse, message)
        }
        _ => error_response(caller, response),
    }
}

/// Returns the pause that the upstream asks for, within bounds.
#[must_use]
pub(super) fn retry_after(headers: &HeaderMap) -> Duration {
    headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(DEFAULT_PAUSE, Duration::from_secs)
        .clamp(DEFAULT_PAUSE, MAX_PAUSE)
}

/// Returns true if the response must not be stored (RFC 9111, 5.2.2.5).
#[must_use]
pub(super) fn has_no_store(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|value| {
        let mut directives = value.as_bytes().split(|byte| *byte == b',');
        directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-store"))
    })
}

/// Copies a validator: the value is a slice of the connection's read buffer, all of which it would keep in memory.
fn stored_validator(etag: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(etag.as_bytes()).expect("the bytes of a header value");
    // No log shows it: the upstream may have put anything into it.
    copy.set_sensitive(true);
    copy
}

/// Returns the body of a 200 that contains no org key.
fn ok_body(caller: &Caller, response: BufferedResponse) -> Result<Bytes, ClientError> {
    let invalid = |message: String| Err(ClientError::new(Reason::UpstreamInvalidResponse, message));
    match response.status() {
        StatusCode::OK if contains_org_key(caller, response.body()) => {
            invalid("Refold's response has content that must not be shown".to_owned())
        }
        StatusCode::OK => Ok(response.into_body()),
        status if status.is_redirection() => {
            invalid(format!("Refold responded with a redirect ({}), which is not followed", status.as_u16()))
        }
        status if status.as_u16() < 400 => invalid(format!("Refold responded with status {}", status.as_u16())),
        _ => Err(error_response(caller, &response)),
    }
}

/// Makes the error for a response with an error status.
fn error_response(caller: &Caller, response: &BufferedResponse) -> ClientError {
    let fields = error_fields(caller, response.body());
    match response.status() {
        // The caller's own credential is good; only the operator can replace the org key.
        StatusCode::UNAUTHORIZED if caller.injects_org_key() => {
            let message = "Refold did not accept the gateway's own API key; contact the gateway's operator";
            ClientError::new(Reason::UpstreamCredentialRejected, message)
        }
        StatusCode::UNAUTHORIZED => ClientError::invalid_credentials().of_upstream_request(fields.request_id),
        status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            ClientError::from_upstream(status, fields).retry_after(retry_after(response.headers()))
        }
        status => ClientError::from_upstream(status, fields),
    }
}

/// Reads the fields of the documented error body, in any of the shapes that Refold uses; missing ones stay empty.
fn error_fields(caller: &Caller, body: &[u8]) -> UpstreamErrorFields {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        http_error_type: Option<serde_json::Value>,
        error_code: Option<serde_json::Value>,
        error: Option<serde_json::Value>,
        message: Option<serde_json::Value>,
        request_id: Option<serde_json::Value>,
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: Option<serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) if !text.is_empty() && !contains_org_key(caller, text.as_bytes()) => {
            Some(text)
        }
        _ => None,
    };
    UpstreamErrorFields {
        http_error_type: text(body.http_error_type),
        error_code: text(body.error_code).or_else(|| text(body.error)),
        message: text(body.message),
        request_id: text(body.request_id),
    }
}

/// Returns true if a text contains one of the tenant's org keys, as from an upstream that echoes its request.
///
/// Checked for a caller that has the key too: the response is stored and shared with callers that do not.
fn contains_org_key(caller: &Caller, text: &[u8]) -> bool {
    caller.tenant().org_keys().appear_in(text)
}
