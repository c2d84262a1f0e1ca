//! The header fields that the gateway reads from every request, found in one pass over all fields (RFC 9110, 5).
//!
//! Part of the hit path: one look-up by name costs more than the pass, since a request has few fields.

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};

const KEY: &str = "x-api-key";
const ACCOUNT: &str = "linked_account_id";
const ACCOUNT_ALIAS: &str = "linked-account-id";

/// Carries a client key or the org key.
pub const X_API_KEY: HeaderName = HeaderName::from_static(KEY);
/// Names the linked account.
pub const LINKED_ACCOUNT_ID: HeaderName = HeaderName::from_static(ACCOUNT);
/// An alias of [`LINKED_ACCOUNT_ID`], for proxies that drop names with underscores.
pub const LINKED_ACCOUNT_ID_ALIAS: HeaderName = HeaderName::from_static(ACCOUNT_ALIAS);

/// The header fields that the gateway reads from every request.
#[derive(Debug)]
pub struct RequestHeaders<'a> {
    /// All fields, for the rare request that needs another one.
    pub all: &'a HeaderMap,
    /// `x-api-key`.
    pub key: FieldValues<'a>,
    /// `Authorization`.
    pub authorization: FieldValues<'a>,
    /// `linked_account_id`.
    pub linked_account: FieldValues<'a>,
    /// `linked-account-id`.
    pub linked_account_alias: FieldValues<'a>,
    /// True if `Accept-Encoding` is present.
    pub accepts_encodings: bool,
    /// True if `If-None-Match` is present.
    pub is_conditional: bool,
}

/// The values of a header field that a request may have once.
#[derive(Debug, Default)]
pub struct FieldValues<'a> {
    last: Option<&'a HeaderValue>,
    repeated: bool,
}

/// The error for a header field that is repeated although it may occur once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatedField;

impl<'a> RequestHeaders<'a> {
    /// Reads the fields of a request.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self {
            all: headers,
            key: FieldValues::default(),
            authorization: FieldValues::default(),
            linked_account: FieldValues::default(),
            linked_account_alias: FieldValues::default(),
            accepts_encodings: false,
            is_conditional: false,
        };
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
            values.repeated = values.last.replace(value).is_some();
        }
        fields
    }
}

impl<'a> FieldValues<'a> {
    /// The only value, or `None` without one.
    ///
    /// # Errors
    /// If the field is repeated: servers differ on which value counts.
    pub fn single(&self) -> Result<Option<&'a HeaderValue>, RepeatedField> {
        if self.repeated { Err(RepeatedField) } else { Ok(self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_field_is_an_error() {
        for times in 0..4 {
            let mut headers = HeaderMap::new();
            for _ in 0..times {
                headers.append(X_API_KEY, HeaderValue::from_static("key"));
            }
            let found = RequestHeaders::of(&headers).key.single().map(|value| value.is_some());
            assert_eq!(found, [Ok(false), Ok(true), Err(RepeatedField), Err(RepeatedField)][times]);
        }
    }

    #[test]
    fn each_field_is_found_by_its_name_only() {
        let found = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("value"));
            let fields = RequestHeaders::of(&headers);
            let one = |values: &FieldValues<'_>| values.single() == Ok(headers.get(name));
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
