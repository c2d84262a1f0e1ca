//! Characters that a log line shows as escapes, so that no text of a peer changes the way a terminal or a pager shows a line.
//!
//! JSON itself demands escapes for the C0 controls, `"` and `\` only (RFC 8259, 7). A line of Postern also escapes DEL and the
//! C1 controls, which terminals execute, the line and paragraph separators, which some readers take for the end of the line, and
//! the bidirectional controls, which reorder what is shown.

use std::io::Write;
use std::net::IpAddr;

use crate::request::peer::Peer;

/// Appends a number; `name` is the member's name with its colon.
pub(super) fn push_number(line: &mut Vec<u8>, name: &[u8], number: impl itoa::Integer) {
    line.extend_from_slice(name);
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a string that needs no escapes; `name` ends with the opening quotation mark.
pub(super) fn push_plain(line: &mut Vec<u8>, name: &[u8], text: &str) {
    line.extend_from_slice(name);
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

/// Appends any string, escaped where JSON demands it and where a display would act on it.
pub(super) fn push_string(line: &mut Vec<u8>, name: &[u8], text: &str) {
    line.extend_from_slice(name);
    if may_have_escapes(text) {
        // Every string can be serialised.
        push_escaped(line, &serde_json::to_string(text).unwrap_or_default());
    } else {
        line.push(b'"');
        line.extend_from_slice(text.as_bytes());
        line.push(b'"');
    }
}

/// Appends the beginning of a text of a peer, up to `most` bytes. Bytes that are not UTF-8 are shown as U+FFFD.
pub(super) fn push_bounded(line: &mut Vec<u8>, name: &[u8], text: &[u8], most: usize) {
    match std::str::from_utf8(text) {
        Ok(text) => push_string(line, name, &text[..text.floor_char_boundary(most)]),
        Err(_) => push_string(line, name, &String::from_utf8_lossy(&text[..text.len().min(most)])),
    }
}

/// Appends the address of a peer. An IPv4 address needs no formatter, which would cost more than the rest of the line's fields.
pub(super) fn push_address(line: &mut Vec<u8>, peer: Peer) {
    let Peer::Address(IpAddr::V4(address)) = peer else {
        // Writing to memory does not fail.
        let _ = write!(line, "{peer}");
        return;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            line.push(b'.');
        }
        line.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

/// Returns true if a JSON string with this text has an escape, or may have one: it is any text but plain ASCII. Reads the whole
/// text, so that the compiler can look at many bytes at once. Part of the hit path.
#[expect(clippy::needless_bitwise_bool, reason = "lazy operators end at the first hit, byte by byte")]
pub(super) fn may_have_escapes(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | !(b' '..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\'))
}

/// Appends JSON, in which all characters that change the display are replaced by their escapes. They occur within strings only.
pub(super) fn push_escaped(line: &mut Vec<u8>, json: &str) {
    let mut rest = json;
    while let Some((at, found)) = rest.char_indices().find(|(_, character)| changes_display(*character)) {
        line.extend_from_slice(&rest.as_bytes()[..at]);
        line.extend_from_slice(format!("\\u{:04x}", u32::from(found)).as_bytes());
        rest = &rest[at + found.len_utf8()..];
    }
    line.extend_from_slice(rest.as_bytes());
}

/// Returns true for characters that no display shows and some act on. All are in the basic multilingual plane, so that one
/// escape stands for each.
fn changes_display(character: char) -> bool {
    matches!(
        character,
        '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_displayed() {
        for text in ["127.0.0.1", "255.10.0.9", "2001:db8::7", "::1"] {
            let mut line = Vec::new();
            push_address(&mut line, Peer::at(text.parse().expect("an address")));
            assert_eq!(String::from_utf8_lossy(&line), text);
        }
        let mut line = Vec::new();
        push_address(&mut line, Peer::LocalUser(33));
        assert_eq!(line, b"uid:33");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for (text, most, shown) in [
            (&b"abc"[..], 3, "abc"),
            (b"abcd", 3, "abc"),
            ("aü".as_bytes(), 2, "a"),
            (b"a\xff\xfe", 2, "a\u{fffd}"),
            (b"a\"b\tc", 4, "a\"b\t"),
        ] {
            let mut line = Vec::new();
            push_bounded(&mut line, b"", text, most);
            assert_eq!(serde_json::from_slice::<String>(&line).expect("JSON"), shown);
        }
    }

    #[test]
    fn only_characters_that_change_the_display_are_escaped() {
        for (text, escaped) in [
            ("a\u{9b}31m", "a\\u009b31m"),
            ("\u{85}\u{2028}\u{2029}", "\\u0085\\u2028\\u2029"),
            ("\u{202e}x\u{2066}\u{200f}\u{61c}", "\\u202ex\\u2066\\u200f\\u061c"),
            ("\u{7f}", "\\u007f"),
            ("Zoë 北京 🦀 \u{a0}\u{200d}", "Zoë 北京 🦀 \u{a0}\u{200d}"),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
            ("", ""),
        ] {
            let mut line = Vec::new();
            push_escaped(&mut line, text);
            assert_eq!(String::from_utf8_lossy(&line), escaped);
        }
    }
}
