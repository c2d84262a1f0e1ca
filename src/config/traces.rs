//! `[traces]`: spans for an OpenTelemetry collector.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::uri::PathAndQuery;
use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::connection::{CaFile, Connection, MAX_CONNECTION_AGE, Proxy, SUSPECT_AFTER};
use super::resolver::Resolver;
use super::secret::Secret;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::{parse_string, string_setting};
use super::units::Share;
use super::url::ServerUrl;

/// Path of OTLP over HTTP for spans, below the endpoint.
const SPANS: &str = "/v1/traces";
/// Largest answer of a collector that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// Export of spans by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// URL of the collector; /v1/traces is added to it. Without it there are no traces.
    endpoint: Option<CollectorUrl>,
    /// Share of the requests without a traceparent that is traced; with one, the caller decides.
    #[serde(with = "Share")]
    pub sample: f64,
    /// The service.name of the spans.
    pub service_name: Arc<str>,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    ca_file: Option<CaFile>,
    /// The proxy that the environment names for the collector; filled by `check`.
    #[serde(skip)]
    proxy: Option<Proxy>,
    /// Headers for the collector, with secrets as values.
    #[serde(with = "Headers")]
    #[schemars(with = "BTreeMap<String, Secret>", extend("writeOnly" = true))]
    pub headers: Vec<(HeaderName, Secret)>,
}

/// A collector of spans.
#[derive(Clone, Debug)]
pub struct SpanEndpoint {
    /// The connection to it.
    pub connection: Connection,
    /// The path that takes spans.
    pub target: PathAndQuery,
}

impl Traces {
    /// The collector; `None` if requests are not traced.
    #[must_use]
    pub fn span_endpoint(&self) -> Option<SpanEndpoint> {
        let endpoint = self.endpoint.as_ref()?;
        let connection = Connection {
            base_url: endpoint.url.origin.clone(),
            proxy: self.proxy.clone(),
            ca_file: self.ca_file.clone(),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(10),
            max_body: LARGEST_ANSWER,
            pool_idle_per_worker: 1,
            pool_idle_timeout: Duration::from_secs(30),
            max_connection_age: MAX_CONNECTION_AGE,
            suspect_after: SUSPECT_AFTER,
        };
        Some(SpanEndpoint { connection, target: endpoint.spans.clone() })
    }

    pub(super) fn check(&mut self, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        let Some(endpoint) = &self.endpoint else {
            self.headers.clear();
            return Ok(());
        };
        self.proxy = resolver.proxy(&endpoint.url.origin, &at.key("endpoint"))?;
        resolver.ca_file(&mut self.ca_file, &at.key("ca_file"))?;
        let at = at.key("headers");
        let mut headers = self.headers.iter_mut();
        headers.try_for_each(|(name, secret)| resolver.secret(secret, &at.key(name.as_str().to_owned())))
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample: 0.1,
            service_name: "postern".into(),
            ca_file: None,
            proxy: None,
            headers: Vec::new(),
        }
    }
}

/// The URL of a collector, to which the path for spans is added.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CollectorUrl {
    url: ServerUrl,
    /// The path that takes spans.
    spans: PathAndQuery,
}

impl CollectorUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let url = ServerUrl::parse(text).and_then(|url| {
            if url.has_credentials() {
                return Err("credentials for the collector belong in `headers`, not in the URL");
            }
            if url.target.query().is_some() {
                return Err("the URL must not have a query");
            }
            let spans = format!("{}{SPANS}", url.target.path().trim_end_matches('/'));
            Ok(Self { spans: spans.parse().map_err(|_| "its path can't be used")?, url })
        });
        url.map_err(|why| format!("{why}; write a URL like \"http://collector:4318\""))
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

string_setting!(CollectorUrl, "^https?://[^?#@]+$");

/// A table of header names and secrets, as a list of pairs.
struct Headers;

impl Headers {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(HeaderName, Secret)>, D::Error> {
        deserializer.deserialize_map(Self)
    }

    fn serialize<S: Serializer>(headers: &[(HeaderName, Secret)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(headers.iter().map(|(name, secret)| (name.as_str(), secret)))
    }
}

impl<'de> Visitor<'de> for Headers {
    type Value = Vec<(HeaderName, Secret)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of header names and secrets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut headers = Vec::new();
        while let Some((HeaderKey(name), secret)) = map.next_entry()? {
            headers.push((name, secret));
        }
        Ok(headers)
    }
}

struct HeaderKey(HeaderName);

impl<'de> Deserialize<'de> for HeaderKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer, |text| {
            text.parse().map(Self).map_err(|_| format!("`{text}` can't be the name of a header"))
        })
    }
}
