//! `Retry-After`, HTTP dates, and the dates of queries.

#![no_main]

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use postern::clock::Clock;
use postern::executions::{ListQuery, UnknownParameters};
use postern::upstream::RetryAfter;

const LONGEST: Duration = Duration::from_secs(600);
/// [`postern_fuzz::NOW`] in seconds since 1970.
const NOW: u64 = 1_774_008_000;

fuzz_target!(|data: &[u8]| {
    let clock = Clock::manual(postern_fuzz::NOW.parse().expect("a timestamp"));
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value);
        let pause = RetryAfter::new(clock, LONGEST).pause(&headers);
        assert!((Duration::from_secs(1)..=LONGEST).contains(&pause), "{pause:?}");
        // Another parser of dates. It reads years of two digits otherwise.
        let text = std::str::from_utf8(data).unwrap_or_default().trim();
        if let Ok(date) = httpdate::parse_http_date(text)
            && data.is_ascii()
            && !text.contains('-')
        {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
            let expected = date.duration_since(now).unwrap_or_default().clamp(Duration::from_secs(1), LONGEST);
            assert_eq!(pause, expected, "{text}");
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = postern_fuzz::policy(UnknownParameters::Reject);
    for name in ["start_date", "end_date"] {
        let query = format!("{name}={}", utf8_percent_encode(text, NON_ALPHANUMERIC));
        if let Ok(query) = ListQuery::parse(Some(&query), &policy) {
            let _ = query.closing_time();
            assert_eq!(ListQuery::parse(Some(&query.to_string()), &policy), Ok(query));
        }
    }
});
