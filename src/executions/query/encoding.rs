//! Query encoding: `application/x-www-form-urlencoded` in, RFC 3986 percent-encoding out.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986, 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Decodes a name or value; `None` if an escape is broken or the result is not UTF-8.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    decode_percent(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
}

/// Decodes percent escapes alone, as a path has them.
pub(super) fn decode_percent(text: &str) -> Option<Cow<'_, str>> {
    let bytes = text.as_bytes();
    let whole = |index: usize| bytes.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    let broken = bytes.iter().enumerate().any(|(index, byte)| *byte == b'%' && !whole(index));
    if broken { None } else { percent_decode_str(text).decode_utf8().ok() }
}

/// Writes `&name=value`, or `name=value` at the start.
pub(super) fn push_pair(out: &mut String, name: &str, value: &str) {
    if !(out.is_empty() || out.ends_with('?')) {
        out.push('&');
    }
    out.push_str(name);
    out.push('=');
    push_encoded(out, value);
}

/// Writes a name or value with everything reserved escaped.
pub(super) fn push_encoded(out: &mut String, text: &str) {
    out.extend(utf8_percent_encode(text, RESERVED));
}
