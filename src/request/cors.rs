//! CORS (Fetch standard, 3.2): allowed origins, preflight responses, and the response headers that pages may read.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};

use crate::config;

/// Request headers that a page may send in addition to the CORS-safelisted ones.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, x-api-key, linked_account_id, linked-account-id, content-type, if-none-match, cache-control, traceparent",
);
/// Response headers that a page may read in addition to the CORS-safelisted ones.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "x-request-id, ratelimit, ratelimit-policy, retry-after, cache-status, age, etag, link, location",
);
const ORIGIN_NAME: HeaderValue = HeaderValue::from_static("origin");

/// The configured CORS policy.
#[derive(Debug)]
pub struct CorsPolicy {
    origins: Vec<HeaderValue>,
    any_origin: bool,
    max_age: HeaderValue,
}

/// The allowed origin of a request, as its `Origin` header spells it.
#[derive(Clone, Debug)]
pub struct AllowedOrigin(HeaderValue);

impl CorsPolicy {
    /// The policy of a configuration.
    #[must_use]
    pub fn new(config: &config::CorsConfig) -> Self {
        Self {
            origins: config.origins.iter().map(|origin| header_value(origin)).collect(),
            any_origin: config.origins.iter().any(|origin| origin == "*"),
            max_age: HeaderValue::from(config.max_age.as_secs()),
        }
    }

    /// The origin of a request, if it is allowed. Browsers send scheme and host in lower case.
    #[must_use]
    pub fn allowed(&self, request: &HeaderMap) -> Option<AllowedOrigin> {
        let origin = request.get(ORIGIN)?;
        (self.any_origin || self.origins.contains(origin)).then(|| AllowedOrigin(origin.clone()))
    }

    /// Adds the headers of a preflight response: allowed methods and request headers, and how long browsers may cache them.
    pub fn add_preflight_headers(&self, methods: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

fn header_value(origin: &str) -> HeaderValue {
    HeaderValue::from_str(origin).expect("the configuration only accepts origins of visible ASCII")
}

/// True for a preflight request.
#[must_use]
pub fn is_preflight(request: &HeaderMap) -> bool {
    request.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Adds the headers that let a page read a response. A response without an allowed origin needs `Vary: origin` too, since
/// the response to an allowed origin differs.
pub fn add_headers(origin: Option<&AllowedOrigin>, headers: &mut HeaderMap) {
    headers.append(VARY, ORIGIN_NAME);
    if let Some(AllowedOrigin(origin)) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
}
