//! Responses of the admin listener, with the headers that they share: no cache stores a response, no page of another origin
//! reads or frames it, and the status page loads nothing from another origin.

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

/// A response of the admin listener, with its whole body.
pub(super) type AdminResponse = Response<Full<Bytes>>;

pub(super) const JSON: &str = "application/json";
/// The content type of Prometheus' text format.
pub(super) const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"postern admin\"");

/// A response with the shared headers.
pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// A response with a JSON body.
pub(super) fn json_response(status: StatusCode, value: &impl Serialize) -> AdminResponse {
    let body = serde_json::to_vec(value).expect("structs of numbers and strings always serialise");
    response(status, JSON, body)
}

/// An error response with the documented body.
pub(super) fn error_response(error: &ClientError) -> AdminResponse {
    let request_id = RequestId::new();
    let mut response = response(error.status(), JSON, error.body(&request_id.to_string()));
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.header());
    if let Some(allow) = error.allow().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}
