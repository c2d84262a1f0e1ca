//! `start_date` and `end_date`: a calendar date, or an instant (RFC 3339 date-time) in UTC with milliseconds, the precision of
//! Refold's timestamps.
//!
//! A date and the instant at which it begins or ends in UTC are different questions: in which time zone a date is meant, and
//! whether an end includes its day, is up to the upstream.

use std::fmt;

use jiff::civil::{Date, DateTime, Time, date};
use jiff::{SignedDuration, Timestamp};

use super::dialect::Dialect;
use super::error::QueryError;

const MINUTE: i64 = 60 * 1000;
const DAY: i64 = 24 * 60 * MINUTE;
const EPOCH: Date = date(1970, 1, 1);
const FIRST_YEAR: i16 = 1;
const ACCEPTED: &str = "a date (YYYY-MM-DD) or a date-time with offset (RFC 3339)";

/// The bound of a time range that a value sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Start,
    End,
}

/// One end of a time range, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DateBound {
    /// A calendar date of the years 1 to 9999.
    Day(Date),
    Instant(Milliseconds),
}

/// Milliseconds since 1970 in UTC, within the years 0 to 9999, which RFC 3339 can spell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Milliseconds(i64);

impl DateBound {
    pub(super) fn parse(name: &str, value: &str, edge: Edge) -> Result<Self, QueryError> {
        let bound = if value.len() == 10 {
            day(value).filter(|day| day.year() >= FIRST_YEAR).map(Self::Day)
        } else {
            instant(value, edge).map(Self::Instant)
        };
        bound.ok_or_else(|| QueryError::invalid(name, value, ACCEPTED.to_owned(), None))
    }

    /// The first millisecond of a date at the start of a range, the last one at its end, in UTC.
    pub(super) fn moment(self, edge: Edge) -> Milliseconds {
        match (self, edge) {
            (Self::Day(day), Edge::Start) => Milliseconds(midnight(day)),
            (Self::Day(day), Edge::End) => Milliseconds(midnight(day) + DAY - 1),
            (Self::Instant(instant), _) => instant,
        }
    }

    /// The spelling for the upstream. `V3` has no dates.
    pub(super) fn spelling(self, edge: Edge, dialect: Dialect) -> String {
        match dialect {
            Dialect::Documented => self.to_string(),
            Dialect::V3 => self.moment(edge).to_string(),
        }
    }
}

impl fmt::Display for DateBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::Instant(instant) => instant.fmt(f),
        }
    }
}

impl Milliseconds {
    /// The nearest representable instant. No execution is older than the first or younger than the last one.
    fn clamped(milliseconds: i64) -> Self {
        Self(milliseconds.clamp(midnight(date(0, 1, 1)), midnight(date(9999, 12, 31)) + DAY - 1))
    }

    pub(super) fn timestamp(self) -> Timestamp {
        // The end of jiff's last day lies after its last timestamp.
        Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::MAX)
    }

    fn civil(self) -> DateTime {
        let since_epoch = SignedDuration::from_millis(self.0);
        EPOCH.to_datetime(Time::midnight()).checked_add(since_epoch).expect("the years 0 to 9999 are civil years")
    }
}

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.civil().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

/// Milliseconds from 1970 to the beginning of a day, in UTC.
fn midnight(day: Date) -> i64 {
    day.duration_since(EPOCH).as_hours() / 24 * DAY
}

/// A calendar date, `YYYY-MM-DD`.
fn day(value: &str) -> Option<Date> {
    // jiff parses more spellings than the API documents.
    let plain = value.bytes().enumerate().all(|(index, byte)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    plain.then(|| value.parse().ok()).flatten()
}

/// A date-time (RFC 3339, 5.6), rounded into the range: up at its start, down at its end.
fn instant(value: &str, edge: Edge) -> Option<Milliseconds> {
    let (date, rest) = value.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let mut parts = time.split(':');
    let (hour, minute, second) =
        (two_digits(parts.next()?, 23)?, two_digits(parts.next()?, 59)?, two_digits(parts.next()?, 60)?);
    if parts.next().is_some() {
        return None;
    }
    let (fraction, rest) = match rest.strip_prefix('.') {
        None => (Some(0), rest),
        Some(rest) => {
            let (digits, rest) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?);
            (milliseconds(digits, edge), rest)
        }
    };
    let minute_start = midnight(day(date)?) + (hour * 60 + minute - offset_minutes(rest)?) * MINUTE;
    let milliseconds = match second {
        60 if is_end_of_month(minute_start + MINUTE) => match edge {
            // A leap second follows the last millisecond of its minute.
            Edge::Start => minute_start + MINUTE,
            Edge::End => minute_start + MINUTE - 1,
        },
        60 => return None,
        second => minute_start + second * 1000 + fraction?,
    };
    Some(Milliseconds::clamped(milliseconds))
}

/// True for the instant between two months in UTC: only there are leap seconds.
fn is_end_of_month(milliseconds: i64) -> bool {
    milliseconds % DAY == 0 && Milliseconds::clamped(milliseconds).civil().day() == 1
}

/// The decimal digits of a fraction of a second as milliseconds.
fn milliseconds(digits: &str, edge: Edge) -> Option<i64> {
    let kept = format!("{:0<3}", digits.get(..digits.len().min(3))?);
    let is_cut = digits.bytes().skip(3).any(|digit| digit != b'0');
    let whole: i64 = (!digits.is_empty()).then(|| kept.parse().ok()).flatten()?;
    Some(whole + i64::from(is_cut && edge == Edge::Start))
}

/// The offset from UTC, `Z` or `±HH:MM`, in minutes. An unescaped plus was decoded to a space.
fn offset_minutes(value: &str) -> Option<i64> {
    if matches!(value, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = value.split_at_checked(1)?;
    let (hours, minutes) = rest.split_once(':')?;
    let offset = two_digits(hours, 23)? * 60 + two_digits(minutes, 59)?;
    match sign {
        "+" | " " => Some(offset),
        "-" => Some(-offset),
        _ => None,
    }
}

/// A number of exactly two digits, not above `max`.
fn two_digits(text: &str, max: i64) -> Option<i64> {
    let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten().filter(|number| *number <= max)
}
