//! Builds HTTP responses from entries and errors: headers, conditional requests, HEAD.
//!
//! Part of the hit path. Body and entity tag of an entry are made when it is stored. The header map of a hit is a copy of a
//! prepared one (`prepared`) with its values filled in (`values`).

mod body;
mod context;
mod fields;
mod header_value;
mod prepared;
mod values;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, response};
use http_body_util::Full;

pub use self::body::{Body, StreamedBody};
pub use self::context::ResponseContext;
use self::fields::{CACHE_STATUS, CHALLENGE, JSON, NO_STORE, RATE_LIMIT, RATE_LIMIT_POLICY, X_REQUEST_ID};
use crate::cache::Entry;
use crate::clock::Moment;
use crate::error::{ClientError, Reason};
use crate::fleet::DropReach;
use crate::http_client::BodyError;
use crate::limit::BudgetState;
use crate::request::cors::{self, CorsPolicy};
use crate::request::route::Permitted;

fn empty() -> Response<Body> {
    Response::new(Body::Left(Full::default()))
}

/// Responds with an entry: 200, or 304 if the request's `If-None-Match` matches (RFC 9110, 13.1.2). Part of the hit path.
#[must_use]
pub fn entry(context: &mut ResponseContext, request: &HeaderMap, entry: &Entry, now: Moment) -> Response<Body> {
    let encoded = context.coding.and_then(|coding| Some((coding, entry.encoded(coding)?)));
    let (etag, body) = match &encoded {
        Some((_, encoded)) => (&encoded.etag, &encoded.body),
        None => (&entry.etag, &entry.body),
    };
    let mut response = empty();
    let headers = response.headers_mut();
    *headers = prepared::headers(context, entry, etag, now);
    if context.is_conditional && request.get_all(IF_NONE_MATCH).iter().any(|tags| matches(tags, etag)) {
        headers.remove(CONTENT_TYPE);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        add_cors(context, &mut response);
        return response;
    }
    if let Some((coding, _)) = encoded {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    with_body(response, context, body.clone())
}

/// Responds with the upstream's result of an action, which is never cached: its status and, if there is one, its JSON. `dropped` are
/// the replicas whose entries the action has dropped.
#[must_use]
pub fn action_result(
    context: &mut ResponseContext,
    status: StatusCode,
    body: Bytes,
    dropped: DropReach,
) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = status;
    let headers = insert_common(response.headers_mut(), context);
    if !body.is_empty() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    headers.insert(CACHE_CONTROL, NO_STORE);
    let cache_status = match dropped {
        DropReach::Everywhere => "postern; fwd=method",
        DropReach::ThisReplica => "postern; fwd=method; detail=dropped-on-this-replica-only",
    };
    headers.insert(CACHE_STATUS, HeaderValue::from_static(cache_status));
    with_body(response, context, body)
}

/// Responds with a streamed upstream response of the rest of the API, whose head has only the headers that are passed on.
#[must_use]
pub fn pass_through<B>(context: &mut ResponseContext, head: response::Parts, body: B) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let mut response = Response::new(Body::Right(StreamedBody::new(body)));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let headers = insert_common(response.headers_mut(), context);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CACHE_STATUS, HeaderValue::from_static("postern; fwd=bypass"));
    add_cors(context, &mut response);
    response
}

/// Responds to an accepted webhook delivery: 204.
#[must_use]
pub fn webhook_accepted(context: &mut ResponseContext) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert_common(response.headers_mut(), context).insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Responds with an error, in the documented shape.
#[must_use]
pub fn error(context: &mut ResponseContext, error: &ClientError) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = error.status();
    response.headers_mut().clone_from(error.headers());
    if let (Some(budgets), Some(state)) = (&mut context.budgets, upstream_refusal(error)) {
        budgets.upstream = Some(state);
    }
    let headers = insert_common(response.headers_mut(), context);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = error.allow() {
        headers.insert(ALLOW, method_list(allow));
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    with_body(response, context, error.body(&context.request_id.to_string()))
}

/// The state of the budget at Refold if it is the one that an error is about: a 429 of Refold's, or one in its place.
fn upstream_refusal(error: &ClientError) -> Option<BudgetState> {
    if error.status() != StatusCode::TOO_MANY_REQUESTS || error.is(Reason::RateLimitExceeded) {
        return None;
    }
    let reset = error.retry_after_seconds().map_or(1, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    Some(BudgetState { remaining: 0, reset })
}

/// Responds to a CORS preflight request; its response has no body.
#[must_use]
pub fn preflight(context: &mut ResponseContext, cors: Option<&CorsPolicy>, resource: &Permitted) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert_common(response.headers_mut(), context);
    if let Some(cors) = cors {
        cors.add_preflight_headers(resource, response.headers_mut());
    }
    add_cors(context, &mut response);
    response
}

/// Sets the body; a HEAD request gets only its length (RFC 9110, 9.3.2).
fn with_body(mut response: Response<Body>, context: &ResponseContext, body: Bytes) -> Response<Body> {
    if context.head {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    } else {
        *response.body_mut() = Body::Left(Full::new(body));
    }
    add_cors(context, &mut response);
    response
}

fn add_cors(context: &ResponseContext, response: &mut Response<Body>) {
    if let Some(origin) = &context.cors {
        cors::add_headers(origin.as_ref(), response.headers_mut());
    }
}

fn method_list(methods: &str) -> HeaderValue {
    HeaderValue::from_str(methods).expect("a list of methods is visible ASCII")
}

/// True if `If-None-Match` contains the entity tag by weak comparison, or `*`.
fn matches(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    let (tags, etag) = (tags.as_bytes(), etag.as_bytes());
    tags == etag
        || tags
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

/// Inserts the headers that all responses have.
fn insert_common<'a>(headers: &'a mut HeaderMap, context: &mut ResponseContext) -> &'a mut HeaderMap {
    headers.insert(X_REQUEST_ID, context.request_id.header());
    if let Some(budgets) = context.budgets.take() {
        headers.insert(RATE_LIMIT, values::rate_limit(&budgets));
        headers.insert(RATE_LIMIT_POLICY, budgets.policies);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_compares_weakly_and_parses_lists() {
        let etag = HeaderValue::from_static("\"abc\"");
        let matched = |tags: &'static str| matches(&HeaderValue::from_static(tags), &etag);
        for tags in ["\"abc\"", "W/\"abc\"", "*", "\"x\", \"abc\"", "\"x\" ,W/\"abc\""] {
            assert!(matched(tags), "{tags}");
        }
        for tags in ["\"x\"", "abc", "", "\"abc", "\"ABC\""] {
            assert!(!matched(tags), "{tags}");
        }
    }
}
