//! A secret that can be used but not printed.

use std::fmt;

use zeroize::Zeroizing;

/// An org API key, token or other secret. `Debug` prints `[redacted]`, there is no `Display` and no `Serialize`, and the
/// memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret in.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The secret itself. Call it only where it is compared, hashed or written to the upstream.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_prints_as_redacted() {
        assert_eq!(format!("{:?}", Some(Secret::new("pk_live_1".to_owned()))), "Some([redacted])");
    }
}
