//! Responses of Refold, brought into the contract's form: pages completed, errors in the documented shape.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Deserialize;

use super::retry_after::RetryAfter;
use crate::caller::{Caller, Credential};
use crate::clock::Moment;
use crate::error::{ClientError, Reason, UpstreamErrorFields};
use crate::executions::{Question, ValidatedBody};
use crate::fleet::DropReach;
use crate::http_client::{BufferedResponse, TransportError};
use crate::log_events;

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
    retry_after: &RetryAfter,
) -> Result<FetchedContent, ClientError> {
    if response.status() == StatusCode::NOT_MODIFIED && is_conditional {
        return Ok(FetchedContent::NotModified);
    }
    let validator = response.headers().get(ETAG).map(stored_validator);
    let body = ok_body(caller, response, retry_after)?;
    let document = match question {
        Question::List(query) => ValidatedBody::page(body, query.page(), query.limit()),
        Question::Batches(_, _, query) => ValidatedBody::page(body, query.page(), query.limit()),
        Question::Execution(..) => ValidatedBody::single(body),
    };
    match document {
        Ok(document) => Ok(FetchedContent::Document { document, validator }),
        Err(error) => Err(ClientError::new(Reason::UpstreamInvalidResponse, error.to_string()).caused_by(error)),
    }
}

/// The result of an action that Refold has accepted.
#[derive(Debug)]
pub struct ActionResult {
    /// The status of the response: any 2xx.
    pub status: StatusCode,
    /// JSON, or empty.
    pub body: Bytes,
    /// The replicas whose entries the action has dropped.
    pub dropped: DropReach,
}

/// Reads the response to an action. With any 2xx the action is a success, whatever the body is: an error would make the caller act
/// again. A body that is not JSON, is incomplete, or contains an org key is left out.
///
/// # Errors
/// If its status is not a 2xx.
pub(super) fn action_result(
    caller: &Caller,
    response: Response<Result<Bytes, TransportError>>,
    retry_after: &RetryAfter,
    dropped: DropReach,
) -> Result<ActionResult, ClientError> {
    let status = response.status();
    if !status.is_success() {
        // The body only explains the status.
        return Err(no_document(caller, &response.map(Result::unwrap_or_default), retry_after));
    }
    let body = response.into_body().map_err(|error| error.to_string()).and_then(|body| action_body(caller, &body));
    let body = body.unwrap_or_else(|error| {
        tracing::warn!(status = status.as_u16(), %error, message = log_events::UPSTREAM_ACTION_BODY_LEFT_OUT);
        Bytes::new()
    });
    Ok(ActionResult { status, body, dropped })
}

/// Returns the body of a successful action if it is empty, or JSON without an org key.
fn action_body(caller: &Caller, body: &[u8]) -> Result<Bytes, String> {
    if contains_org_key(caller, body) {
        return Err("it contains an org key".to_owned());
    }
    if !body.is_empty() {
        serde_json::from_slice::<serde::de::IgnoredAny>(body).map_err(|_| "it is not JSON")?;
    }
    // Copied, so that a slow caller does not keep the connection's read buffer in memory.
    Ok(Bytes::copy_from_slice(body))
}

/// Makes the error for a response to a pass-through request that is not forwarded.
#[must_use]
pub(super) fn not_forwarded(caller: &Caller, response: &BufferedResponse, retry_after: &RetryAfter) -> ClientError {
    match response.status() {
        status if status.as_u16() < 400 => {
            let message = format!("Refold responded with status {}, which is not forwarded", status.as_u16());
            ClientError::new(Reason::UpstreamInvalidResponse, message)
        }
        _ => error_response(caller, response, retry_after),
    }
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
fn ok_body(caller: &Caller, response: BufferedResponse, retry_after: &RetryAfter) -> Result<Bytes, ClientError> {
    match response.status() {
        StatusCode::OK if contains_org_key(caller, response.body()) => {
            let message = "Refold's response has content that must not be shown";
            Err(ClientError::new(Reason::UpstreamInvalidResponse, message))
        }
        StatusCode::OK => Ok(response.into_body()),
        _ => Err(no_document(caller, &response, retry_after)),
    }
}

/// Makes the error for a response whose status promises no document.
fn no_document(caller: &Caller, response: &BufferedResponse, retry_after: &RetryAfter) -> ClientError {
    let invalid = |message: String| ClientError::new(Reason::UpstreamInvalidResponse, message);
    match response.status() {
        status if status.is_redirection() => {
            invalid(format!("Refold responded with a redirect ({}), which is not followed", status.as_u16()))
        }
        status if status.as_u16() < 400 => invalid(format!("Refold responded with status {}", status.as_u16())),
        _ => error_response(caller, response, retry_after),
    }
}

/// Makes the error for a response with an error status.
fn error_response(caller: &Caller, response: &BufferedResponse, retry_after: &RetryAfter) -> ClientError {
    let fields = error_fields(caller, response.body());
    match response.status() {
        // The caller's own credential is good; only the operator can replace the org key.
        StatusCode::UNAUTHORIZED if caller.injects_org_key() => {
            let message = "Refold did not accept the gateway's own API key; contact the gateway's operator";
            ClientError::new(Reason::UpstreamCredentialRejected, message)
        }
        StatusCode::UNAUTHORIZED => ClientError::invalid_credentials().of_upstream_request(fields.request_id),
        status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            ClientError::from_upstream(status, fields).retry_after(retry_after.pause(response.headers()))
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
        Some(serde_json::Value::String(text)) if !text.is_empty() && !contains_secret(caller, text.as_bytes()) => {
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

/// Returns true if a text contains an org key of the tenant, or the caller's session token: the text is logged, too.
fn contains_secret(caller: &Caller, text: &[u8]) -> bool {
    let echoes_token = match caller.credential() {
        Credential::SessionToken(token) => token.appears_in(text),
        _ => false,
    };
    echoes_token || contains_org_key(caller, text)
}

/// Returns true if a text contains one of the tenant's org keys, as from an upstream that echoes its request.
///
/// Checked for a caller that has the key too: the response is stored and shared with callers that do not.
fn contains_org_key(caller: &Caller, text: &[u8]) -> bool {
    caller.tenant().org_keys().appear_in(text)
}
