//! The header fields of a request that every request is asked for, found in one pass over all there are (RFC 9110, 5). Part
//! of the hit path: to hash a name costs more than to look at the few fields that a request has.

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};

const KEY: &str = "x-api-key";
const ACCOUNT: &str = "linked_account_id";
const ACCOUNT_ALIAS: &str = "linked-account-id";

/// Carries a client key or the org key.
pub const X_API_KEY: HeaderName = HeaderName::from_static(KEY);
/// Names the linked account.
pub const LINKED_ACCOUNT_ID: HeaderName = HeaderName::from_static(ACCOUNT);
/// The same, for proxies that drop names with underscores.
pub const LINKED_ACCOUNT_ID_ALIAS: HeaderName = HeaderName::from_static(ACCOUNT_ALIAS);

/// What a request has of these fields.
#[derive(Debug, Default)]
pub struct Fields<'a> {
    /// `x-api-key`.
    pub key: Values<'a>,
    /// `Authorization`.
    pub authorization: Values<'a>,
    /// `linked_account_id`.
    pub linked_account: Values<'a>,
    /// `linked-account-id`.
    pub linked_account_alias: Values<'a>,
    /// Whether there is an `Accept-Encoding`.
    pub accepts_encodings: bool,
    /// Whether there is an `If-None-Match`.
    pub is_conditional: bool,
}

/// The values of one field.
#[derive(Debug, Default)]
pub struct Values<'a> {
    first: Option<&'a HeaderValue>,
    more: bool,
}

/// A field that may be there once is there more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

impl<'a> Fields<'a> {
    /// Finds them.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let values = match name.as_str() {
                KEY => &mut fields.key,
                ACCOUNT => &mut fields.linked_account,
                ACCOUNT_ALIAS => &mut fields.linked_account_alias,
                _ if *name == AUTHORIZATION => &mut fields.authorization,
                _ => {
                    fields.accepts_encodings |= *name == ACCEPT_ENCODING;
                    fields.is_conditional |= *name == IF_NONE_MATCH;
                    continue;
                }
            };
            values.more = values.first.replace(value).is_some();
        }
        fields
    }
}

impl<'a> Values<'a> {
    /// The one value, if there is any.
    ///
    /// # Errors
    /// If there is another: readers differ on which of them counts.
    pub fn single(&self) -> Result<Option<&'a HeaderValue>, Repeated> {
        if self.more { Err(Repeated) } else { Ok(self.first) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_there_more_than_once_is_never_read() {
        for times in 0..4 {
            let mut headers = HeaderMap::new();
            for _ in 0..times {
                headers.append(X_API_KEY, HeaderValue::from_static("key"));
            }
            let found = Fields::of(&headers).key.single().map(|value| value.is_some());
            assert_eq!(found, [Ok(false), Ok(true), Err(Repeated), Err(Repeated)][times]);
        }
    }

    #[test]
    fn every_field_is_found_by_its_name_and_no_other() {
        let found = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("value"));
            let fields = Fields::of(&headers);
            let one = |values: &Values<'_>| values.single() == Ok(headers.get(name));
            let named = [&fields.key, &fields.authorization, &fields.linked_account, &fields.linked_account_alias];
            let mut all: Vec<bool> = named.map(one).to_vec();
            all.extend([fields.accepts_encodings, fields.is_conditional]);
            all
        };
        let names = [
            "x-api-key",
            "authorization",
            "linked_account_id",
            "linked-account-id",
            "accept-encoding",
            "if-none-match",
            "accept",
            "x-api-keys",
        ];
        for (index, name) in names.into_iter().enumerate() {
            let expected: Vec<bool> = (0..6).map(|field| field == index).collect();
            assert_eq!(found(name), expected, "{name}");
        }
    }
}
