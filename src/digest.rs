//! SHA-256 and hexadecimal digits, for keys, entity tags, identifiers and signatures.

use std::fmt::{self, Write};

use aws_lc_rs::digest;

/// Computes the SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Prints bytes as lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl Hex<'_> {
    /// Returns the digits.
    pub fn digits(self) -> impl Iterator<Item = u8> {
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 0x0f)];
        self.0.iter().flat_map(move |byte| [digit(byte >> 4), digit(*byte)])
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digits().try_for_each(|digit| f.write_char(digit.into()))
    }
}

/// Decodes exactly `2 * N` hexadecimal digits of either case; `None` for any other text.
#[must_use]
pub fn decode_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    decode_hex_into(digits, &mut bytes).then_some(bytes)
}

/// Decodes hexadecimal digits of either case; `None` for an odd number of digits or any other character.
#[must_use]
pub fn decode_hex_to_vec(digits: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; digits.len() / 2];
    decode_hex_into(digits, &mut bytes).then_some(bytes)
}

/// Fills `bytes`; `false` unless `digits` are exactly two hexadecimal digits for each byte.
fn decode_hex_into(digits: &[u8], bytes: &mut [u8]) -> bool {
    fn digit(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            b'A'..=b'F' => Some(digit - b'A' + 10),
            _ => None,
        }
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != bytes.len() {
        return false;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
        *byte = high << 4 | low;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_standard() {
        // FIPS 180-4's first example.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hex(&sha256(b"abc")).to_string(), expected);
    }

    #[test]
    fn hexadecimal_digits_are_decoded_to_the_same_bytes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let digits = Hex(&bytes).to_string();
        assert_eq!(decode_hex_to_vec(digits.as_bytes()).as_ref(), Some(&bytes));
        assert_eq!(decode_hex_to_vec(digits.to_ascii_uppercase().as_bytes()), Some(bytes));
        assert_eq!(decode_hex(b"00ff"), Some([0, 255]));
    }

    #[test]
    fn only_hexadecimal_digits_of_the_right_number_are_decoded() {
        for text in ["0", "000", "0g", "+f", " 0", "\u{e9}"] {
            assert_eq!(decode_hex_to_vec(text.as_bytes()), None, "{text}");
        }
        assert_eq!((decode_hex::<2>(b"00"), decode_hex::<1>(b"0000")), (None, None));
    }
}
