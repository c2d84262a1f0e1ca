//! `Authorization: Bearer` (RFC 6750, 2.1) with a session token of Refold's, which can't be verified here.

use http::HeaderValue;

/// The token of a `Bearer` credential; `None` for any other scheme or a token that is not of the RFC's alphabet.
pub(super) fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let value = authorization.as_bytes();
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    let token = rest.trim_ascii();
    // b64token of RFC 6750.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty() && token.iter().all(allowed)).then_some(token)
}

/// The one spelling of the credential that goes upstream.
pub(super) fn canonical(token: &[u8]) -> HeaderValue {
    let mut value = b"Bearer ".to_vec();
    value.extend_from_slice(token);
    // Its bytes are those of a header value that came in.
    let mut value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_token_of_the_rfcs_alphabet_is_taken() {
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
