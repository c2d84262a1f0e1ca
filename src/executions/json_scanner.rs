//! A scanner for JSON texts: finds members and elements, and skips the other values, with fewer instructions than a parser.
//!
//! It reads JSON on one line whose names have no escapes, and gives up on any other text. It may refuse a valid text, and never
//! accepts an invalid one: `serde_json` parses each text that the scanner refuses, and reports its errors.
//! The tests compare the two.

use memchr::memchr2;

/// Words of eight bytes in which a short string ends.
const SHORT_WORDS: usize = 4;
/// Values in values that the scanner follows.
const MAX_DEPTH: u32 = 32;

/// The part of a JSON text that is not read yet. `None` from a method means that the scanner gives up.
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of a text; `None` if that contains control characters, as between lines. They would have to be
    /// looked for in each string.
    pub(super) fn new(text: &'a str) -> Option<Self> {
        let text = text.trim_end_matches([' ', '\n', '\r', '\t']).as_bytes();
        let least = text.iter().copied().fold(u8::MAX, u8::min);
        (least >= b' ').then_some(Self { rest: text, depth: 0 })
    }

    /// Reads an object, and calls `member` with each name to read the value. Gives up on a name with escapes.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.collection((b'{', b'}'), |scanner| {
            scanner.expect(b'"')?;
            let (name, rest) = scanner.rest.split_at(quote_or_escape(scanner.rest)?);
            scanner.rest = rest.strip_prefix(b"\"")?;
            scanner.expect(b':')?;
            member(scanner, name)
        })
    }

    /// Reads an array, and calls `element` to read each element.
    pub(super) fn array(&mut self, element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.collection((b'[', b']'), element)
    }

    /// Skips a value of any type, and returns its text.
    pub(super) fn value(&mut self) -> Option<&'a [u8]> {
        self.skip_spaces();
        let text = self.rest;
        match text.first()? {
            b'"' => self.string()?,
            b'{' => self.object(|scanner, _| scanner.value().map(drop))?,
            b'[' => self.array(|scanner| scanner.value().map(drop))?,
            b't' => self.rest = text.strip_prefix(b"true")?,
            b'f' => self.rest = text.strip_prefix(b"false")?,
            b'n' => self.rest = text.strip_prefix(b"null")?,
            _ => self.number()?,
        }
        text.get(..text.len() - self.rest.len())
    }

    /// Succeeds at the end of the text.
    pub(super) fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    fn collection(&mut self, (open, close): (u8, u8), mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.expect(open)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.skip_spaces();
        if *self.rest.first()? == close {
            self.expect(close)?;
        } else {
            loop {
                item(self)?;
                match self.next()? {
                    b',' => {}
                    byte if byte == close => break,
                    _ => return None,
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    /// Skips a string; the next byte is its first quote.
    fn string(&mut self) -> Option<()> {
        let mut rest = &self.rest[1..];
        loop {
            rest = match &rest[quote_or_escape(rest)?..] {
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    return Some(());
                }
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => rest,
                [b'\\', b'u', a, b, c, d, rest @ ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => {
                    rest
                }
                _ => return None,
            };
        }
    }

    fn number(&mut self) -> Option<()> {
        self.skip_one(b"-");
        if !self.skip_one(b"0") {
            self.digits()?;
        }
        if self.skip_one(b".") {
            self.digits()?;
        }
        if self.skip_one(b"eE") {
            self.skip_one(b"+-");
            self.digits()?;
        }
        Some(())
    }

    /// Skips one digit or more.
    fn digits(&mut self) -> Option<()> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(())
    }

    /// Skips one of these bytes if it is next.
    fn skip_one(&mut self, of: &[u8]) -> bool {
        match self.rest {
            [next, rest @ ..] if of.contains(next) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Reads the next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        self.skip_spaces();
        let (next, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*next)
    }

    fn skip_spaces(&mut self) {
        while let [b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

/// Returns the position of the first quote or backslash. Most strings are short, and the set-up of `memchr2` pays off in long ones
/// only.
fn quote_or_escape(text: &[u8]) -> Option<usize> {
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().take(SHORT_WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ repeated(b'"')) | zero_bytes(word ^ repeated(b'\\'));
        if found != 0 {
            return Some(8 * index + found.trailing_zeros() as usize / 8);
        }
    }
    let start = 8 * words.len().min(SHORT_WORDS);
    memchr2(b'"', b'\\', &text[start..]).map(|position| start + position)
}

/// A byte in all eight places of a word.
const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Returns a word whose lowest set bit is in the first byte of `word` that is zero; zero if there is none. Bits above the lowest
/// one may be wrong.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeated(0x01)) & !word & repeated(0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_value(text: &str) -> bool {
        let value = Scanner::new(text).and_then(|mut scanner| {
            scanner.value()?;
            scanner.end()
        });
        value.is_some()
    }

    /// Returns whether the scanner may give up on a valid text.
    fn is_unusual(text: &str) -> bool {
        text.trim_ascii_end().contains(char::is_control) || text.contains('\\')
    }

    fn json() -> impl Strategy<Value = String> {
        let string = r#"[ -~é€]{0,20}|(\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|[!#-Z]){0,12}"#;
        let scalar = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("false".to_owned()),
            r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
            string.prop_map(|string| format!("\"{string}\"")),
        ];
        let space = "[ ]{0,2}|[ \n\r\t]{0,1}";
        scalar.prop_recursive(4, 40, 5, move |value| {
            let array = prop::collection::vec((value.clone(), space), 0..5).prop_map(|items| {
                let items: Vec<_> = items.iter().map(|(value, space)| format!("{space}{value}{space}")).collect();
                format!("[{}]", items.join(","))
            });
            let object = prop::collection::vec((string, value, space), 0..5).prop_map(|members| {
                let member = |(name, value, space): &(_, _, _)| format!("{space}\"{name}\"{space}:{space}{value}");
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            });
            prop_oneof![array, object]
        })
    }

    proptest! {
        // Few, since the texts are large.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_text_is_accepted_if_serde_json_accepts_it(text in json()) {
            let is_valid = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert!(is_value(&text) == is_valid || is_valid && is_unusual(&text), "{}", text);
        }

        #[test]
        fn the_end_of_a_string_is_found(text in prop::collection::vec(any::<u8>(), 0..60), quotes in r#"["\\]{0,3}"#, at in 0..60_usize) {
            let mut text = text;
            text.splice(at.min(text.len())..at.min(text.len()), quotes.bytes());
            let expected = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_escape(&text), expected);
        }

        #[test]
        fn a_broken_text_is_refused_if_serde_json_refuses_it(
            text in json(),
            at in any::<prop::sample::Index>(),
            with in r#"[ -~\x00-\x1f]?|[\[\]{},:"\\0-9eE.+-]"#,
        ) {
            let mut characters: Vec<String> = text.chars().map(String::from).collect();
            let index = at.index(characters.len());
            characters[index] = with;
            let broken = characters.concat();
            let is_valid = serde_json::from_str::<IgnoredAny>(&broken).is_ok();
            prop_assert!(is_value(&broken) == is_valid || is_valid && is_unusual(&broken), "{}", broken);
        }
    }

    #[test]
    fn values_nested_too_deeply_are_left_to_the_parser() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_value(&nested(32)) && !is_value(&nested(33)) && !is_value(&nested(100_000)));
    }

    #[test]
    fn truncated_texts_are_refused() {
        let text = r#"{"a":[1.5e-3,true,"\u00e9\n"],"b":null}"#;
        assert!(is_value(text));
        assert!((0..text.len()).all(|length| !is_value(&text[..length])));
    }

    #[test]
    fn escapes_in_values_are_followed_and_those_in_names_are_left_to_the_parser() {
        for value in [r#""\"""#, r#""\\""#, r#""\u00e9\n""#, r#"{"a":"\/"}"#] {
            assert!(is_value(value), "{value}");
        }
        for value in [r#""\x""#, r#""\u00g0""#, r#""\""#, r#""\u12"#, r#"{"\u0061":1}"#] {
            assert!(!is_value(value), "{value}");
        }
        assert!(is_value("[1] \r\n") && !is_value("[1,\n2]"), "lines are left to the parser");
        assert!(!is_value("[1]\u{c}"), "a form feed is no white space in JSON");
    }
}
