//! Public keys of a token issuer, from a JWKS document (RFC 7517), a PEM file, or a configured secret.
//!
//! A key is bound to the algorithms that its kind can have: a token that names another one finds no key. So an RSA key
//! can't be taken for an HMAC secret, whatever a token's header says, and a secret can never come from a JWKS document.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::digest::sha256;

/// Most keys that are taken from one document.
const MAX_KEYS: usize = 64;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

/// Keys that can verify a signature.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// One of them.
#[derive(Debug)]
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    /// Verifies signatures.
    pub key: DecodingKey,
    fingerprint: [u8; 32],
}

/// A document that holds no key that can be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoKeys(String);

impl KeySet {
    /// No key at all.
    #[must_use]
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// The one secret of an issuer that signs with HMAC-SHA-256.
    #[must_use]
    pub fn of_secret(secret: &[u8]) -> Self {
        let key = DecodingKey::from_secret(secret);
        Self(vec![Key { id: None, algorithms: vec![Algorithm::HS256], key, fingerprint: sha256(secret) }])
    }

    /// Reads a PEM public key or a JWKS document. Keys in it that are not for signatures, or of a kind that is not
    /// supported, are left out.
    ///
    /// # Errors
    /// If there is no key in it that can be used.
    pub fn parse(text: &[u8]) -> Result<Self, NoKeys> {
        if text.trim_ascii_start().starts_with(b"-----BEGIN") { Self::of_pem(text) } else { Self::of_jwks(text) }
    }

    fn of_pem(text: &[u8]) -> Result<Self, NoKeys> {
        let known: [(_, &[Algorithm]); 3] = [
            (DecodingKey::from_rsa_pem(text), RSA),
            (DecodingKey::from_ec_pem(text), &[Algorithm::ES256, Algorithm::ES384]),
            (DecodingKey::from_ed_pem(text), &[Algorithm::EdDSA]),
        ];
        let (key, algorithms) = known
            .into_iter()
            .find_map(|(key, algorithms)| key.ok().map(|key| (key, algorithms)))
            .ok_or_else(|| NoKeys("it is no PEM public key (RSA, EC or Ed25519)".to_owned()))?;
        Ok(Self(vec![Key { id: None, algorithms: algorithms.to_vec(), key, fingerprint: sha256(text) }]))
    }

    fn of_jwks(text: &[u8]) -> Result<Self, NoKeys> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        // The parser's message can quote the document.
        let document: Document = serde_json::from_slice(text)
            .map_err(|_| NoKeys("it is no JWKS document (an object with an array `keys`)".to_owned()))?;
        let keys: Vec<Key> = document.keys.iter().take(MAX_KEYS).filter_map(Key::of_jwk).collect();
        if keys.is_empty() {
            return Err(NoKeys("there is no signature key of a supported kind in it".to_owned()));
        }
        Ok(Self(keys))
    }

    /// Keys for a token whose header names this algorithm and, perhaps, this key.
    pub fn matching(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            let named = match (id, key.id.as_deref()) {
                (Some(wanted), Some(known)) => wanted == known,
                // A key without a name is the only one of its file.
                (_, None) | (None, _) => true,
            };
            named && key.algorithms.contains(&algorithm)
        })
    }

    /// Whether a key with this name is here, or a nameless one that could be meant.
    #[must_use]
    pub fn has(&self, id: Option<&str>) -> bool {
        self.0.iter().any(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
    }

    /// Whether every key of `older` is still here.
    #[must_use]
    pub fn includes(&self, older: &Self) -> bool {
        older.0.iter().all(|old| self.0.iter().any(|new| new.id == old.id && new.fingerprint == old.fingerprint))
    }
}

/// The same keys, in any order.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.includes(other) && other.includes(self)
    }
}

impl Eq for KeySet {}

impl Key {
    fn of_jwk(value: &serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let able: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            // A secret in a public document is none.
            _ => return None,
        };
        let algorithms = match jwk.common.key_algorithm {
            None => able.to_vec(),
            Some(named) => vec![algorithm(named).filter(|named| able.contains(named))?],
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let fingerprint = sha256(value.to_string().as_bytes());
        Some(Self { id: jwk.common.key_id, algorithms, key, fingerprint })
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
