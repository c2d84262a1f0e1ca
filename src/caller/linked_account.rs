//! The linked account that a request names, and header fields that must not be repeated.

use http::header::{HeaderName, HeaderValue};

use crate::error::{ClientError, Reason};
use crate::request::headers::{FieldValues, LINKED_ACCOUNT_ID, LINKED_ACCOUNT_ID_ALIAS, RequestHeaders};

/// Maximum length of a linked account's id, in bytes.
const MAX_LENGTH: usize = 256;

/// The reason why an id of a linked account is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidId {
    /// HTTP/1.1 trims spaces around a field value and HTTP/2 does not, so one account would have two ids.
    #[error("linked_account_id begins or ends with a space")]
    Padded,
    /// The id is longer than [`MAX_LENGTH`].
    #[error("linked_account_id is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("linked_account_id is not UTF-8")]
    NotUtf8,
    #[error("linked_account_id has characters that a header can't have")]
    NotHeaderValue,
}

/// Returns the value of a field that may be sent once. A repeated field is ambiguous, since parsers differ on which value
/// counts.
pub(super) fn single<'a>(values: &FieldValues<'a>, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ClientError> {
    values.single().map_err(|_| ambiguous(format!("{name} is repeated; send it once")))
}

/// Creates the error for credentials that can be read in two ways.
pub(super) fn ambiguous(message: impl Into<std::borrow::Cow<'static, str>>) -> ClientError {
    ClientError::new(Reason::AmbiguousCredentials, message)
}

/// Returns the linked account that a request names.
///
/// # Errors
/// 400 if it names none, or see [`optional`].
pub(super) fn required<'a>(fields: &RequestHeaders<'a>) -> Result<&'a str, ClientError> {
    optional(fields)?.ok_or_else(ClientError::no_linked_account)
}

/// Returns the linked account that a request names, if it names one, in either of the two header fields.
///
/// # Errors
/// 400 if it names more than one, or if the id is invalid.
pub(super) fn optional<'a>(fields: &RequestHeaders<'a>) -> Result<Option<&'a str>, ClientError> {
    let named = single(&fields.linked_account, &LINKED_ACCOUNT_ID)?;
    let value = match (named, single(&fields.linked_account_alias, &LINKED_ACCOUNT_ID_ALIAS)?) {
        (Some(_), Some(_)) => {
            return Err(ambiguous("the request has both linked_account_id and linked-account-id; send one of them"));
        }
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Ok(None),
    };
    if value.is_empty() {
        return Ok(None);
    }
    parse(value.as_bytes()).map(Some).map_err(|error| ClientError::new(Reason::MalformedRequest, error.to_string()))
}

/// Checks an id that comes from a token instead of a header: it must be a valid header value as well, since upstream requests
/// carry it in one.
pub(super) fn check(id: &str) -> Result<&str, InvalidId> {
    if HeaderValue::from_bytes(id.as_bytes()).is_err() {
        return Err(InvalidId::NotHeaderValue);
    }
    parse(id.as_bytes())
}

fn parse(id: &[u8]) -> Result<&str, InvalidId> {
    if id.trim_ascii().len() != id.len() {
        return Err(InvalidId::Padded);
    }
    if id.len() > MAX_LENGTH {
        return Err(InvalidId::TooLong);
    }
    std::str::from_utf8(id).map_err(|_| InvalidId::NotUtf8)
}
