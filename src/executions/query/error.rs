//! Why a query is refused, in words for the caller.

use std::fmt;

use super::date::Milliseconds;

/// Most characters of what the caller sent that are sent back.
const SHOWN: usize = 64;

/// Why a query is refused. The message names the parameter, the value and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A value that is not accepted.
    #[error("{parameter}: `{value}` is not accepted; use {accepted}{suggestion}")]
    Invalid {
        /// Its name.
        parameter: String,
        /// Its value, shortened.
        value: String,
        /// What would be.
        accepted: String,
        /// What was probably meant.
        suggestion: Suggestion,
    },
    /// A parameter that the API does not have.
    #[error("`{parameter}` is not a parameter of this resource{suggestion}; it has {known}")]
    Unknown {
        /// Its name, shortened.
        parameter: String,
        /// Those there are.
        known: String,
        /// What was probably meant.
        suggestion: Suggestion,
    },
    /// A parameter twice, with different values.
    #[error("{parameter} is there twice with different values; send it once")]
    Duplicate {
        /// Its name, shortened.
        parameter: String,
    },
    /// A range that ends before it begins.
    #[error("start_date ({start}) is after end_date ({end})")]
    DateRange {
        /// Where it begins, in UTC.
        start: String,
        /// Where it ends, in UTC.
        end: String,
    },
    /// An escape that is broken, or bytes that are not UTF-8.
    #[error("{parameter}: `{value}` is not percent-encoded UTF-8")]
    Malformed {
        /// Its name, shortened.
        parameter: String,
        /// Its value as it came, shortened.
        value: String,
    },
}

/// "Did you mean", or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suggestion(Option<&'static str>);

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " (did you mean `{name}`?)"),
            None => Ok(()),
        }
    }
}

impl QueryError {
    #[cold]
    pub(super) fn invalid(parameter: &str, value: &str, accepted: String, suggestion: Option<&'static str>) -> Self {
        let suggestion = Suggestion(suggestion);
        Self::Invalid { parameter: parameter.to_owned(), value: shown(value), accepted, suggestion }
    }

    #[cold]
    pub(super) fn unknown(parameter: &str, known: &[&'static str], suggestion: Option<&'static str>) -> Self {
        Self::Unknown {
            parameter: shown(parameter),
            known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            suggestion: Suggestion(suggestion),
        }
    }

    #[cold]
    pub(super) fn duplicate(parameter: &str) -> Self {
        Self::Duplicate { parameter: shown(parameter) }
    }

    #[cold]
    pub(super) fn date_range(start: Milliseconds, end: Milliseconds) -> Self {
        Self::DateRange { start: start.to_string(), end: end.to_string() }
    }

    #[cold]
    pub(super) fn malformed_name(name: &str) -> Self {
        Self::Malformed { parameter: "a parameter's name".to_owned(), value: shown(name) }
    }

    #[cold]
    pub(super) fn malformed_value(parameter: &str, value: &str) -> Self {
        Self::Malformed { parameter: shown(parameter), value: shown(value) }
    }
}

/// What the caller sent, short enough and with nothing in it that a terminal or a log would act on.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}
