//! Encryption of what a fleet's server holds: AES-256-GCM, with a key for each partition.
//!
//! The keys derive from `[fleet] secret`. What is sealed is bound to its context (where it belongs, and until when it holds), so
//! who can write to the server can neither read it, nor use it in another place or for a longer time. A sealed text begins with the
//! id of its secret, so that texts under either secret of a rotation are told apart.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand;

use crate::config::{FleetConfig, Secret};

/// The purpose for which the keys are derived.
const PURPOSE: &[u8] = b"postern fleet entries 1";
/// Bytes of the id of a secret.
const ID_LENGTH: usize = 4;

/// Seals and opens texts.
pub(super) struct Cipher {
    current: DerivationKey,
    /// Opens texts only.
    next: Option<DerivationKey>,
}

/// The key from which a secret's keys for partitions derive.
struct DerivationKey {
    id: [u8; ID_LENGTH],
    key: hmac::Key,
}

impl DerivationKey {
    fn new(secret: &Secret) -> Self {
        let secret = hmac::Key::new(HMAC_SHA256, secret.expose().as_bytes());
        let key = hmac::Key::new(HMAC_SHA256, hmac::sign(&secret, PURPOSE).as_ref());
        let mut id = [0; ID_LENGTH];
        id.copy_from_slice(&hmac::sign(&key, b"id").as_ref()[..ID_LENGTH]);
        Self { id, key }
    }

    fn of_partition(&self, partition: &str) -> Option<LessSafeKey> {
        let key = hmac::sign(&self.key, format!("partition {partition}").as_bytes());
        UnboundKey::new(&AES_256_GCM, key.as_ref()).ok().map(LessSafeKey::new)
    }
}

impl Cipher {
    pub(super) fn new(config: &FleetConfig) -> Self {
        let next = config.next_secret.as_ref().map(DerivationKey::new);
        Self { current: DerivationKey::new(&config.secret), next }
    }

    /// A cipher with one secret.
    #[cfg(test)]
    pub(super) fn of_secret(secret: &str) -> Self {
        let source = crate::config::SecretSource::Env("SECRET".to_owned());
        Self { current: DerivationKey::new(&Secret::new(secret.to_owned(), source)), next: None }
    }

    /// Encrypts a text of a partition; `None` if there is no randomness.
    pub(super) fn seal(&self, partition: &str, context: &[u8], mut text: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let key = self.current.of_partition(partition)?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut text).ok()?;
        Some([&self.current.id[..], &nonce, &text].concat())
    }

    /// Decrypts a text; `None` unless it was sealed for this partition and context.
    pub(super) fn open(&self, partition: &str, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (id, sealed) = sealed.split_first_chunk::<ID_LENGTH>()?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let key = [Some(&self.current), self.next.as_ref()].into_iter().flatten().find(|key| key.id == *id)?;
        let mut text = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.of_partition(partition)?.open_in_place(nonce, Aad::from(context), &mut text).ok()?.len();
        text.truncate(opened);
        Some(text)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cipher").field(&"[redacted]").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretSource;

    fn cipher(secret: &str, next: Option<&str>) -> Cipher {
        let source = || SecretSource::Env("SECRET".to_owned());
        let key = |secret: &str| DerivationKey::new(&Secret::new(secret.to_owned(), source()));
        Cipher { current: key(secret), next: next.map(key) }
    }

    #[test]
    fn a_text_is_opened_only_in_its_own_place() {
        let cipher = cipher("one", None);
        let sealed = cipher.seal("a", b"here", b"page".to_vec()).expect("there is randomness");
        assert_eq!(cipher.open("a", b"here", &sealed).as_deref(), Some(&b"page"[..]));
        assert_eq!(cipher.open("b", b"here", &sealed), None);
        assert_eq!(cipher.open("a", b"there", &sealed), None);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(cipher.open("a", b"here", &changed), None, "byte {index}");
            assert_eq!(cipher.open("a", b"here", &sealed[..index]), None, "{index} bytes");
        }
    }

    #[test]
    fn a_secret_is_rotated_without_losing_what_is_sealed() {
        let (before, both, after) = (cipher("one", None), cipher("two", Some("one")), cipher("two", None));
        let old = before.seal("a", b"", b"page".to_vec()).expect("there is randomness");
        let new = both.seal("a", b"", b"page".to_vec()).expect("there is randomness");
        assert!(both.open("a", b"", &old).is_some() && both.open("a", b"", &new).is_some());
        assert!(after.open("a", b"", &new).is_some() && after.open("a", b"", &old).is_none());
    }
}
