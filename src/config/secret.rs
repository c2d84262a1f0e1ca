//! Secrets: usable, but not printable.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::schema_as::schema_as;

/// Message for a secret that is written in the file itself.
pub(super) const LITERAL_SECRET: &str =
    "secrets are not written in the file; use { env = \"VARIABLE\" } or { file = \"/path\" }";

/// An org API key, token or other secret. `Debug` prints `[redacted]`, there is no `Display`, `Serialize` writes only its
/// source, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct Secret {
    source: SecretSource,
    /// `None` from deserialisation until `Resolver::secret`, which `Config::parse` runs for every secret.
    value: Option<Zeroizing<String>>,
}

/// The environment variable or file that a secret is read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
}

impl Secret {
    /// A secret with its value.
    #[must_use]
    pub fn new(value: String, source: SecretSource) -> Self {
        Self { source, value: Some(Zeroizing::new(value)) }
    }

    /// The secret itself. Call it only to compare it, hash it or send it upstream.
    ///
    /// # Panics
    /// If the configuration has not resolved it, which `Config::parse` does before it returns.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.as_ref().expect("Config::parse resolves every secret")
    }

    /// Returns true if the value has been read.
    pub(super) fn is_resolved(&self) -> bool {
        self.value.is_some()
    }

    /// The source that it is read from.
    #[must_use]
    pub fn source(&self) -> &SecretSource {
        &self.source
    }
}

/// Compares the values, not the sources.
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

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = deserializer.deserialize_any(SourceVisitor)?;
        Ok(Self { source, value: None })
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = SecretSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{ env = \"VARIABLE\" } or { file = \"/path\" }")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretSource, E> {
        Err(E::custom(LITERAL_SECRET))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum SourceKey {
            Env,
            File,
        }
        let source = match map.next_key()? {
            Some(SourceKey::Env) => SecretSource::Env(map.next_value()?),
            Some(SourceKey::File) => SecretSource::File(map.next_value()?),
            None => return Err(de::Error::custom("one of `env` and `file` is needed")),
        };
        match map.next_key::<SourceKey>()? {
            None => Ok(source),
            Some(_) => Err(de::Error::custom("`env` and `file` exclude each other")),
        }
    }
}

schema_as!(Secret, {
    "type": "object",
    "properties": {
        "env": { "type": "string", "description": "The environment variable that holds it." },
        "file": { "type": "string", "description": "The file that holds it; relative to the configuration file." },
    },
    "additionalProperties": false,
    "minProperties": 1,
    "maxProperties": 1,
    "writeOnly": true,
});

#[cfg(test)]
mod tests {
    use super::{Secret, SecretSource};

    /// The bytes at an address of this process.
    #[cfg(target_os = "linux")]
    fn memory_at(address: usize, length: usize) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; length];
        let memory = std::fs::File::open("/proc/self/mem").expect("Linux has it");
        memory.read_exact_at(&mut bytes, address as u64).expect("the allocator keeps its pages");
        bytes
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_of_a_secret_is_wiped_when_it_is_dropped() {
        // Short and long ones, and a copy. Of freed memory the allocator may use the first words for itself.
        for length in [64, 200, 5000] {
            let value = "S3cr3t".repeat(length / 6);
            let secret = Secret::new(value.clone(), SecretSource::Env("KEY".to_owned()));
            let copy = secret.clone();
            let places = [&secret, &copy].map(|secret| secret.expose().as_ptr().addr());
            for place in places {
                assert_eq!(memory_at(place, value.len()), value.as_bytes());
            }
            drop((secret, copy));
            for place in places {
                let left = memory_at(place, value.len());
                assert!(!left.windows(6).any(|word| word == b"S3cr3t"), "{length}");
            }
        }
    }

    #[test]
    fn a_secret_prints_as_redacted() {
        let secret = Secret::new("pk_live_1".to_owned(), SecretSource::Env("KEY".to_owned()));
        assert_eq!(format!("{:?}", Some(secret)), "Some([redacted])");
    }
}
