//! Characters that a log line shows as escapes, so that no text of a peer changes the way a terminal or a pager shows a line.
//!
//! JSON itself demands escapes for the C0 controls, `"` and `\` only (RFC 8259, 7). A line of Postern also escapes DEL and the
//! C1 controls, which terminals execute, the line and paragraph separators, which some readers take for the end of the line, and
//! the bidirectional controls, which reorder what is shown.

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
