//! The linked account that a request names.

use http::header::{HeaderName, HeaderValue};

use super::ambiguous;
use crate::error::{ClientError, Reason};
use crate::request::headers::{FieldValues, LINKED_ACCOUNT_ID, LINKED_ACCOUNT_ID_ALIAS, RequestHeaders};

/// Longest linked account id that is accepted, in bytes.
const MAX_LINKED_ACCOUNT_ID: usize = 256;

/// The one value of a field: twice is refused, since readers differ on which of them counts.
pub(super) fn single<'a>(values: &FieldValues<'a>, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ClientError> {
    values.single().map_err(|_| ambiguous(format!("{name} is there twice; send it once")))
}

/// The linked account that a request has to name.
pub(super) fn one_linked_account<'a>(fields: &RequestHeaders<'a>) -> Result<&'a str, ClientError> {
    linked_account(fields)?.ok_or_else(ClientError::no_linked_account)
}

/// The linked account that a request names, in either spelling.
pub(super) fn linked_account<'a>(fields: &RequestHeaders<'a>) -> Result<Option<&'a str>, ClientError> {
    let named = single(&fields.linked_account, &LINKED_ACCOUNT_ID)?;
    let value = match (named, single(&fields.linked_account_alias, &LINKED_ACCOUNT_ID_ALIAS)?) {
        (Some(_), Some(_)) => {
            return Err(ambiguous("linked_account_id and linked-account-id are both there; send one of them"));
        }
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Ok(None),
    };
    if value.is_empty() {
        return Ok(None);
    }
    account(value.as_bytes()).map(Some).map_err(|why| ClientError::new(Reason::MalformedRequest, why))
}

/// The id of a linked account that no header has brought: one that can go upstream in a header as it is, and as one name
/// alone.
pub(super) fn checked_account(id: &str) -> Result<&str, String> {
    if HeaderValue::from_bytes(id.as_bytes()).is_err() {
        return Err("linked_account_id has characters that a header can't have".to_owned());
    }
    account(id.as_bytes())
}

/// The id of a linked account in a header.
fn account(id: &[u8]) -> Result<&str, String> {
    // HTTP/2 lets it pass, HTTP/1.1 cuts it off: one account would have two names.
    if id.trim_ascii().len() != id.len() {
        return Err("linked_account_id begins or ends with a space".to_owned());
    }
    if id.len() > MAX_LINKED_ACCOUNT_ID {
        return Err(format!("linked_account_id is longer than {MAX_LINKED_ACCOUNT_ID} bytes"));
    }
    std::str::from_utf8(id).map_err(|_| "linked_account_id is not UTF-8".to_owned())
}
