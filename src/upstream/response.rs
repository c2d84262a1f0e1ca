//! What the upstream said to what the contract says: its pages completed, its errors brought into the documented shape.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde::Deserialize;

use crate::caller::Caller;
use crate::error::{ClientError, Reason, UpstreamErrorFields};
use crate::executions::{Document, NotDocumented, Question};
use crate::http_client::{Reply, TransportError};

/// How long to stay away from an upstream that answered 429 without a `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause that an upstream can ask for.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// What a caller is told when there is no answer.
#[must_use]
pub(super) fn failure(error: TransportError) -> ClientError {
    let reason = match error {
        TransportError::Unreachable => Reason::UpstreamUnreachable,
        TransportError::Timeout => Reason::UpstreamTimeout,
        TransportError::TooLarge { .. } => Reason::UpstreamResponseTooLarge,
        TransportError::Broken => Reason::UpstreamInvalidResponse,
    };
    let message = match error {
        TransportError::Unreachable => "Refold can't be reached".to_owned(),
        TransportError::Timeout => "Refold did not answer in time".to_owned(),
        TransportError::TooLarge { limit } => format!("Refold's answer is larger than {limit} bytes"),
        TransportError::Broken => "Refold's answer is broken".to_owned(),
    };
    ClientError::new(reason, message).caused_by(error)
}

/// Reads the answer to a question.
///
/// # Errors
/// If it is an error, or not what the documentation promises.
pub(super) fn answer(caller: &Caller, question: &Question, response: Reply) -> Result<Document, ClientError> {
    let body = success(caller, response)?;
    let document = match question {
        Question::List(query) => Document::page(body, query.page(), query.limit()),
        Question::Batches(_, _, query) => Document::page(body, query.page(), query.limit()),
        Question::Document(_) => Document::single(body),
    };
    document.map_err(|error: NotDocumented| ClientError::new(Reason::UpstreamInvalidResponse, error.to_string()))
}

/// Reads the answer to an action: any JSON.
///
/// # Errors
/// If it is an error, or no JSON.
pub(super) fn outcome(caller: &Caller, response: Reply) -> Result<Bytes, ClientError> {
    let body = success(caller, response)?;
    match serde_json::from_slice::<serde::de::IgnoredAny>(&body) {
        // A slow reader of it must not keep all of what it may be a part of.
        Ok(_) => Ok(Bytes::copy_from_slice(&body)),
        Err(_) => Err(ClientError::new(Reason::UpstreamInvalidResponse, "Refold's answer is not JSON")),
    }
}

/// How long the upstream wants to be left alone.
#[must_use]
pub(super) fn pause(response: &Reply) -> Duration {
    response
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(DEFAULT_PAUSE, Duration::from_secs)
        .clamp(DEFAULT_PAUSE, MAX_PAUSE)
}

/// What an answer is that was not the one hoped for.
#[must_use]
pub(super) fn unexpected(caller: &Caller, response: &Reply) -> ClientError {
    match response.status {
        status if status.as_u16() < 400 => {
            let message = format!("Refold answered with status {}, which is not passed on", status.as_u16());
            ClientError::new(Reason::UpstreamInvalidResponse, message)
        }
        _ => refusal(caller, response),
    }
}

fn success(caller: &Caller, response: Reply) -> Result<Bytes, ClientError> {
    let invalid = |message: String| Err(ClientError::new(Reason::UpstreamInvalidResponse, message));
    match response.status {
        StatusCode::OK if shows_org_key(caller, &response.body) => invalid("Refold's answer can't be shown".to_owned()),
        StatusCode::OK => Ok(response.body),
        status if status.is_redirection() => {
            invalid(format!("Refold answered with a redirect ({}), which is not followed", status.as_u16()))
        }
        status if status.as_u16() < 400 => invalid(format!("Refold answered with status {}", status.as_u16())),
        _ => Err(refusal(caller, &response)),
    }
}

fn refusal(caller: &Caller, response: &Reply) -> ClientError {
    let fields = fields(caller, &response.body);
    match response.status {
        // The caller's own key was good: it is the operator who has to mend this.
        StatusCode::UNAUTHORIZED if caller.is_injected() => {
            let message = "Refold did not accept the gateway's own API key; tell whoever runs the gateway";
            ClientError::new(Reason::UpstreamCredentialRejected, message)
        }
        StatusCode::UNAUTHORIZED => ClientError::invalid_credentials().of_upstream_request(fields.request_id),
        status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            ClientError::from_upstream(status, fields).retry_after(pause(response))
        }
        status => ClientError::from_upstream(status, fields),
    }
}

/// Reads what there is of the documented error body, in any of the shapes that Refold uses.
fn fields(caller: &Caller, body: &[u8]) -> UpstreamErrorFields {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Body {
        http_error_type: Option<serde_json::Value>,
        error_code: Option<serde_json::Value>,
        error: Option<serde_json::Value>,
        message: Option<serde_json::Value>,
        request_id: Option<serde_json::Value>,
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: Option<serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) if !text.is_empty() && !shows_org_key(caller, text.as_bytes()) => {
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

/// An upstream that echoes its request must not tell anybody what the gateway put into it. Nor a caller who has the key: what
/// it is told is kept, and shared with those who have not.
fn shows_org_key(caller: &Caller, text: &[u8]) -> bool {
    caller.tenant().org_keys().appear_in(text)
}
