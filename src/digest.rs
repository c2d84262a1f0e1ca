//! SHA-256 and its hexadecimal form, for keys, entity tags and partitions.

use std::fmt;

use aws_lc_rs::digest;

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Bytes that print as lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Decodes `N` bytes from hexadecimal digits of either case; `None` if there are more or fewer digits, or others.
#[must_use]
pub fn from_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
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
    fn hexadecimal_digits_of_either_case_are_decoded() {
        assert_eq!(from_hex(b"00fFA7"), Some([0x00, 0xff, 0xa7]));
        for digits in ["", "00ff", "00ffa", "00ffa70", "00ffag", "+0ffa7", "00ffé", " 0ffa7"] {
            assert_eq!(from_hex::<3>(digits.as_bytes()), None, "{digits}");
        }
    }
}
