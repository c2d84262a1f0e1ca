//! Requests to Refold, built from scratch: only those parts of the caller's request that this file names are
//! forwarded.
//!
//! A request is built without a credential; each attempt inserts one.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH, USER_AGENT};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::caller::{Caller, Credential};
use crate::config::PassThrough;
use crate::error::{ClientError, Reason};
use crate::executions::{COLLECTION, Dialect, ForwardedParameters, PathId, Question};
use crate::http_client::{RequestBody, buffered};
use crate::request::headers::{LINKED_ACCOUNT_ID, X_API_KEY};
use crate::tenant::OrgKey;

const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Builds the request for a question; conditional if there is a validator (RFC 9110, 13.1.2).
///
/// # Errors
/// If the target is too long.
pub(super) fn fetch(
    dialect: Dialect,
    question: &Question,
    validator: Option<&HeaderValue>,
) -> Result<Request<RequestBody>, ClientError> {
    let mut request = build(Method::GET, &question.upstream_target(dialect), buffered(Bytes::new()))?;
    if let Some(validator) = validator {
        request.headers_mut().insert(IF_NONE_MATCH, validator.clone());
    }
    Ok(request)
}

/// Builds the request for an action (`stop`, `rerun`) on an execution. Refold documents no request body for it.
///
/// # Errors
/// If the target is too long.
pub(super) fn act(
    execution: &PathId,
    action: &str,
    forwarded: &ForwardedParameters,
) -> Result<Request<RequestBody>, ClientError> {
    let mut target = format!("{COLLECTION}/");
    execution.write_upstream(&mut target);
    target.push('/');
    target.push_str(action);
    forwarded.write_as_query(&mut target);
    build(Method::POST, &target, buffered(Bytes::new()))
}

/// Builds the request that checks an org key, which names no linked account.
///
/// # Errors
/// Never; the target is short.
pub(super) fn key_check(key: HeaderValue) -> Result<Request<RequestBody>, ClientError> {
    let mut request = build(Method::GET, "/api/v2/public/linked-account?page=1&limit=1", buffered(Bytes::new()))?;
    request.headers_mut().insert(X_API_KEY, key);
    Ok(request)
}

/// Builds a pass-through request: method, target and body are the caller's, and so are the headers that the allow-list names.
///
/// # Errors
/// If the target is too long.
pub(super) fn forward(
    allowed: &PassThrough,
    head: &Parts,
    body: RequestBody,
) -> Result<Request<RequestBody>, ClientError> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut request = build(head.method.clone(), target, body)?;
    for name in [ACCEPT, CONTENT_TYPE].iter().chain(&allowed.request_headers) {
        let mut values = head.headers.get_all(name).iter();
        if let Some(first) = values.next() {
            request.headers_mut().insert(name, first.clone());
            request.headers_mut().extend(values.map(|value| (name.clone(), value.clone())));
        }
    }
    Ok(request)
}

/// Inserts the credential: the org key `key` and the caller's linked account, or the caller's session token unchanged.
pub(super) fn insert_credential(headers: &mut HeaderMap, caller: &Caller, key: OrgKey) {
    match caller.credential() {
        Credential::Grant(_) | Credential::Jwt(_) | Credential::OrgKey(_) => {
            headers.insert(X_API_KEY, caller.tenant().org_keys().header(key).clone());
            if let Some(id) = caller.partition().linked_account_id() {
                let id = HeaderValue::from_bytes(id.as_bytes());
                headers.insert(LINKED_ACCOUNT_ID, id.expect("a caller's linked account is a valid header value"));
            }
        }
        Credential::SessionToken(token) => {
            headers.insert(AUTHORIZATION, token.authorization().clone());
        }
    }
}

/// Copies a request; `None` if its body is streamed.
#[must_use]
pub(super) fn try_clone(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let RequestBody::Left(body) = request.body() else { return None };
    let mut copy = Request::new(RequestBody::Left(body.clone()));
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

fn build(method: Method, target: &str, body: RequestBody) -> Result<Request<RequestBody>, ClientError> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = origin_form(target)?;
    let headers = request.headers_mut();
    headers.reserve(8);
    headers.insert(ACCEPT, JSON);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, USER_AGENT_VALUE);
    Ok(request)
}

/// Parses a request target in origin form (RFC 9112, 3.2.1). Percent-encoding makes it valid, but can make it too long.
fn origin_form(target: &str) -> Result<Uri, ClientError> {
    target.parse().map_err(|error: http::uri::InvalidUri| {
        ClientError::new(Reason::UriTooLong, "the request target is too long to be sent to Refold").caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_too_long_is_refused() {
        let target = |length: usize| format!("{COLLECTION}?slug={}", "a".repeat(length));
        assert_eq!(origin_form(&target(60_000)).expect("it fits").to_string(), target(60_000));
        let error = origin_form(&target(70_000)).expect_err("it does not fit");
        assert!(error.is(Reason::UriTooLong));
    }
}
