//! Session tokens: Refold's own bearer tokens (RFC 6750, 2.1). Only Refold can verify them.

use http::HeaderValue;
use memchr::memmem;

use crate::request::peer::Peer;
use crate::tenant::TokenDigest;

/// A session token, kept only to send it upstream.
#[derive(Clone)]
pub struct SessionToken {
    /// The value of `Authorization`; marked as sensitive.
    authorization: HeaderValue,
    digest: TokenDigest,
    sender: Peer,
}

impl SessionToken {
    /// Creates a session token; `digest` is the token's SHA-256. `Authorization` gets one canonical spelling. `sender` has sent it,
    /// and counts only until the token is accepted.
    pub(super) fn new(token: &[u8], digest: TokenDigest, sender: Peer) -> Self {
        let mut value = b"Bearer ".to_vec();
        value.extend_from_slice(token);
        let mut authorization = HeaderValue::try_from(value).expect("the token is part of a received header value");
        authorization.set_sensitive(true);
        Self { authorization, digest, sender }
    }

    /// The value of `Authorization` for upstream requests.
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// Returns true if a text contains the token.
    #[must_use]
    pub fn appears_in(&self, text: &[u8]) -> bool {
        let token = self.authorization.as_bytes().strip_prefix(b"Bearer ");
        token.is_some_and(|token| memmem::find(text, token).is_some())
    }

    /// SHA-256 of the token.
    pub(super) fn digest(&self) -> &TokenDigest {
        &self.digest
    }

    /// The peer that sent the token.
    pub(super) fn sender(&self) -> Peer {
        self.sender
    }

    /// The token's `exp` claim, in seconds since 1970, if it is a JWT. Not verified, so use it only to shorten a lifetime.
    #[must_use]
    pub fn unverified_expiry(&self) -> Option<i64> {
        let token = self.authorization.as_bytes().strip_prefix(b"Bearer ")?;
        let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
        claims.get("exp")?.as_i64()
    }
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Returns the token of a `Bearer` credential; `None` for another scheme or a character outside RFC 6750's `b64token`.
pub(super) fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let value = authorization.as_bytes();
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    let token = rest.trim_ascii();
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty() && token.iter().all(is_allowed)).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_of_the_rfcs_alphabet_is_accepted() {
        let token = |value: &str| {
            let value = HeaderValue::from_str(value).expect("a header value");
            bearer(&value).map(|token| String::from_utf8_lossy(token).into_owned())
        };
        assert_eq!(token("Bearer abc.DEF-1_~+/=").as_deref(), Some("abc.DEF-1_~+/="));
        assert_eq!(token("bEARER  abc ").as_deref(), Some("abc"));
        for value in ["", "Bearer", "Bearer ", "Basic abc", "Bearerabc", "Bearer a b", "Bearer a,b", "Bearer \u{e9}"] {
            assert_eq!(token(value), None, "{value}");
        }
    }
}
