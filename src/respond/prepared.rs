//! The header map of a response with an entry. The names are always the same, so the map is built once for the process;
//! each response takes a copy and fills in the values. Part of the hit path.

use std::sync::LazyLock;

use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, VARY};

use super::context::ResponseContext;
use super::fields::{CACHE_STATUS, JSON, RATE_LIMIT, RATE_LIMIT_POLICY, VARY_BY_CALLER, X_REQUEST_ID};
use super::values;
use crate::cache::Entry;
use crate::clock::Moment;

/// The origin of a header's value.
#[derive(Clone, Copy)]
enum ValueOf {
    RequestId,
    RateLimit,
    RateLimitPolicy,
    Age,
    CacheStatus,
    Etag,
    CacheControl,
    /// The same value in every response.
    Fixed,
}

/// The header map with placeholders, and the origin of each value in the map's order.
struct PreparedHeaders {
    headers: HeaderMap,
    values: Vec<ValueOf>,
}

static PREPARED: LazyLock<PreparedHeaders> = LazyLock::new(|| {
    let placeholder = || HeaderValue::from_static("");
    let all: [(HeaderName, HeaderValue, ValueOf); 9] = [
        (X_REQUEST_ID, placeholder(), ValueOf::RequestId),
        (RATE_LIMIT, placeholder(), ValueOf::RateLimit),
        (RATE_LIMIT_POLICY, placeholder(), ValueOf::RateLimitPolicy),
        (AGE, placeholder(), ValueOf::Age),
        (CACHE_STATUS, placeholder(), ValueOf::CacheStatus),
        (ETAG, placeholder(), ValueOf::Etag),
        (CACHE_CONTROL, placeholder(), ValueOf::CacheControl),
        (VARY, VARY_BY_CALLER, ValueOf::Fixed),
        (CONTENT_TYPE, JSON, ValueOf::Fixed),
    ];
    let headers: HeaderMap = all.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
    // A copy of the map iterates in the same order.
    let value_of =
        |name: &HeaderName| all.iter().find(|(other, ..)| other == name).map_or(ValueOf::Fixed, |(.., value)| *value);
    let values = headers.keys().map(value_of).collect();
    PreparedHeaders { headers, values }
});

/// The headers of a response with an entry; `etag` is the entity tag of the selected representation.
pub(super) fn headers(context: &mut ResponseContext, entry: &Entry, etag: &HeaderValue, now: Moment) -> HeaderMap {
    let mut budgets = context.budgets.take();
    let mut headers = PREPARED.headers.clone();
    for (value, value_of) in headers.values_mut().zip(&PREPARED.values) {
        *value = match value_of {
            ValueOf::RequestId => context.request_id.header(),
            ValueOf::RateLimit => match &budgets {
                Some(budgets) => values::rate_limit(budgets),
                None => continue,
            },
            ValueOf::RateLimitPolicy => match &mut budgets {
                // Moved, since a clone has a reference count to update.
                Some(budgets) => std::mem::replace(&mut budgets.policies, HeaderValue::from_static("")),
                None => continue,
            },
            ValueOf::Age => values::age(entry.age(now)),
            ValueOf::CacheStatus => values::cache_status(context.cache, entry, now),
            ValueOf::Etag => etag.clone(),
            ValueOf::CacheControl => values::cache_control(context.cache, entry),
            ValueOf::Fixed => continue,
        };
    }
    if budgets.is_none() {
        headers.remove(RATE_LIMIT);
        headers.remove(RATE_LIMIT_POLICY);
    }
    headers
}
