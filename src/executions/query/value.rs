//! Parameter values other than dates: numbers, the enumerations in each of the vendor's spellings, lists.

use super::dialect::Dialect;
use super::error::QueryError;
use crate::suggest::suggest;

/// The largest integer that a JavaScript client reads exactly.
const MAX_PAGE: u64 = (1 << 53) - 1;

/// The values of `status`. The value "all" is represented by the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ExecutionStatus {
    Completed,
    Errored,
    Running,
    Stopped,
    Stopping,
    TimedOut,
}

/// The values of `execution_source`. The value "all" is represented by the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ExecutionSource {
    Event,
    Schedule,
    ApiCall,
}

/// The values of `execution_type`. The value "all" is represented by the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ExecutionType {
    Sync,
    Async,
}

impl ExecutionStatus {
    const ACCEPTED: [&'static str; 7] = ["All", "COMPLETED", "ERRORED", "RUNNING", "STOPPED", "STOPPING", "TIMED_OUT"];

    pub(super) fn parse(value: &str) -> Result<Option<Self>, QueryError> {
        match NormalizedValue::new(value).as_bytes() {
            b"ALL" => Ok(None),
            b"COMPLETED" => Ok(Some(Self::Completed)),
            b"ERRORED" => Ok(Some(Self::Errored)),
            b"RUNNING" => Ok(Some(Self::Running)),
            b"STOPPED" => Ok(Some(Self::Stopped)),
            b"STOPPING" => Ok(Some(Self::Stopping)),
            b"TIMED_OUT" => Ok(Some(Self::TimedOut)),
            _ => Err(not_among("status", value, &Self::ACCEPTED)),
        }
    }

    pub(super) fn spelling(self) -> &'static str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Errored => "ERRORED",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
            Self::Stopping => "STOPPING",
            Self::TimedOut => "TIMED_OUT",
        }
    }
}

impl ExecutionSource {
    const ACCEPTED: [&'static str; 4] = ["All", "Event", "Schedule", "API Call"];

    pub(super) fn parse(value: &str) -> Result<Option<Self>, QueryError> {
        match NormalizedValue::new(value).as_bytes() {
            b"ALL" => Ok(None),
            b"EVENT" => Ok(Some(Self::Event)),
            b"SCHEDULE" => Ok(Some(Self::Schedule)),
            b"API_CALL" => Ok(Some(Self::ApiCall)),
            _ => Err(not_among("execution_source", value, &Self::ACCEPTED)),
        }
    }

    pub(super) fn spelling(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Event, _) => "Event",
            (Self::Schedule, Dialect::Documented) => "Schedule",
            (Self::Schedule, Dialect::V3) => "SCHEDULE",
            (Self::ApiCall, Dialect::Documented) => "API Call",
            (Self::ApiCall, Dialect::V3) => "API_CALL",
        }
    }
}

impl ExecutionType {
    const ACCEPTED: [&'static str; 3] = ["All", "SYNC", "ASYNC"];

    pub(super) fn parse(value: &str) -> Result<Option<Self>, QueryError> {
        match NormalizedValue::new(value).as_bytes() {
            b"ALL" => Ok(None),
            b"SYNC" => Ok(Some(Self::Sync)),
            b"ASYNC" => Ok(Some(Self::Async)),
            _ => Err(not_among("execution_type", value, &Self::ACCEPTED)),
        }
    }

    pub(super) fn spelling(self) -> &'static str {
        match self {
            Self::Sync => "SYNC",
            Self::Async => "ASYNC",
        }
    }
}

/// The values of `sortAsc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SortOrder {
    Ascending,
    Descending,
}

impl SortOrder {
    pub(super) fn parse(value: &str) -> Result<Self, QueryError> {
        match NormalizedValue::new(value).as_bytes() {
            b"TRUE" => Ok(Self::Ascending),
            b"FALSE" => Ok(Self::Descending),
            _ => Err(not_among("sortAsc", value, &["true", "false"])),
        }
    }

    pub(super) fn spelling(self) -> &'static str {
        match self {
            Self::Ascending => "true",
            Self::Descending => "false",
        }
    }
}

/// A value in upper case with `_` for `-` and space. On the stack, since no accepted value is longer.
struct NormalizedValue {
    text: [u8; 16],
    length: usize,
}

impl NormalizedValue {
    fn new(value: &str) -> Self {
        let mut normalized = Self { text: [0; 16], length: 0 };
        // A longer value stays empty and equals no accepted one.
        if value.len() <= normalized.text.len() {
            normalized.length = value.len();
            for (out, byte) in normalized.text.iter_mut().zip(value.bytes()) {
                *out = if matches!(byte, b'-' | b' ') { b'_' } else { byte.to_ascii_uppercase() };
            }
        }
        normalized
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

pub(super) fn page(value: &str) -> Result<u64, QueryError> {
    digits(value)
        .filter(|page| (1..=MAX_PAGE).contains(page))
        .ok_or_else(|| QueryError::invalid("page", value, "a whole number from 1".to_owned(), None))
}

pub(super) fn limit(value: &str, max: u32) -> Result<u32, QueryError> {
    digits(value)
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|limit| (1..=max).contains(limit))
        .ok_or_else(|| QueryError::invalid("limit", value, format!("a whole number from 1 to {max}"), None))
}

/// Parses digits only; the standard library's parser would accept a sign.
fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

/// Parses a comma-separated list to a sorted list without duplicates.
pub(super) fn list(value: &str) -> Vec<String> {
    let mut items: Vec<String> =
        value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn not_among(name: &str, value: &str, accepted: &[&'static str]) -> QueryError {
    let (last, others) = accepted.split_last().unwrap_or((&"", &[]));
    let suggestion = suggest(&value.replace(['-', ' '], "_"), accepted.iter().copied());
    QueryError::invalid(name, value, format!("{} or {last}", others.join(", ")), suggestion)
}
