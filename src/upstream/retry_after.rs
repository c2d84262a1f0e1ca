//! `Retry-After` of Refold's responses (RFC 9110, 10.2.3): a number of seconds, or a date in any of the three forms of RFC 9110,
//! 5.6.7.
//!
//! A date is read by this machine's clock, which is assumed to be right: one that is past gives the shortest pause, and no
//! value gives more than `upstream.max_retry_after`.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use jiff::civil::{Date, Time};
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// The pause after a response without a valid `Retry-After`, and the minimum if there is one.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Names of months in dates.
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads `Retry-After` within the configured bound.
#[derive(Clone, Debug)]
pub struct RetryAfter {
    clock: Clock,
    longest: Duration,
}

impl RetryAfter {
    /// Makes a reader that returns at most `longest`, or one second if that is longer.
    #[must_use]
    pub fn new(clock: Clock, longest: Duration) -> Self {
        Self { clock, longest: longest.max(SHORTEST_PAUSE) }
    }

    /// Returns the pause that a response asks for, within bounds.
    #[must_use]
    pub fn pause(&self, headers: &HeaderMap) -> Duration {
        let value = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let pause = value.and_then(|value| parse(value.trim(), self.clock.wall()));
        pause.unwrap_or(SHORTEST_PAUSE).clamp(SHORTEST_PAUSE, self.longest)
    }
}

/// Parses a value; `None` if it is neither a number of seconds nor a date.
fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is a very long time.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    // A date that is past asks for no pause.
    Some(http_date(value, now)?.duration_since(now).try_into().unwrap_or(Duration::ZERO))
}

/// Parses an HTTP date. The name of the day is not compared with the date: recipients of dates are to be robust (RFC 9110,
/// 5.6.7).
fn http_date(value: &str, now: Timestamp) -> Option<Timestamp> {
    let mut fields = [""; 6];
    let mut count = 0;
    for field in value.split([' ', ',', '-']).filter(|field| !field.is_empty()) {
        *fields.get_mut(count)? = field;
        count += 1;
    }
    // "Sun, 06 Nov 1994 08:49:37 GMT" and "Sunday, 06-Nov-94 08:49:37 GMT", or "Sun Nov  6 08:49:37 1994"
    let ((6, [_, day, month, year, time, "GMT"]) | (5, [_, month, day, time, year, _])) = (count, fields) else {
        return None;
    };
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? + 1;
    let year = match year.len() {
        4 => digits(year)?,
        2 => full_year(digits(year)?, now),
        _ => return None,
    };
    let date = Date::new(year, i8::try_from(month).ok()?, i8::try_from(digits(day)?).ok()?).ok()?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let (hour, minute, second) = (digits(hour)?, digits(minute)?, digits(second)?);
    // Second 60 is a leap second.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    // The last day of the year 9999 is beyond the last timestamp.
    let midnight = Offset::UTC.to_timestamp(date.to_datetime(Time::midnight())).unwrap_or(Timestamp::MAX);
    Some(midnight.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}

/// Completes a year of two digits: one that appears to be more than 50 years in the future is in the past.
fn full_year(last_digits: i16, now: Timestamp) -> i16 {
    let this_year = Offset::UTC.to_datetime(now).year();
    let year = this_year - this_year % 100 + last_digits;
    if year > this_year + 50 { year - 100 } else { year }
}

/// Parses a number without a sign.
fn digits(text: &str) -> Option<i16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_of_a_date_are_read() {
        let now = "2026-03-20T12:00:00Z".parse().expect("a timestamp");
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("1994-11-06T08:49:37Z")),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some("1994-11-06T08:49:37Z")),
            ("Sun Nov  6 08:49:37 1994", Some("1994-11-06T08:49:37Z")),
            ("Wednesday, 01-Jan-76 00:00:00 GMT", Some("2076-01-01T00:00:00Z")),
            ("Saturday, 01-Jan-77 00:00:00 GMT", Some("1977-01-01T00:00:00Z")),
            ("Tue, 31 Dec 2030 23:59:60 GMT", Some("2031-01-01T00:00:00Z")),
            ("Thu, 29 Feb 2028 00:00:00 GMT", Some("2028-02-29T00:00:00Z")),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some("9999-12-30T22:00:00.999999999Z")),
            ("Sun, 29 Feb 2026 00:00:00 GMT", None),
            ("Sun, 06 Nov 1994 24:00:00 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37:00 GMT", None),
            ("Sun, 06 Novem 1994 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 99999 Nov 1994 08:49:37 GMT", None),
            ("1994-11-06T08:49:37Z", None),
            ("", None),
        ] {
            let expected = expected.map(|time| time.parse::<Timestamp>().expect("a timestamp"));
            assert_eq!(http_date(text, now), expected, "{text}");
        }
    }

    #[test]
    fn a_pause_lies_between_one_second_and_the_bound() {
        let clock = Clock::manual("2026-03-20T12:00:00Z".parse().expect("a timestamp"));
        let reader = RetryAfter::new(clock, Duration::from_mins(10));
        for (value, seconds) in [
            ("7", 7),
            ("600", 600),
            ("601", 600),
            ("18446744073709551616", 600),
            ("0", 1),
            ("+7", 1),
            ("7.5", 1),
            ("", 1),
            ("Fri, 20 Mar 2026 12:00:30 GMT", 30),
            ("Fri, 20 Mar 2026 11:00:00 GMT", 1),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().expect("a header value"))]);
            assert_eq!(reader.pause(&headers), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(reader.pause(&HeaderMap::new()), Duration::from_secs(1));
    }
}
