//! An entry or an error to an HTTP response: headers, conditional requests, HEAD.
//!
//! Part of the hit path. The body and its tag are made at fill time, the headers that are the same in every answer
//! once for the process (`prepared`), and so are most values of the others (`values`).

mod header_value;
mod prepared;
mod values;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName,
    IF_NONE_MATCH, LAST_MODIFIED, LINK, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, response};
use http_body_util::{Either, Full};

use crate::cache::{CacheOutcome, Coding, Entry};
use crate::clock::Moment;
use crate::error::ClientError;
use crate::limit::BudgetUse;
use crate::request::RequestId;
use crate::request::cors::{self, AllowedOrigin, Cors};
use crate::upstream::ForwardedBody;

/// The body of every response: all here, or coming from the upstream.
pub type Body = Either<Full<Bytes>, Box<ForwardedBody>>;

fn empty() -> Response<Body> {
    Response::new(Body::Left(Full::default()))
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Whatever says who is asking decides what is answered.
const VARY_BY_CALLER: HeaderValue =
    HeaderValue::from_static("accept-encoding, authorization, x-api-key, linked_account_id, linked-account-id");
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"postern\"");

/// What a request left of its caller's budget, and the budget's policy.
pub type Budget = (BudgetUse, HeaderValue);

/// What the steps have found out about a request by the time it is answered.
#[derive(Debug)]
pub struct Facts {
    /// Names this request in headers, bodies and logs.
    pub request_id: RequestId,
    /// A HEAD request: the answer has no body.
    pub head: bool,
    /// The caller's budget, once it is known who it is and until it was told.
    pub budget: Option<Budget>,
    /// What the cache did.
    pub cache: CacheOutcome,
    /// The content coding that the request likes best; known once it is one for what can be cached.
    pub coding: Option<Coding>,
    /// Whether it has an `If-None-Match`; known at the same time.
    pub is_conditional: bool,
    /// Whether pages of other origins may ask at all, and the one that does.
    pub cors: Option<Option<AllowedOrigin>>,
}

/// The answer with an entry: 200, or 304 if the caller has it already (RFC 9110, 13.1.2).
#[must_use]
pub fn entry(facts: &mut Facts, request: &HeaderMap, entry: &Entry, now: Moment) -> Response<Body> {
    let coded = facts.coding.and_then(|coding| Some((coding, entry.codings.get(coding)?)));
    let (etag, body) = match &coded {
        Some((_, coded)) => (&coded.etag, &coded.body),
        None => (&entry.etag, &entry.body),
    };
    let mut response = empty();
    let headers = response.headers_mut();
    *headers = prepared::headers(facts, entry, etag, now);
    if facts.is_conditional && request.get_all(IF_NONE_MATCH).iter().any(|tags| matches(tags, etag)) {
        headers.remove(CONTENT_TYPE);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        expose(facts, &mut response);
        return response;
    }
    if let Some((coding, _)) = coded {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    fill(response, facts, body.clone())
}

/// The answer to an action: what the upstream said, never kept by anybody.
#[must_use]
pub fn outcome(facts: &mut Facts, body: Bytes) -> Response<Body> {
    let mut response = empty();
    let headers = insert_common(response.headers_mut(), facts);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CACHE_STATUS, HeaderValue::from_static("postern; fwd=method"));
    fill(response, facts, body)
}

/// An answer of the rest of the API as it comes in; of its headers those that say what the body is.
#[must_use]
pub fn passed(facts: &mut Facts, head: &response::Parts, body: ForwardedBody) -> Response<Body> {
    const PASSED: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_DISPOSITION, ETAG, LAST_MODIFIED, LINK];
    let mut response = Response::new(Body::Right(Box::new(body)));
    *response.status_mut() = head.status;
    let headers = insert_common(response.headers_mut(), facts);
    for name in PASSED {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(CACHE_STATUS, HeaderValue::from_static("postern; fwd=bypass"));
    expose(facts, &mut response);
    response
}

/// The answer to a delivery that was taken: nothing.
#[must_use]
pub fn taken(facts: &mut Facts) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert_common(response.headers_mut(), facts).insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The answer with an error, in the documented shape.
#[must_use]
pub fn error(facts: &mut Facts, error: &ClientError) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = error.status();
    let headers = insert_common(response.headers_mut(), facts);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = error.allow() {
        headers.insert(ALLOW, HeaderValue::from_str(allow).unwrap_or(HeaderValue::from_static("")));
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    fill(response, facts, error.body(&facts.request_id.to_string()))
}

/// Puts the body in; a HEAD request gets its length alone (RFC 9110, 9.3.2).
fn fill(mut response: Response<Body>, facts: &Facts, body: Bytes) -> Response<Body> {
    if facts.head {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    } else {
        *response.body_mut() = Body::Left(Full::new(body));
    }
    expose(facts, &mut response);
    response
}

/// The answer to a preflight: no body, and nothing that belongs to anybody.
#[must_use]
pub fn preflight(facts: &mut Facts, cors: Option<&Cors>, methods: &str) -> Response<Body> {
    let mut response = empty();
    *response.status_mut() = StatusCode::NO_CONTENT;
    insert_common(response.headers_mut(), facts);
    if let Some(cors) = cors {
        cors.answer_preflight(methods, response.headers_mut());
    }
    expose(facts, &mut response);
    response
}

fn expose(facts: &Facts, response: &mut Response<Body>) {
    if let Some(origin) = &facts.cors {
        cors::expose(origin.as_ref(), response.headers_mut());
    }
}

/// Whether one of the tags is this one, by the weak comparison that `If-None-Match` asks for.
fn matches(tags: &HeaderValue, etag: &HeaderValue) -> bool {
    let (tags, etag) = (tags.as_bytes(), etag.as_bytes());
    tags == etag
        || tags
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag)
}

/// Inserts what every answer has.
fn insert_common<'a>(headers: &'a mut HeaderMap, facts: &mut Facts) -> &'a mut HeaderMap {
    headers.insert(X_REQUEST_ID, facts.request_id.header());
    if let Some((spent, policy)) = facts.budget.take() {
        headers.insert(RATE_LIMIT, values::rate_limit(spent));
        headers.insert(RATE_LIMIT_POLICY, policy);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_compares_weakly_and_reads_lists() {
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
