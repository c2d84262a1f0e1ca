//! Query encoding: decodes `application/x-www-form-urlencoded` and encodes with RFC 3986 percent-encoding.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All characters that are not unreserved (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Iterates over the name-value pairs of a query and skips empty ones. Part of the hit path.
#[derive(Clone, Debug)]
pub(super) struct Pairs<'a> {
    rest: &'a str,
    /// None of the pairs contains an escape.
    plain: bool,
}

/// A raw name and its raw value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    plain: bool,
}

/// Splits a query into pairs.
pub(super) fn pairs(query: &str) -> Pairs<'_> {
    Pairs { rest: query, plain: is_plain(query) }
}

fn is_plain(text: &str) -> bool {
    memchr2(b'%', b'+', text.as_bytes()).is_none()
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        while !self.rest.is_empty() {
            let (pair, rest) = cut(self.rest, b'&');
            self.rest = rest;
            if !pair.is_empty() {
                let (name, value) = cut(pair, b'=');
                return Some(Pair { name, value, plain: self.plain });
            }
        }
        None
    }
}

/// Splits at the first occurrence of an ASCII character.
fn cut(text: &str, at: u8) -> (&str, &str) {
    match memchr(at, text.as_bytes()) {
        Some(index) => (&text[..index], &text[index + 1..]),
        None => (text, ""),
    }
}

impl<'a> Pair<'a> {
    /// The decoded name; `None` if an escape is malformed or the result is not UTF-8.
    pub(super) fn decoded_name(self) -> Option<Cow<'a, str>> {
        self.decode(self.name)
    }

    /// The decoded value, as for [`Pair::decoded_name`].
    pub(super) fn decoded_value(self) -> Option<Cow<'a, str>> {
        self.decode(self.value)
    }

    fn decode(self, text: &'a str) -> Option<Cow<'a, str>> {
        if self.plain || is_plain(text) {
            return Some(Cow::Borrowed(text));
        }
        let with_spaces = text.replace('+', " ");
        decode_percent(&with_spaces).map(|decoded| Cow::Owned(decoded.into_owned()))
    }
}

/// Decodes percent escapes only, as in a path; `None` if one is malformed or the result is not UTF-8.
pub(super) fn decode_percent(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let is_escape =
        |index: usize| bytes.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let malformed = bytes.iter().enumerate().any(|(index, byte)| *byte == b'%' && !is_escape(index));
    if malformed { None } else { percent_decode_str(text).decode_utf8().ok() }
}

/// Writes `&name=value`, or `name=value` for the first pair.
pub(super) fn push_pair(out: &mut String, name: &str, value: &str) {
    push_name(out, name);
    push_encoded(out, value);
}

/// Writes a pair whose value needs no escapes.
pub(super) fn push_plain_pair(out: &mut String, name: &str, value: &str) {
    push_name(out, name);
    out.push_str(value);
}

fn push_name(out: &mut String, name: &str) {
    if !(out.is_empty() || out.ends_with('?')) {
        out.push('&');
    }
    out.push_str(name);
    out.push('=');
}

/// Writes a name or value with all reserved characters escaped.
pub(super) fn push_encoded(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, RESERVED));
}
