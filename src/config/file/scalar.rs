//! Values that are one text or one small choice: what they look like, and what somebody is told who writes them wrong.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::config::model::ListenAddress;
use crate::config::schema::by_hand;

/// What somebody is told who writes a secret into the file.
pub(in crate::config) const LITERAL_SECRET: &str =
    "secrets are not written in the file; use { env = \"VARIABLE\" } or { file = \"/path\" }";

#[derive(Debug)]
pub(in crate::config) struct Address(pub(in crate::config) ListenAddress);

#[derive(Debug)]
pub(in crate::config) struct BaseUrl(pub(in crate::config) http::Uri);

/// Where a secret is to be had.
#[derive(Debug)]
pub(in crate::config) enum SecretSource {
    Variable(String),
    File(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::config) struct Sha256(pub(in crate::config) [u8; 32]);

#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Expiry(pub(in crate::config) Timestamp);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix("unix:") {
            Some("") => Err(de::Error::custom("the path after `unix:` is missing")),
            Some(path) => Ok(Self(ListenAddress::Unix(path.into()))),
            None => text.parse().map(|address| Self(ListenAddress::Tcp(address))).map_err(|_| {
                de::Error::custom(format!(
                    "`{text}` is no address; write an IP address and a port like \"127.0.0.1:8080\", or \"unix:/path\""
                ))
            }),
        }
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refused =
            |why| de::Error::custom(format!("{why}; write scheme and host, like \"https://api.gocobalt.io\""));
        let uri: http::Uri = text.parse().map_err(|_| refused("this is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refused("the URL has to begin with http:// or https://"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refused("the URL must not hold a user name or password"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(refused("the URL must not have a path or query"));
        }
        Ok(Self(uri))
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum Key {
            Env,
            File,
        }
        struct Source;
        impl<'de> Visitor<'de> for Source {
            type Value = SecretSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{ env = \"VARIABLE\" } or { file = \"/path\" }")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretSource, E> {
                Err(E::custom(LITERAL_SECRET))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretSource, A::Error> {
                let source = match map.next_key()? {
                    Some(Key::Env) => SecretSource::Variable(map.next_value()?),
                    Some(Key::File) => SecretSource::File(map.next_value()?),
                    None => return Err(de::Error::custom("one of `env` and `file` is needed")),
                };
                match map.next_key::<Key>()? {
                    None => Ok(source),
                    Some(_) => Err(de::Error::custom("`env` and `file` can't both be there")),
                }
            }
        }
        deserializer.deserialize_any(Source)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        // Not echoed: it may be the key itself, by mistake.
        let refused = || de::Error::custom("a SHA-256 has 64 hexadecimal digits; `postern keygen` prints one");
        if text.len() != 64 {
            return Err(refused());
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(Self(digest))
    }
}

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Toml(toml::value::Datetime),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Toml(datetime) => datetime.to_string(),
            Written::Text(text) => text,
        };
        let midnight = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
        let found = if text.len() == 10 { text.parse().ok().and_then(midnight) } else { text.parse().ok() };
        found.map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is no moment; write a date or a date-time with offset, like 2027-01-01T00:00:00Z"
            ))
        })
    }
}

/// For the schema's default.
impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.to_string().trim_end_matches('/'))
    }
}

by_hand!(Address, { "type": "string", "pattern": "^(unix:.+|.+:[0-9]{1,5})$" });
by_hand!(BaseUrl, { "type": "string", "pattern": "^https?://[^/?#@]+/?$" });
by_hand!(Sha256, { "type": "string", "pattern": "^[0-9A-Fa-f]{64}$" });
// Editors give TOML's own dates as text.
by_hand!(Expiry, { "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}" });
by_hand!(SecretSource, {
    "type": "object",
    "properties": {
        "env": { "type": "string", "description": "The environment variable that holds it." },
        "file": { "type": "string", "description": "The file that holds it; relative to the configuration file." },
    },
    "additionalProperties": false,
    "minProperties": 1,
    "maxProperties": 1,
});
