//! Answers, and the headers that all of them have: nothing is kept by anybody, no page of another origin reads or frames them,
//! and the status page loads nothing from anywhere else.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::error::ClientError;
use crate::request::RequestId;

/// An answer, all of it.
pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const JSON: &str = "application/json";
/// Prometheus' text format.
pub(super) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"postern admin\"");

/// An answer with a body of a kind.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    // Structs of numbers and text: serialisation has nothing to fail on.
    answer(status, JSON, serde_json::to_vec(value).unwrap_or_default())
}

/// An error, in the documented shape.
pub(super) fn error(error: &ClientError) -> Answer {
    let request_id = RequestId::new().to_string();
    let mut answer = answer(error.status(), JSON, error.body(&request_id));
    let headers = answer.headers_mut();
    headers.insert(X_REQUEST_ID, HeaderValue::try_from(request_id).unwrap_or(HeaderValue::from_static("")));
    if let Some(allow) = error.allow().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    answer
}
