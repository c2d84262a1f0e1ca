//! The forms in which an org key can appear in a header of an upstream's response.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::{self, Finder};

use crate::digest::Hex;

/// Most layers of escapes that are removed, as in a percent-encoded URL in a percent-encoded URL.
const MAX_LAYERS: usize = 4;
/// The shortest piece of Base64 that is searched for; shorter ones appear by chance.
const MIN_PIECE: usize = 6;

/// The forms of one key: as it is and in hexadecimal, both in any case, and in Base64.
pub(super) struct KeyForms {
    /// Finds the key as it is. Made once: that costs as much as a search in a short page.
    plain: Finder<'static>,
    /// Lower case, compared with text in lower case.
    folded: Vec<Box<[u8]>>,
    /// Compared as they are.
    exact: Vec<Box<[u8]>>,
}

impl KeyForms {
    pub(super) fn new(key: &[u8]) -> Self {
        let hex = Hex(key).to_string();
        let mut exact = Vec::new();
        for offset in 0..3 {
            let text = [&[0; 3][..offset], key].concat();
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&text).into_bytes();
                // Without the characters that depend on what comes before the key or after it.
                let piece = encoded.get((offset * 8).div_ceil(6)..text.len() * 8 / 6).unwrap_or_default();
                if piece.len() >= MIN_PIECE {
                    exact.push(piece.into());
                }
            }
        }
        let plain = Finder::new(key).into_owned();
        Self { plain, folded: vec![key.to_ascii_lowercase().into(), hex.into_bytes().into()], exact }
    }

    /// Returns true if a text contains the key as it is.
    pub(super) fn plain_appears_in(&self, text: &[u8]) -> bool {
        self.plain.find(text).is_some()
    }

    /// Returns true if a text contains one of the forms, also below percent-encoding, quoted-printable (RFC 2047) or the
    /// backslashes of quoted strings and JSON.
    pub(super) fn appear_in(&self, text: &[u8]) -> bool {
        let mut text = text.to_vec();
        for _ in 0..MAX_LAYERS {
            if self.appear_plainly_in(&text) {
                return true;
            }
            let plain = unescaped(&text);
            if plain == text {
                return false;
            }
            text = plain;
        }
        self.appear_plainly_in(&text)
    }

    fn appear_plainly_in(&self, text: &[u8]) -> bool {
        let folded = text.to_ascii_lowercase();
        let found = |text: &[u8], forms: &[Box<[u8]>]| forms.iter().any(|form| memmem::find(text, form).is_some());
        found(&folded, &self.folded) || found(text, &self.exact)
    }
}

/// Shows nothing of the key.
impl fmt::Debug for KeyForms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Removes one layer of escapes: `%74`, `=74`, `\u0074`, `\t`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = match first {
            b'%' | b'=' => hexadecimal(after, 2).map(|byte| (byte, 2)),
            b'\\' if after.first() == Some(&b'u') => hexadecimal(&after[1..], 4).map(|byte| (byte, 5)),
            b'\\' => after.first().map(|byte| (*byte, 1)),
            _ => None,
        };
        let (byte, length) = escaped.unwrap_or((*first, 0));
        plain.push(byte);
        rest = &after[length..];
    }
    plain
}

/// Reads a number of `length` hexadecimal digits that fits in a byte.
fn hexadecimal(text: &[u8], length: usize) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..length)?).ok()?;
    let digits = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const KEY: &str = "tk_Live/9+a~secret";

    #[test]
    #[expect(clippy::format_collect, reason = "short, and only a test")]
    fn a_key_is_found_in_every_form() {
        let forms = KeyForms::new(KEY.as_bytes());
        let percent: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let json: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let mut texts = vec![
            KEY.to_owned(),
            KEY.to_uppercase(),
            percent.replace('%', "%25"),
            percent.replace('%', "="),
            KEY.replace('/', "\\/"),
            json,
            percent,
            KEY.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ];
        for before in ["", "u:", "user", "x"] {
            for engine in [STANDARD, base64::engine::general_purpose::URL_SAFE] {
                let encoded = engine.encode(format!("{before}{KEY}:{before}"));
                texts.extend([encoded.replace('=', "%3D"), encoded]);
            }
        }
        for text in texts {
            assert!(forms.appear_in(text.as_bytes()), "{text}");
            assert!(forms.appear_in(format!("\"a{text}b\"").as_bytes()), "{text}");
        }
        for text in
            ["", "tk_Live", "\"0123456789abcdef\"", "%", "\\", "\\u12", "%zz", "<https://app.refold.ai/?a=%20b>"]
        {
            assert!(!forms.appear_in(text.as_bytes()), "{text}");
        }
        assert_eq!(format!("{forms:?}"), "[redacted]");
    }
}
