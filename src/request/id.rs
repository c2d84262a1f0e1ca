//! The id of a request.

use std::fmt;

use http::HeaderValue;

const LENGTH: usize = uuid::fmt::Hyphenated::LENGTH;

/// A random UUID (RFC 9562, version 4). Unique, not secret.
#[derive(Clone, Copy)]
pub struct RequestId([u8; LENGTH]);

impl RequestId {
    /// A new random id. Part of the hit path: stored as text, so that it is formatted once.
    #[must_use]
    pub fn new() -> Self {
        let uuid = uuid::Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = [0; LENGTH];
        uuid.hyphenated().encode_lower(&mut text);
        Self(text)
    }

    /// The id as ASCII text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value of `x-request-id`.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "never panics")]
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("a UUID is visible ASCII")
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.0).expect("a UUID is ASCII"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_random_uuids() {
        let (one, other) = (RequestId::new(), RequestId::new());
        assert_ne!(one.as_bytes(), other.as_bytes());
        let read: uuid::Uuid = one.to_string().parse().expect("a UUID");
        assert_eq!((read.get_version_num(), read.to_string()), (4, one.to_string()));
        assert_eq!(one.header(), one.to_string());
    }
}
