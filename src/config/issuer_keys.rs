//! `keys` of an issuer: a JWKS behind a URL, a file, or a shared secret.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connection::{CaFile, Connection, MAX_CONNECTION_AGE, Proxy, SUSPECT_AFTER};
use super::resolver::Resolver;
use super::secret::Secret;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::string_setting;
use super::units::{AnyDuration, PositiveDuration};
use super::url::ServerUrl;
use crate::jwks::KeySet;

/// Shortest secret for HMAC-SHA-256 (RFC 7518, 3.2), in bytes.
const SHORTEST_SECRET: usize = 32;
/// Largest JWKS document that is read, in bytes.
const LARGEST_JWKS: usize = 256 << 10;
/// Interval between two fetches of a JWKS, if the file has none.
const REFRESH: Duration = Duration::from_mins(5);
/// Shortest pause between two fetches of a JWKS, if the file has none.
const COOLDOWN: Duration = Duration::from_secs(30);

/// The source of an issuer's keys: one of `url`, `file` and `secret`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerKeys {
    /// URL of a JWKS.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<JwksUrl>,
    /// A JWKS or a PEM public key; relative to the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    file: Option<PathBuf>,
    /// The secret that its tokens are signed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Secret>,
    /// PEM file of authorities to trust for the URL instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<CaFile>,
    /// Interval between two fetches of the URL. 5m unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh: Option<PositiveDuration>,
    /// Shortest pause between two fetches for tokens with unknown keys. 30s unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    cooldown: Option<AnyDuration>,
    /// The proxy that the environment names for the URL; filled by `check`.
    #[serde(skip)]
    proxy: Option<Proxy>,
    /// The keys of `file` or `secret`; filled by `check`.
    #[serde(skip)]
    fixed: Option<Arc<KeySet>>,
}

/// The keys themselves, or the place to fetch them from.
#[derive(Clone, Debug)]
pub enum KeyOrigin {
    /// The keys are part of the configuration.
    Fixed(Arc<KeySet>),
    /// The keys are fetched.
    Remote(Box<RemoteJwks>),
}

/// A JWKS document behind a URL.
#[derive(Clone, Debug)]
pub struct RemoteJwks {
    /// The connection to its server.
    pub connection: Connection,
    /// Path and query.
    pub target: PathAndQuery,
    /// Interval between two fetches.
    pub refresh: Duration,
    /// Shortest pause between two fetches, however many tokens name an unknown key.
    pub cooldown: Duration,
}

impl IssuerKeys {
    /// The keys, or the place to fetch them from.
    ///
    /// # Panics
    /// If the configuration is unchecked; `Config::parse` reads the keys of a file or secret.
    #[must_use]
    pub fn origin(&self) -> KeyOrigin {
        let Some(JwksUrl(url)) = &self.url else {
            return KeyOrigin::Fixed(Arc::clone(self.fixed.as_ref().expect("Config::parse reads fixed keys")));
        };
        KeyOrigin::Remote(Box::new(RemoteJwks {
            connection: Connection {
                base_url: url.origin.clone(),
                proxy: self.proxy.clone(),
                ca_file: self.ca_file.clone(),
                connect_timeout: Duration::from_secs(2),
                first_byte_timeout: Duration::from_secs(5),
                total_timeout: Duration::from_secs(10),
                max_body: LARGEST_JWKS,
                pool_idle_per_worker: 1,
                pool_idle_timeout: Duration::from_secs(5),
                max_connection_age: MAX_CONNECTION_AGE,
                suspect_after: SUSPECT_AFTER,
            },
            target: url.target.clone(),
            refresh: self.refresh.map_or(REFRESH, |refresh| refresh.0),
            cooldown: self.cooldown.map_or(COOLDOWN, |cooldown| cooldown.0),
        }))
    }

    /// Returns true if tokens are signed with a shared secret.
    pub(super) fn is_symmetric(&self) -> bool {
        self.secret.is_some()
    }

    pub(super) fn check(&mut self, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        match (&self.url, &mut self.file, &mut self.secret) {
            (Some(JwksUrl(url)), None, None) => {
                self.proxy = resolver.proxy(&url.origin, &at.key("url"))?;
                resolver.ca_file(&mut self.ca_file, &at.key("ca_file"))?;
            }
            (None, Some(path), None) => {
                resolver.path(path);
                let refused =
                    |why: &dyn fmt::Display| at.key("file").refuse(format!("the key file {}: {why}", path.display()));
                let text = resolver.read(path).map_err(|error| refused(&error))?;
                let keys = KeySet::parse(&text).map_err(|error| refused(&error))?;
                self.fixed = Some(Arc::new(keys));
            }
            (None, None, Some(secret)) => {
                let at = at.key("secret");
                resolver.secret(secret, &at)?;
                if secret.expose().len() < SHORTEST_SECRET {
                    let message = format!("a secret for HS256 has at least {SHORTEST_SECRET} bytes (RFC 7518, 3.2)");
                    return Err(at.refuse(message));
                }
                self.fixed = Some(Arc::new(KeySet::of_secret(secret.expose().as_bytes())));
            }
            _ => return Err(at.refuse("exactly one of `url`, `file` and `secret` is the source of the keys")),
        }
        Ok(())
    }
}

/// The URL of a JWKS: https, or http on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JwksUrl(ServerUrl);

impl JwksUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let url = ServerUrl::parse(text).and_then(|url| {
            let is_loopback = matches!(url.origin.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
            // On the way to another host an attacker could replace the keys.
            let is_safe = is_loopback || url.origin.scheme_str() == Some("https");
            if is_safe { Ok(Self(url)) } else { Err("keys are fetched by https from another host") }
        });
        url.map_err(|why| format!("{why}; write a URL like \"https://host/path\""))
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

string_setting!(JwksUrl, "^https?://");
