//! Names and values of response headers that several responses share.

use http::{HeaderName, HeaderValue};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// `Vary` of cached responses: each field that identifies the caller selects the response.
pub(super) const VARY_BY_CALLER: HeaderValue =
    HeaderValue::from_static("accept-encoding, authorization, x-api-key, linked_account_id, linked-account-id");
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"postern\"");
