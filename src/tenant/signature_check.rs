//! The signature of a text that arrives in parts: HMAC-SHA256, keyed with an org key.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};

/// Computes the signatures of one text with each of a tenant's org keys.
pub struct SignatureCheck(Vec<hmac::Context>);

impl fmt::Debug for SignatureCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The contexts are made from keys.
        f.write_str("SignatureCheck([redacted])")
    }
}

impl SignatureCheck {
    /// A check of signatures with these keys.
    pub(super) fn new<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Self {
        let context = |key: &[u8]| hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        Self(keys.map(context).collect())
    }

    /// A check that no signature passes.
    #[must_use]
    pub fn without_keys() -> Self {
        Self(Vec::new())
    }

    /// Adds the next part of the text.
    pub fn update(&mut self, part: &[u8]) {
        self.0.iter_mut().for_each(|context| context.update(part));
    }

    /// Returns whether `signature` is the text's with one of the keys; compares in constant time.
    #[must_use]
    pub fn verify(self, signature: &[u8]) -> bool {
        let is_equal =
            |context: hmac::Context| constant_time::verify_slices_are_equal(context.sign().as_ref(), signature).is_ok();
        self.0.into_iter().any(is_equal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_parts_has_the_signature_of_the_whole() {
        let keys = [&b"first"[..], b"second"];
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        for (signature, parts, is_valid) in [
            (sign(b"first", b"one two"), vec!["one", " ", "", "two"], true),
            (sign(b"second", b"one two"), vec!["one two"], true),
            (sign(b"second", b""), vec![], true),
            (sign(b"third", b"one two"), vec!["one two"], false),
            (sign(b"first", b"one two"), vec!["one ", "too"], false),
        ] {
            let mut check = SignatureCheck::new(keys.into_iter());
            let mut none = SignatureCheck::without_keys();
            for part in &parts {
                check.update(part.as_bytes());
                none.update(part.as_bytes());
            }
            assert!(!none.verify(signature.as_ref()));
            assert_eq!(check.verify(signature.as_ref()), is_valid, "{parts:?}");
        }
    }
}
