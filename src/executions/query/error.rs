//! Errors for rejected queries, with messages for the client.

use std::fmt;

/// Characters of the client's own text that a message repeats at most.
const MAX_QUOTED: usize = 64;

/// The reason for rejecting a query. The message names the parameter, its value and the accepted values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A value that the parameter does not accept.
    #[error("{parameter}: `{value}` is not accepted; use {accepted}{suggestion}")]
    Invalid {
        /// The parameter's name.
        parameter: String,
        /// The value, shortened.
        value: String,
        /// A description of the accepted values.
        accepted: String,
        /// The accepted value that was probably meant.
        suggestion: Suggestion,
    },
    /// A parameter that the API does not have.
    #[error("`{parameter}` is not a parameter of this resource{suggestion}; it has {known}")]
    Unknown {
        /// The parameter's name, shortened.
        parameter: String,
        /// The names of the resource's parameters.
        known: String,
        /// The name that was probably meant.
        suggestion: Suggestion,
    },
    /// A parameter given twice with different values.
    #[error("{parameter} is there twice with different values; send it once")]
    Duplicate {
        /// The parameter's name, shortened.
        parameter: String,
    },
    /// A time range that ends before it begins.
    #[error("start_date ({start}) is after end_date ({end})")]
    DateRange {
        /// Begin of the range: a date, or an instant in UTC.
        start: String,
        /// End of the range: a date, or an instant in UTC.
        end: String,
    },
    /// A malformed escape, or bytes that are not UTF-8.
    #[error("{parameter}: `{value}` is not percent-encoded UTF-8")]
    Malformed {
        /// The parameter's name, shortened.
        parameter: String,
        /// The raw value, shortened.
        value: String,
    },
}

/// An optional "did you mean" clause of a message.
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
        Self::Invalid { parameter: parameter.to_owned(), value: quoted(value), accepted, suggestion }
    }

    #[cold]
    pub(super) fn unknown(parameter: &str, known: &[&'static str], suggestion: Option<&'static str>) -> Self {
        Self::Unknown {
            parameter: quoted(parameter),
            known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            suggestion: Suggestion(suggestion),
        }
    }

    #[cold]
    pub(super) fn duplicate(parameter: &str) -> Self {
        Self::Duplicate { parameter: quoted(parameter) }
    }

    #[cold]
    pub(super) fn date_range(start: &impl fmt::Display, end: &impl fmt::Display) -> Self {
        Self::DateRange { start: start.to_string(), end: end.to_string() }
    }

    #[cold]
    pub(super) fn malformed_name(name: &str) -> Self {
        Self::Malformed { parameter: "a parameter's name".to_owned(), value: quoted(name) }
    }

    #[cold]
    pub(super) fn malformed_value(parameter: &str, value: &str) -> Self {
        Self::Malformed { parameter: quoted(parameter), value: quoted(value) }
    }
}

/// The client's text, shortened, with control characters escaped so that no terminal or log interprets them.
fn quoted(text: &str) -> String {
    let mut out: String = text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        out.push('…');
    }
    out
}
