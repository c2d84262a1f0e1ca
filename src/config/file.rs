//! The configuration file as it is written: its tables, keys and defaults. What takes more than one value to judge is left
//! to `validate`.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::model::{ListenAddress, RequestDirective};
use super::observe;
use super::units::{Bound, Count, Length, Size};

/// What somebody is told who writes a secret into the file.
pub(super) const LITERAL_SECRET: &str =
    "secrets are not written in the file; use { env = \"VARIABLE\" } or { file = \"/path\" }";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listeners: Option<Spanned<Vec<Listener>>>,
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) upstream: Upstream,
    #[serde(default)]
    pub(super) query: Query,
    #[serde(default)]
    pub(super) cache: Cache,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) tenants: Vec<Tenant>,
    #[serde(default)]
    pub(super) issuers: Vec<super::issuer::Written>,
    pub(super) cors: Option<Cors>,
    #[serde(default)]
    pub(super) pass_through: Vec<PassThrough>,
    #[serde(default)]
    pub(super) log: observe::WrittenLog,
    #[serde(default)]
    pub(super) traces: observe::WrittenTraces,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) address: Address,
    pub(super) session_tokens: Option<Spanned<String>>,
    pub(super) trusted: Option<Spanned<Trusted>>,
    pub(super) tls: Option<Spanned<Tls>>,
    pub(super) socket: Option<Spanned<SocketFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) client_ca: Option<String>,
    #[serde(default)]
    pub(super) client_certificate: ClientCertificates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientCertificates {
    #[default]
    Optional,
    Required,
}

/// Who may connect to a Unix socket.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SocketFile {
    pub(super) mode: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
}

/// A listener that is a credential itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trusted {
    pub(super) tenant: Spanned<String>,
    #[serde(default = "every_account")]
    pub(super) linked_accounts: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) access: Access,
}

fn every_account() -> Spanned<Vec<Spanned<String>>> {
    Spanned::new(0..0, vec![Spanned::new(0..0, "*".to_owned())])
}

#[derive(Debug)]
pub(super) struct Address(pub(super) ListenAddress);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub(super) workers: u16,
    pub(super) header_timeout: Bound,
    pub(super) idle_timeout: Bound,
    pub(super) body_timeout: Bound,
    pub(super) max_header_size: Size,
    pub(super) max_uri_length: Size,
    pub(super) max_request_body: Size,
    pub(super) drain_timeout: Length,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    pub(super) base_url: BaseUrl,
    pub(super) dialect: Dialect,
    pub(super) ca_file: Option<String>,
    pub(super) connect_timeout: Bound,
    pub(super) first_byte_timeout: Bound,
    pub(super) total_timeout: Bound,
    pub(super) max_response_body: Size,
    pub(super) pool_idle_per_worker: usize,
    pub(super) pool_idle_timeout: Bound,
    pub(super) retries: u8,
    pub(super) breaker: Breaker,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Breaker {
    pub(super) failures: Count,
    pub(super) open_for: Bound,
}

#[derive(Debug)]
pub(super) struct BaseUrl(pub(super) http::Uri);

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dialect {
    Documented,
    V3,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Query {
    pub(super) max_limit: Count,
    pub(super) unknown_parameters: Unknown,
    pub(super) ignored_parameters: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unknown {
    Reject,
    Forward,
    Drop,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cache {
    pub(super) capacity: Size,
    pub(super) honour_no_store: bool,
    pub(super) freshness: Freshness,
    pub(super) stale: Stale,
}

/// Requests of the rest of the API that may pass.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PassThrough {
    pub(super) methods: Spanned<Vec<String>>,
    pub(super) path: Spanned<String>,
    #[serde(default = "no_headers")]
    pub(super) request_headers: Spanned<Vec<String>>,
    #[serde(default = "pass_through_body")]
    pub(super) max_body: Size,
}

fn no_headers() -> Spanned<Vec<String>> {
    Spanned::new(0..0, Vec::new())
}

fn pass_through_body() -> Size {
    Size(16 << 20)
}

/// Browser pages of other origins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cors {
    pub(super) origins: Vec<Spanned<String>>,
    #[serde(default = "preflight_max_age")]
    pub(super) max_age: Length,
}

fn preflight_max_age() -> Length {
    Length(std::time::Duration::from_mins(10))
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Freshness {
    pub(super) live: Option<Length>,
    pub(super) recent: Option<Length>,
    pub(super) closed: Option<Length>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stale {
    pub(super) while_revalidate: Option<Length>,
    pub(super) if_error: Option<Length>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) client: ClientLimits,
    pub(super) upstream: UpstreamLimits,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientLimits {
    pub(super) per_second: Option<Count>,
    pub(super) burst: Option<Count>,
    pub(super) max_partitions: Option<Count>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UpstreamLimits {
    pub(super) per_second: Option<Count>,
    pub(super) burst: Option<Count>,
    pub(super) max_wait: Option<Length>,
    pub(super) max_queue: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) id: Spanned<String>,
    pub(super) mode: Spanned<Mode>,
    pub(super) org_key: Spanned<SecretSource>,
    pub(super) org_key_next: Option<Spanned<SecretSource>>,
    #[serde(default)]
    pub(super) freshness: Freshness,
    #[serde(default)]
    pub(super) stale: Stale,
    #[serde(default)]
    pub(super) webhooks: bool,
    #[serde(default)]
    pub(super) request_directives: Vec<RequestDirective>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) client_keys: Vec<ClientKey>,
    #[serde(default)]
    pub(super) client_certificates: Vec<ClientCertificate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Inject,
    Validate,
}

/// Where a secret is to be had.
#[derive(Debug)]
pub(super) enum SecretSource {
    Variable(String),
    File(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientKey {
    pub(super) name: Spanned<String>,
    pub(super) sha256: Spanned<Sha256>,
    pub(super) linked_accounts: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) access: Access,
    pub(super) expires: Option<Expiry>,
    pub(super) per_second: Option<Spanned<Count>>,
    pub(super) burst: Option<Spanned<Count>>,
}

/// Whoever shows a certificate with this name in it, from an authority of a listener's `client_ca`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCertificate {
    pub(super) name: Spanned<String>,
    pub(super) san: Spanned<String>,
    pub(super) linked_accounts: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sha256(pub(super) [u8; 32]);

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) enum Access {
    #[default]
    #[serde(rename = "read")]
    Read,
    #[serde(rename = "read+write")]
    ReadWrite,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry(pub(super) Timestamp);

const fn seconds(seconds: u64) -> Bound {
    Bound(std::time::Duration::from_secs(seconds))
}

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: 0,
            header_timeout: seconds(10),
            idle_timeout: seconds(75),
            body_timeout: seconds(30),
            max_header_size: Size(16 << 10),
            max_uri_length: Size(8 << 10),
            max_request_body: Size(1 << 20),
            drain_timeout: Length(seconds(30).0),
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            base_url: BaseUrl(http::Uri::from_static("https://api.gocobalt.io")),
            dialect: Dialect::Documented,
            ca_file: None,
            connect_timeout: seconds(2),
            first_byte_timeout: seconds(10),
            total_timeout: seconds(15),
            max_response_body: Size(16 << 20),
            pool_idle_per_worker: 32,
            pool_idle_timeout: seconds(60),
            retries: 2,
            breaker: Breaker::default(),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: Count(std::num::NonZeroU32::MIN.saturating_add(9)), open_for: seconds(5) }
    }
}

impl Default for Query {
    fn default() -> Self {
        Self {
            max_limit: Count(std::num::NonZeroU32::MIN.saturating_add(99)),
            unknown_parameters: Unknown::Reject,
            ignored_parameters: vec!["_".to_owned()],
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            capacity: Size(256 << 20),
            honour_no_store: true,
            freshness: Freshness::default(),
            stale: Stale::default(),
        }
    }
}

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
        #[derive(Deserialize)]
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
        #[derive(Deserialize)]
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
