//! Public keys of a token issuer, from a JWKS document (RFC 7517), a PEM file, or a configured secret.
//!
//! A key is bound to the algorithms of its type: a token whose header names another algorithm matches no key. So an RSA key
//! is never used as an HMAC secret, whatever the token's header says (RFC 8725, 3.1), and a secret never comes from a JWKS
//! document.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::digest::sha256;

/// Maximum number of keys that are read from one document.
const MAX_KEYS: usize = 64;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet(Vec<VerificationKey>);

/// A key that verifies signatures, with the algorithms that it may be used with.
#[derive(Debug)]
pub struct VerificationKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    /// The key itself.
    pub key: DecodingKey,
    fingerprint: [u8; 32],
}

/// The reason why a text yields no [`KeySet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// The text begins like PEM, but holds no key of a supported type.
    #[error("it is no PEM public key (RSA, EC or Ed25519)")]
    NotPem,
    /// The text is not a JWKS document. The parser's own message is left out, since it can quote the text, which is a
    /// private key if the wrong file was configured.
    #[error("it is no JWKS document (an object with an array `keys`)")]
    NotJwks,
    /// The JWKS document has no signature key of a supported type.
    #[error("there is no signature key of a supported kind in it")]
    NoUsableKey,
}

impl KeySet {
    /// Creates a set without keys.
    #[must_use]
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// Returns whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Creates the set of an issuer that signs with HMAC-SHA-256 and one shared secret.
    #[must_use]
    pub fn of_secret(secret: &[u8]) -> Self {
        let key = DecodingKey::from_secret(secret);
        Self(vec![VerificationKey { id: None, algorithms: vec![Algorithm::HS256], key, fingerprint: sha256(secret) }])
    }

    /// Parses a PEM public key or a JWKS document. Keys of a JWKS document that are not for signatures, or of an unsupported
    /// type, are ignored (RFC 7517, 5).
    ///
    /// # Errors
    /// If the text is neither, or no key of it can be used.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.trim_ascii_start().starts_with(b"-----BEGIN") { Self::of_pem(text) } else { Self::of_jwks(text) }
    }

    fn of_pem(text: &[u8]) -> Result<Self, KeySetError> {
        let types: [(_, &[Algorithm]); 3] = [
            (DecodingKey::from_rsa_pem(text), RSA),
            (DecodingKey::from_ec_pem(text), &[Algorithm::ES256, Algorithm::ES384]),
            (DecodingKey::from_ed_pem(text), &[Algorithm::EdDSA]),
        ];
        let (key, algorithms) = types
            .into_iter()
            .find_map(|(key, algorithms)| key.ok().map(|key| (key, algorithms)))
            .ok_or(KeySetError::NotPem)?;
        Ok(Self(vec![VerificationKey { id: None, algorithms: algorithms.to_vec(), key, fingerprint: sha256(text) }]))
    }

    fn of_jwks(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<serde_json::Value>,
        }
        let jwks: Jwks = serde_json::from_slice(text).map_err(|_| KeySetError::NotJwks)?;
        let keys: Vec<VerificationKey> = jwks.keys.iter().take(MAX_KEYS).filter_map(VerificationKey::of_jwk).collect();
        if keys.is_empty() { Err(KeySetError::NoUsableKey) } else { Ok(Self(keys)) }
    }

    /// Returns the keys that may have signed a token whose header has this `alg` and `kid`.
    pub fn matching(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &VerificationKey> {
        self.0.iter().filter(move |key| key.may_be(id) && key.algorithms.contains(&algorithm))
    }

    /// Returns whether a key may be the one that the `kid` of a token's header names.
    #[must_use]
    pub fn has(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| key.may_be(id))
    }

    /// Returns whether every key of `older` is still in this set.
    #[must_use]
    pub fn includes(&self, older: &Self) -> bool {
        older.0.iter().all(|old| self.0.iter().any(|new| new.id == old.id && new.fingerprint == old.fingerprint))
    }
}

/// Two sets are equal if they have the same keys, in any order.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.includes(other) && other.includes(self)
    }
}

impl Eq for KeySet {}

impl VerificationKey {
    fn of_jwk(value: &serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let possible: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            // A symmetric key in a public document is not secret.
            _ => return None,
        };
        let algorithms = match jwk.common.key_algorithm {
            None => possible.to_vec(),
            Some(named) => vec![algorithm(named).filter(|named| possible.contains(named))?],
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let fingerprint = sha256(value.to_string().as_bytes());
        Some(Self { id: jwk.common.key_id, algorithms, key, fingerprint })
    }

    /// Returns whether this may be the key with the id. `kid` is optional in a key and in a token (RFC 7517, 4.5), so either one
    /// without it matches every other.
    fn may_be(&self, id: Option<&str>) -> bool {
        id.is_none() || self.id.is_none() || self.id.as_deref() == id
    }
}

fn algorithm(named: KeyAlgorithm) -> Option<Algorithm> {
    Some(match named {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::PS256 => Algorithm::PS256,
        KeyAlgorithm::PS384 => Algorithm::PS384,
        KeyAlgorithm::PS512 => Algorithm::PS512,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
        _ => return None,
    })
}
