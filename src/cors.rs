//! Browser pages of other origins (CORS, the Fetch standard, 3.2): which may ask, what they are told beforehand, and which
//! response headers they may read.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};

use crate::config;

/// What a page may send beside what every page may.
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "authorization, x-api-key, linked_account_id, linked-account-id, content-type, if-none-match, cache-control, traceparent",
);
/// What a page may read beside what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, ratelimit, ratelimit-policy, retry-after, cache-status, age, etag, link, location",
);
const ORIGIN_NAME: HeaderValue = HeaderValue::from_static("origin");

/// Who may ask from a browser.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<HeaderValue>,
    anybody: bool,
    max_age: HeaderValue,
}

/// An origin that may ask, as it named itself.
#[derive(Clone, Debug)]
pub struct AllowedOrigin(HeaderValue);

impl Cors {
    /// Those that the configuration names.
    #[must_use]
    pub fn new(config: &config::CorsConfig) -> Self {
        Self {
            // The configuration has made sure that they are visible ASCII.
            origins: config.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
            anybody: config.origins.iter().any(|origin| origin == "*"),
            max_age: HeaderValue::from(config.max_age.as_secs()),
        }
    }

    /// The origin that a request names, if it may ask. Browsers send scheme and host in lower case.
    #[must_use]
    pub fn allowed(&self, request: &HeaderMap) -> Option<AllowedOrigin> {
        let origin = request.get(ORIGIN)?;
        (self.anybody || self.origins.contains(origin)).then(|| AllowedOrigin(origin.clone()))
    }

    /// Puts the answer to a preflight in: what may be done and sent.
    pub fn answer_preflight(&self, methods: &str, headers: &mut HeaderMap) {
        if let Ok(methods) = HeaderValue::from_str(methods) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

/// Whether a request only asks what it may do.
#[must_use]
pub fn is_preflight(request: &HeaderMap) -> bool {
    request.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Lets a page read an answer; the answer of a gateway that knows of pages depends on who asks.
pub fn expose(origin: Option<&AllowedOrigin>, headers: &mut HeaderMap) {
    headers.append(VARY, ORIGIN_NAME);
    if let Some(AllowedOrigin(origin)) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}
