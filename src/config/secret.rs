//! A secret that can be used but not printed.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use zeroize::Zeroizing;

/// An org API key, token or other secret. `Debug` prints `[redacted]`, there is no `Display` and no `Serialize`, and the
/// memory is wiped when it is dropped. It remembers where it came from, which may be shown.
#[derive(Clone)]
pub struct Secret {
    value: Zeroizing<String>,
    source: Provenance,
}

/// Where a secret comes from, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
}

impl Secret {
    /// Takes a secret in.
    #[must_use]
    pub fn new(value: String, source: Provenance) -> Self {
        Self { value: Zeroizing::new(value), source }
    }

    /// The secret itself. Call it only where it is compared, hashed or written to the upstream.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &Provenance {
        &self.source
    }
}

/// Wherever they come from.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::{Provenance, Secret};

    #[test]
    fn a_secret_prints_as_redacted() {
        let secret = Secret::new("pk_live_1".to_owned(), Provenance::Env("KEY".to_owned()));
        assert_eq!(format!("{:?}", Some(secret)), "Some([redacted])");
    }
}
