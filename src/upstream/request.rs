//! Requests to the upstream, built from scratch: of what the caller sent, only what was understood goes on.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH, USER_AGENT};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request};

use crate::caller::{Caller, Credential};
use crate::config::PassThrough;
use crate::executions::{COLLECTION, Dialect, PathId, Question};
use crate::http_client::{Outgoing, whole};
use crate::request::headers::{LINKED_ACCOUNT_ID, X_API_KEY};
use crate::tenant::OrgKey;

const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static(concat!("postern/", env!("CARGO_PKG_VERSION")));

/// Asks a question for a caller; with `validator`, whether the answer has changed (RFC 9110, 13.1.2).
#[must_use]
pub(super) fn ask(
    dialect: Dialect,
    caller: &Caller,
    key: OrgKey,
    question: &Question,
    validator: Option<&HeaderValue>,
) -> Request<Outgoing> {
    let mut request = build(caller, key, Method::GET, &question.upstream_target(dialect), whole(Bytes::new()));
    if let Some(validator) = validator {
        request.headers_mut().insert(IF_NONE_MATCH, validator.clone());
    }
    request
}

/// Does something to an execution (`stop`, `rerun`) for a caller.
#[must_use]
pub(super) fn act(caller: &Caller, key: OrgKey, execution: &PathId, action: &str, body: Bytes) -> Request<Outgoing> {
    let mut target = format!("{COLLECTION}/");
    execution.write_upstream(&mut target);
    target.push('/');
    target.push_str(action);
    let has_body = !body.is_empty();
    let mut request = build(caller, key, Method::POST, &target, whole(body));
    if has_body {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}

/// A request of the allow-list: method, path, query and body as they came, and of the headers those that the list names.
#[must_use]
pub(super) fn pass(
    caller: &Caller,
    key: OrgKey,
    allowed: &PassThrough,
    head: &Parts,
    body: Outgoing,
) -> Request<Outgoing> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut request = build(caller, key, head.method.clone(), target, body);
    let named = [ACCEPT, CONTENT_TYPE];
    for name in named.iter().chain(&allowed.request_headers) {
        if let Some(value) = head.headers.get(name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    request
}

fn build(caller: &Caller, key: OrgKey, method: Method, target: &str, body: Outgoing) -> Request<Outgoing> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    // Upstream form. It is percent-encoded by us, so it parses.
    *request.uri_mut() = target.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.reserve(8);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, USER_AGENT_VALUE);
    insert_credential(headers, caller, key);
    request
}

fn insert_credential(headers: &mut HeaderMap, caller: &Caller, key: OrgKey) {
    match caller.credential() {
        Credential::Grant(_) | Credential::Jwt(_) | Credential::OrgKey(_) => {
            headers.insert(X_API_KEY, caller.tenant().org_keys().header(key).clone());
            // It came in as a header value, so it is one.
            if let Some(Ok(id)) =
                caller.partition().linked_account_id().map(|id| HeaderValue::from_bytes(id.as_bytes()))
            {
                headers.insert(LINKED_ACCOUNT_ID, id);
            }
        }
        Credential::SessionToken(token) => {
            headers.insert(AUTHORIZATION, token.authorization().clone());
        }
    }
}
