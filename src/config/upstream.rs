//! `[upstream]`: the address of Refold, and limits for requests to it.

use std::num::NonZeroU32;
use std::time::Duration;

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::connection::{CaFile, Connection, MAX_CONNECTION_AGE, Proxy, SUSPECT_AFTER};
use super::resolver::Resolver;
use super::schema_as::schema_as;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::parse_string;
use super::units::{ByteSize, Count, PositiveDuration, PositiveSize, non_zero};
use super::url::parse_server_url;
use crate::executions::Dialect;

/// The address of Refold, and limits for requests to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// Scheme and host of Refold, and the path below which its API is, if any.
    #[serde(with = "BaseUrl")]
    pub base_url: Uri,
    /// Spelling of filters upstream.
    pub dialect: Dialect,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    pub ca_file: Option<CaFile>,
    /// The HTTP proxy for Refold: its URL, "off", or "environment" for HTTPS_PROXY and NO_PROXY.
    #[serde(with = "ProxySetting")]
    pub proxy: ProxySetting,
    /// The proxy in effect; filled by `check`.
    #[serde(skip)]
    resolved_proxy: Option<Proxy>,
    /// Time limit for name look-up, proxy CONNECT, TCP and TLS together.
    #[serde(with = "PositiveDuration")]
    pub connect_timeout: Duration,
    /// Time limit for connecting and the response head together.
    #[serde(with = "PositiveDuration")]
    pub first_byte_timeout: Duration,
    /// Time limit for the whole exchange.
    #[serde(with = "PositiveDuration")]
    pub total_timeout: Duration,
    /// Largest response body that is accepted.
    #[serde(with = "PositiveSize")]
    pub max_response_body: ByteSize,
    /// Idle connections that each worker keeps open.
    pub pool_idle_per_worker: usize,
    /// An idle connection is closed after this time, also without traffic.
    #[serde(with = "PositiveDuration")]
    pub pool_idle_timeout: Duration,
    /// A connection is replaced after this time, less up to a fifth of it, so that a name that moves is followed.
    #[serde(with = "PositiveDuration")]
    pub max_connection_age: Duration,
    /// Silence on all of a worker's connections after which a waiting read is also sent on a new one, to tell dead connections
    /// from a slow Refold.
    #[serde(with = "PositiveDuration")]
    pub suspect_after: Duration,
    /// Concurrent requests; more would only queue in an upstream that has become slow.
    #[serde(with = "Count")]
    pub max_concurrent: usize,
    /// Retries of a read that failed (no connection, 429, 502, 503, 504), as long as they are at most a fifth of all requests.
    pub retries: u8,
    /// Ask Refold whether it accepts the org keys: at start, for each new key, and after a 401 to one.
    pub verify_key: VerifyKey,
    /// Longest pause that a `Retry-After` of Refold can ask for: after a 429 nothing is fetched with that org key until then.
    #[serde(with = "PositiveDuration")]
    pub max_retry_after: Duration,
    /// Circuit breaker: pauses requests while Refold fails.
    pub breaker: BreakerSettings,
}

/// Checks of the org keys, and the effect of a refused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyKey {
    /// Refold is never asked.
    Off,
    /// Log, metric and status page show it. Readiness is not affected.
    Warn,
    /// As `warn`; also, the tenant is not ready at start until Refold has not refused a key.
    Require,
}

/// Settings of the circuit breaker, which pauses requests while the upstream fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// Failures within 10 seconds that open a tenant's circuit, if at least half of its fetches fail, over at least two linked accounts
    /// or the only active one. Failures: no connection (for all tenants), time-outs, 502, 503, 504.
    #[serde(with = "Count")]
    pub failures: NonZeroU32,
    /// Time that the circuit stays open; then one request probes.
    #[serde(with = "PositiveDuration")]
    pub open_for: Duration,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            base_url: Uri::from_static("https://api.gocobalt.io"),
            dialect: Dialect::Documented,
            ca_file: None,
            proxy: ProxySetting::Environment,
            resolved_proxy: None,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(15),
            max_response_body: ByteSize::from_bytes(16 << 20),
            pool_idle_per_worker: 32,
            pool_idle_timeout: Duration::from_mins(1),
            max_connection_age: MAX_CONNECTION_AGE,
            suspect_after: SUSPECT_AFTER,
            max_concurrent: 100,
            retries: 2,
            verify_key: VerifyKey::Warn,
            max_retry_after: Duration::from_mins(10),
            breaker: BreakerSettings::default(),
        }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: non_zero(10), open_for: Duration::from_secs(5) }
    }
}

impl UpstreamConfig {
    pub(super) fn check(&mut self, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        resolver.ca_file(&mut self.ca_file, &at.key("ca_file"))?;
        self.resolved_proxy = match &self.proxy {
            ProxySetting::Environment => resolver.proxy(&self.base_url, &at.key("proxy"))?,
            ProxySetting::Off => None,
            ProxySetting::Url(url) => Some(Proxy { url: url.clone(), authorization: None }),
        };
        Ok(())
    }

    /// The connection settings for the client.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection {
            base_url: self.base_url.clone(),
            proxy: self.resolved_proxy.clone(),
            ca_file: self.ca_file.clone(),
            connect_timeout: self.connect_timeout,
            first_byte_timeout: self.first_byte_timeout,
            total_timeout: self.total_timeout,
            max_body: self.max_response_body.as_usize(),
            pool_idle_per_worker: self.pool_idle_per_worker,
            pool_idle_timeout: self.pool_idle_timeout,
            max_connection_age: self.max_connection_age,
            suspect_after: self.suspect_after,
        }
    }
}

/// The choice of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxySetting {
    /// The one that the environment names, if any.
    Environment,
    /// None.
    Off,
    /// The one with this URL, which has no credentials.
    Url(Uri),
}

impl ProxySetting {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer, |text| match text {
            "environment" => Ok(Self::Environment),
            "off" => Ok(Self::Off),
            url => match BaseUrl::parse(url) {
                Ok(proxy) if proxy.path() == "/" => Ok(Self::Url(proxy)),
                Ok(_) => Err("the URL of a proxy must not have a path".to_owned()),
                Err(why) => Err(format!("{why}; write \"environment\", \"off\", or a URL like \"http://proxy:3128\"")),
            },
        })
    }

    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Environment => serializer.serialize_str("environment"),
            Self::Off => serializer.serialize_str("off"),
            Self::Url(url) => BaseUrl::serialize(url, serializer),
        }
    }
}

schema_as!(ProxySetting, { "type": "string", "pattern": "^(environment|off|https?://[^/?#@]+/?)$" });

/// Scheme and host of a server, and a path, as `Uri`.
struct BaseUrl;

impl BaseUrl {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
        parse_string(deserializer, |text| {
            Self::parse(text).map_err(|why| format!("{why}; write scheme and host, like \"https://api.gocobalt.io\""))
        })
    }

    fn parse(text: &str) -> Result<Uri, &'static str> {
        let uri = parse_server_url(text)?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("the URL must not hold a user name or password");
        }
        if uri.query().is_some() {
            return Err("the URL must not have a query");
        }
        Ok(uri)
    }

    fn serialize<S: Serializer>(url: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.to_string().trim_end_matches('/'))
    }
}

schema_as!(BaseUrl, { "type": "string", "pattern": "^https?://[^/?#@]+(/[^?#]*)?$" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_that_cannot_be_connected_to_is_refused() {
        let parsed = |url: &str| toml::from_str::<UpstreamConfig>(&format!("base_url = \"{url}\""));
        assert!(parsed("https://a.example:8443").is_ok());
        for url in ["https://a.example:99999", "http://a.example:0", "https://a.example:", "https://[::1]:65536"] {
            let error = parsed(url).expect_err(url).to_string();
            assert!(error.contains("the URL's port has to be a number from 1 to 65535; write"), "{error}");
        }
    }
}
