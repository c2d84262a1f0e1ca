//! Verification of a JWT's signature (RFC 7515, RFC 8725).

use jsonwebtoken::{Algorithm, Header, crypto};

use crate::jwks::KeySet;

/// The reason why a signature is not valid.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("the header can't be decoded: {0}")]
    Header(#[source] jsonwebtoken::errors::Error),
    #[error("the issuer does not sign with {0:?}")]
    Algorithm(Algorithm),
    #[error("the header has a parameter that is not supported (a key, `crit`, `enc` or `zip`)")]
    UnsupportedParameter,
    /// The issuer has no key that the `kid` of the header can refer to.
    #[error("the issuer has no key with the `kid` of the token")]
    UnknownKey,
    #[error("no key of the issuer verifies the signature")]
    Mismatch,
}

/// Verifies the signature of a token with one of an issuer's keys.
pub(super) fn verify(token: &[u8], algorithms: &[Algorithm], keys: &KeySet) -> Result<(), SignatureError> {
    let header = jsonwebtoken::decode_header(token).map_err(SignatureError::Header)?;
    if !algorithms.contains(&header.alg) {
        return Err(SignatureError::Algorithm(header.alg));
    }
    if has_unsupported_parameters(&header) {
        return Err(SignatureError::UnsupportedParameter);
    }
    let mut parts = token.rsplitn(2, |byte| *byte == b'.');
    let (Some(signature), Some(message)) = (parts.next(), parts.next()) else { return Err(SignatureError::Mismatch) };
    let signature = std::str::from_utf8(signature).map_err(|_| SignatureError::Mismatch)?;
    let id = header.kid.as_deref();
    if !keys.has(id) {
        return Err(SignatureError::UnknownKey);
    }
    let is_valid = keys
        .matching(id, header.alg)
        .any(|key| crypto::verify(signature, message, &key.key, header.alg).unwrap_or(false));
    if is_valid { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Returns whether the header contains a key or the URL of one (`jku`, `jwk`, `x5u`, `x5c`), which the sender of a forged
/// token can choose (RFC 8725, 3.10), or requires processing that is not supported (`crit`, `enc`, `zip`; RFC 7515,
/// 4.1.11).
fn has_unsupported_parameters(header: &Header) -> bool {
    header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
}
