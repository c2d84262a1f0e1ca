//! Finds a `linked_account_id` in the query or body of a request that is not the caller's.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::{ClientError, Reason};

/// Checks a query or a body of type `application/x-www-form-urlencoded`.
///
/// # Errors
/// 403 if it names a linked account other than `own`.
pub fn check_form(form: &[u8], own: &str) -> Result<(), ClientError> {
    for pair in form.split(|byte| matches!(byte, b'&' | b';')) {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        // `linked_account_id[]`, `filter[linked_account_id]` and the like, which servers read as nested values.
        let name = decoded(name);
        let names_account = name.split(['[', ']', '.']).any(is_name);
        if names_account && !value.is_empty() && decoded(value) != own {
            return Err(not_allowed());
        }
    }
    Ok(())
}

/// Checks a body by its type: JSON at any depth, or a form. Others pass.
///
/// # Errors
/// 403 if it names a linked account other than `own`, 400 if it is not the JSON that its type promises.
pub fn check_body(headers: &HeaderMap, body: &[u8], own: &str) -> Result<(), ClientError> {
    let kind = BodyType::of(headers);
    match kind {
        BodyType::Form => return check_form(body, own),
        BodyType::Other => return Ok(()),
        BodyType::Json | BodyType::Text if body.is_empty() => return Ok(()),
        BodyType::Json | BodyType::Text => {}
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let result = Check(own).deserialize(&mut deserializer).and_then(|other| deserializer.end().map(|()| other));
    match result {
        Ok(true) => Err(not_allowed()),
        Err(error) if kind == BodyType::Json => {
            Err(ClientError::new(Reason::MalformedRequest, "the request body is not JSON").caused_by(error))
        }
        Ok(false) | Err(_) => Ok(()),
    }
}

/// Returns true if a body with these headers can name a linked account, and so has to be checked as a whole.
#[must_use]
pub fn can_name_account(headers: &HeaderMap) -> bool {
    BodyType::of(headers) != BodyType::Other
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyType {
    Json,
    /// Text or no type at all: some servers read it as JSON.
    Text,
    Form,
    Other,
}

impl BodyType {
    fn of(headers: &HeaderMap) -> Self {
        let types: Vec<&HeaderValue> = headers.get_all(CONTENT_TYPE).iter().collect();
        let is = |name: &str| {
            types.iter().any(|value| {
                let value = value.as_bytes().to_ascii_lowercase();
                memchr::memmem::find(&value, name.as_bytes()).is_some()
            })
        };
        if is("x-www-form-urlencoded") {
            Self::Form
        } else if is("json") {
            Self::Json
        } else if types.is_empty() || is("text/") {
            Self::Text
        } else {
            Self::Other
        }
    }
}

fn is_name(name: &str) -> bool {
    let letters =
        |text: &str| text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    letters(name) == b"linkedaccountid"
}

fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

fn not_allowed() -> ClientError {
    let message = "the request names a linked account other than the caller's";
    ClientError::new(Reason::LinkedAccountNotAllowed, message)
}

/// Reads JSON; true if it names another linked account than this one.
#[derive(Clone, Copy)]
struct Check<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut other = false;
        // Every field, also one that comes twice: servers differ in which they read.
        while let Some(name) = map.next_key::<String>()? {
            other |= if is_name(&name) {
                let named: serde_json::Value = map.next_value()?;
                !named.is_null() && named.as_str() != Some(self.0)
            } else {
                map.next_value_seed(self)?
            };
        }
        Ok(other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut other = false;
        while let Some(found) = list.next_element_seed(self)? {
            other |= found;
        }
        Ok(other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn another_account_is_found_in_every_spelling_and_the_own_one_is_not() {
        for (kind, body, status) in [
            ("application/json", r#"{"linked_account_id": "other"}"#, Some(403)),
            ("application/json", r#"{"a": [{"linked\u005faccount_id": "other"}]}"#, Some(403)),
            ("application/json", r#"{"linked_account_id": "acme", "linked_account_id": "other"}"#, Some(403)),
            ("application/vnd.a+json", r#"{"linkedAccountId": ["acme"]}"#, Some(403)),
            ("application/json", r#"{"linked_account_id": 7}"#, Some(403)),
            ("application/x-www-form-urlencoded", "a=b&linked%5Faccount_id=other", Some(403)),
            ("application/x-www-form-urlencoded", "filter[linked_account_id]=other", Some(403)),
            ("application/json", "{\"linked_account_id\": \"other\"", Some(400)),
            ("application/json", r#"{"linked_account_id": "acme", "b": [1, -1, 0.5, true, null, "other"]}"#, None),
            ("application/json", r#"{"linked_account_id": null}"#, None),
            ("application/json", "", None),
            ("text/plain", r#"{"linked_account_id": "other"}"#, Some(403)),
            ("text/plain", "hello", None),
            ("application/x-www-form-urlencoded", "linked_account_id=acme&other=other", None),
            ("application/octet-stream", "anything", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            let result = check_body(&headers, body.as_bytes(), "acme");
            let expected = status.map(|status| StatusCode::from_u16(status).expect("a status"));
            assert_eq!(result.err().map(|error| error.status()), expected, "{body}");
        }
    }
}
