//! What the headers of a request say of who sends it and for whom.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::ambiguous;
use crate::error::{ClientError, Reason};

const KEY: &str = "x-api-key";
const ACCOUNT: &str = "linked_account_id";
const ACCOUNT_ALIAS: &str = "linked-account-id";

/// Carries a client key or the org key.
pub const X_API_KEY: HeaderName = HeaderName::from_static(KEY);
/// Names the linked account.
pub const LINKED_ACCOUNT_ID: HeaderName = HeaderName::from_static(ACCOUNT);
/// The same, for proxies that drop names with underscores.
const LINKED_ACCOUNT_ID_ALIAS: HeaderName = HeaderName::from_static(ACCOUNT_ALIAS);

/// Longest linked account id that is accepted, in bytes.
const MAX_LINKED_ACCOUNT_ID: usize = 256;

/// The headers that say who somebody is. Part of the hit path: they are found in one pass over all there are.
#[derive(Debug, Default)]
pub(super) struct Shown<'a> {
    pub(super) key: Shows<'a>,
    pub(super) authorization: Shows<'a>,
    linked_account: Shows<'a>,
    linked_account_alias: Shows<'a>,
}

/// The values of one of them.
#[derive(Debug, Default)]
pub(super) struct Shows<'a> {
    first: Option<&'a HeaderValue>,
    more: bool,
}

impl<'a> Shown<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut shown = Self::default();
        for (name, value) in headers {
            let values = match name.as_str() {
                KEY => &mut shown.key,
                ACCOUNT => &mut shown.linked_account,
                ACCOUNT_ALIAS => &mut shown.linked_account_alias,
                _ if *name == AUTHORIZATION => &mut shown.authorization,
                _ => continue,
            };
            values.more = values.first.replace(value).is_some();
        }
        shown
    }

    /// The linked account that the headers have to name.
    pub(super) fn one_linked_account(&self) -> Result<&'a str, ClientError> {
        self.linked_account()?.ok_or_else(ClientError::no_linked_account)
    }

    /// The linked account that the headers name, in either spelling.
    pub(super) fn linked_account(&self) -> Result<Option<&'a str>, ClientError> {
        let named = self.linked_account.single(&LINKED_ACCOUNT_ID)?;
        let value = match (named, self.linked_account_alias.single(&LINKED_ACCOUNT_ID_ALIAS)?) {
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
}

impl<'a> Shows<'a> {
    /// The one value: twice is refused, since readers differ on which of them counts.
    pub(super) fn single(&self, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ClientError> {
        if self.more {
            return Err(ambiguous(format!("{name} is there twice; send it once")));
        }
        Ok(self.first)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_there_more_than_once_is_never_read() {
        for times in 0..4 {
            let mut headers = HeaderMap::new();
            for _ in 0..times {
                headers.append(X_API_KEY, HeaderValue::from_static("key"));
            }
            let found = Shown::of(&headers).key.single(&X_API_KEY).map(|value| value.is_some()).ok();
            assert_eq!(found, [Some(false), Some(true), None, None][times]);
        }
    }
}
