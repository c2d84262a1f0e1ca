//! `[upstream]`: the address of Refold, and limits for requests to it.

use std::num::NonZeroU32;
use std::time::Duration;

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::connection::{CaFile, Connection};
use super::schema_as::schema_as;
use super::text::parse_string;
use super::units::{ByteSize, Count, PositiveDuration, non_zero};
use crate::executions::Dialect;

/// The address of Refold, and limits for requests to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Scheme and host of Refold.
    #[serde(with = "BaseUrl")]
    pub base_url: Uri,
    /// Spelling of filters upstream.
    pub dialect: Dialect,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    pub ca_file: Option<CaFile>,
    /// Time limit for connecting.
    #[serde(with = "PositiveDuration")]
    pub connect_timeout: Duration,
    /// Time limit for connecting and the response head together.
    #[serde(with = "PositiveDuration")]
    pub first_byte_timeout: Duration,
    /// Time limit for the whole exchange.
    #[serde(with = "PositiveDuration")]
    pub total_timeout: Duration,
    /// Largest response body that is accepted.
    pub max_response_body: ByteSize,
    /// Idle connections that each worker keeps open.
    pub pool_idle_per_worker: usize,
    /// An idle connection is closed after this time.
    #[serde(with = "PositiveDuration")]
    pub pool_idle_timeout: Duration,
    /// Concurrent requests; more would only queue in an upstream that has become slow.
    #[serde(with = "Count")]
    pub max_concurrent: usize,
    /// Retries of a read that failed (no connection, 502, 503, 504), as long as they are at most a fifth of all requests.
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

impl Default for Upstream {
    fn default() -> Self {
        Self {
            base_url: Uri::from_static("https://api.gocobalt.io"),
            dialect: Dialect::Documented,
            ca_file: None,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(15),
            max_response_body: ByteSize::from_bytes(16 << 20),
            pool_idle_per_worker: 32,
            pool_idle_timeout: Duration::from_mins(1),
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

impl Upstream {
    /// The connection settings for the client.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection {
            base_url: self.base_url.clone(),
            ca_file: self.ca_file.clone(),
            connect_timeout: self.connect_timeout,
            first_byte_timeout: self.first_byte_timeout,
            total_timeout: self.total_timeout,
            max_body: self.max_response_body.as_usize(),
            pool_idle_per_worker: self.pool_idle_per_worker,
            pool_idle_timeout: self.pool_idle_timeout,
        }
    }
}

/// Scheme and host of a server, with no path, as `Uri`.
struct BaseUrl;

impl BaseUrl {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
        parse_string(deserializer, |text| {
            Self::parse(text).map_err(|why| format!("{why}; write scheme and host, like \"https://api.gocobalt.io\""))
        })
    }

    fn parse(text: &str) -> Result<Uri, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("the URL has to begin with http:// or https://");
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("the URL must not hold a user name or password");
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err("the URL must not have a path or query");
        }
        Ok(uri)
    }

    fn serialize<S: Serializer>(url: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(url.to_string().trim_end_matches('/'))
    }
}

schema_as!(BaseUrl, { "type": "string", "pattern": "^https?://[^/?#@]+/?$" });
