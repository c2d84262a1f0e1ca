//! The headers of an answer with an entry. Their names are the same each time, so they are put together once for the
//! process; an answer takes a copy and fills in the values. Part of the hit path.

use std::sync::LazyLock;

use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, VARY};

use super::{CACHE_STATUS, Facts, JSON, RATE_LIMIT, RATE_LIMIT_POLICY, VARY_BY_CALLER, X_REQUEST_ID, values};
use crate::cache::Entry;
use crate::clock::Moment;

/// What a value says.
#[derive(Clone, Copy)]
enum Field {
    RequestId,
    RateLimit,
    RateLimitPolicy,
    Age,
    CacheStatus,
    Etag,
    CacheControl,
    /// The same in every answer.
    Fixed,
}

/// The headers, and what the value at each place says.
struct Prepared {
    headers: HeaderMap,
    fields: Vec<Field>,
}

static PREPARED: LazyLock<Prepared> = LazyLock::new(|| {
    let later = || HeaderValue::from_static("");
    let all: [(HeaderName, HeaderValue, Field); 9] = [
        (X_REQUEST_ID, later(), Field::RequestId),
        (RATE_LIMIT, later(), Field::RateLimit),
        (RATE_LIMIT_POLICY, later(), Field::RateLimitPolicy),
        (AGE, later(), Field::Age),
        (CACHE_STATUS, later(), Field::CacheStatus),
        (ETAG, later(), Field::Etag),
        (CACHE_CONTROL, later(), Field::CacheControl),
        (VARY, VARY_BY_CALLER, Field::Fixed),
        (CONTENT_TYPE, JSON, Field::Fixed),
    ];
    let headers: HeaderMap = all.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
    // A copy has them in the order of the original, whatever that is.
    let field =
        |name: &HeaderName| all.iter().find(|(other, ..)| other == name).map_or(Field::Fixed, |(.., field)| *field);
    let fields = headers.keys().map(field).collect();
    Prepared { headers, fields }
});

/// The headers of an answer with an entry whose body in the chosen coding has this tag.
pub(super) fn headers(facts: &mut Facts, entry: &Entry, etag: &HeaderValue, now: Moment) -> HeaderMap {
    let (spent, mut policy) = facts.budget.take().unzip();
    let mut headers = PREPARED.headers.clone();
    for (value, field) in headers.values_mut().zip(&PREPARED.fields) {
        *value = match field {
            Field::RequestId => facts.request_id.header(),
            Field::RateLimit => match spent {
                Some(spent) => values::rate_limit(spent),
                None => continue,
            },
            Field::RateLimitPolicy => match policy.take() {
                Some(policy) => policy,
                None => continue,
            },
            Field::Age => values::age(entry.age(now)),
            Field::CacheStatus => values::cache_status(facts.cache, entry, now),
            Field::Etag => etag.clone(),
            Field::CacheControl => values::cache_control(entry),
            Field::Fixed => continue,
        };
    }
    if spent.is_none() {
        headers.remove(RATE_LIMIT);
        headers.remove(RATE_LIMIT_POLICY);
    }
    headers
}
