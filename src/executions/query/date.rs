//! `start_date` and `end_date`: a calendar date or an RFC 3339 date-time, converted to milliseconds in UTC, the precision of
//! Refold's timestamps.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::dialect::Dialect;
use super::error::QueryError;

const DAY: i64 = 24 * 60 * 60 * 1000;
const ACCEPTED: &str = "a date (YYYY-MM-DD) or a date-time with offset (RFC 3339)";

/// The bound of a time range that a date sets. As the start, a bare date stands for its first millisecond; as the end, for
/// its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Start,
    End,
}

/// Milliseconds since 1970 in UTC, not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Milliseconds(i64);

pub(super) fn parse(name: &str, value: &str, edge: Edge) -> Result<Milliseconds, QueryError> {
    let found = if value.len() == 10 { date(value, edge) } else { date_time(value, edge) };
    found
        .filter(|milliseconds| milliseconds.0 >= 0)
        .ok_or_else(|| QueryError::invalid(name, value, ACCEPTED.to_owned(), None))
}

fn date(value: &str, edge: Edge) -> Option<Milliseconds> {
    // jiff parses more spellings than the API documents.
    let plain = value.bytes().enumerate().all(|(index, byte)| match index {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let date: Date = plain.then(|| value.parse().ok()).flatten()?;
    let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_millisecond();
    Some(Milliseconds(match edge {
        Edge::Start => midnight,
        Edge::End => midnight + DAY - 1,
    }))
}

fn date_time(value: &str, edge: Edge) -> Option<Milliseconds> {
    let mut text = value.as_bytes().to_vec();
    let plain = text.iter().enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => *byte == b':',
        0..19 => byte.is_ascii_digit(),
        _ => true,
    });
    if !plain || text.len() < 20 {
        return None;
    }
    text[10] = b'T';
    if !matches!(text.last(), Some(b'Z' | b'z')) {
        // `±HH:MM`; an unescaped plus was decoded to a space.
        let sign = text.len() - 6;
        let (head, offset) = text.split_at_mut_checked(sign)?;
        if !(head.len() >= 19 && offset[3] == b':' && matches!(offset[0], b'+' | b'-' | b' ')) {
            return None;
        }
        if offset[0] == b' ' {
            offset[0] = b'+';
        }
    }
    let timestamp: Timestamp = std::str::from_utf8(&text).ok()?.parse().ok()?;
    let nanoseconds = timestamp.as_nanosecond();
    // Rounds into the range: up at its start, down at its end.
    let milliseconds = match edge {
        Edge::Start => -(-nanoseconds).div_euclid(1_000_000),
        Edge::End => nanoseconds.div_euclid(1_000_000),
    };
    i64::try_from(milliseconds).ok().map(Milliseconds)
}

impl Milliseconds {
    pub(super) fn timestamp(self) -> Timestamp {
        // The end of jiff's last day lies after its last timestamp.
        Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::MAX)
    }

    /// The spelling for the upstream: a bare date if the dialect has them and one stands for this millisecond, otherwise a
    /// date-time.
    pub(super) fn spelling(self, edge: Edge, dialect: Dialect) -> String {
        let whole_day = match edge {
            Edge::Start => self.0 % DAY == 0,
            Edge::End => self.0 % DAY == DAY - 1,
        };
        if whole_day && dialect == Dialect::Documented {
            self.timestamp().strftime("%Y-%m-%d").to_string()
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}
