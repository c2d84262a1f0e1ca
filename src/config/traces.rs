//! `[traces]`: spans for an OpenTelemetry collector.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, Uri};
use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::connection::{CaFile, Connection};
use super::place::{InvalidSetting, Place};
use super::resolver::Resolver;
use super::schema_as::schema_as;
use super::secret::Secret;
use super::text::parse_string;
use super::units::{Share, SharedText};

/// Path of OTLP over HTTP for spans, below the endpoint.
const SPANS: &str = "/v1/traces";
/// Largest answer of a collector that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// Export of spans by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// URL of the collector; /v1/traces is added to it. Without it there are no traces.
    endpoint: Option<Endpoint>,
    /// Share of the requests without a traceparent that is traced; with one, the caller decides.
    #[serde(with = "Share")]
    pub sample: f64,
    /// The service.name of the spans.
    #[serde(with = "SharedText")]
    pub service_name: Arc<str>,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    ca_file: Option<CaFile>,
    /// Headers for the collector, with secrets as values.
    #[serde(with = "Headers")]
    #[schemars(with = "BTreeMap<String, Secret>", extend("writeOnly" = true))]
    pub headers: Vec<(HeaderName, Secret)>,
}

/// A collector of spans.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The connection to it.
    pub connection: Connection,
    /// The path that takes spans.
    pub target: PathAndQuery,
}

impl Traces {
    /// The collector; `None` if requests are not traced.
    #[must_use]
    pub fn collector(&self) -> Option<Collector> {
        let Endpoint { origin, target } = self.endpoint.clone()?;
        let connection = Connection {
            base_url: origin,
            ca_file: self.ca_file.clone(),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(10),
            max_body: LARGEST_ANSWER,
            pool_idle_per_worker: 1,
            pool_idle_timeout: Duration::from_secs(30),
        };
        Some(Collector { connection, target })
    }

    pub(super) fn check(&mut self, place: &Place, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        if self.endpoint.is_none() {
            self.headers.clear();
            return Ok(());
        }
        resolver.ca_file(&mut self.ca_file);
        self.headers.iter_mut().try_for_each(|(_, secret)| resolver.secret(secret, &place.key("headers")))
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, sample: 0.1, service_name: "postern".into(), ca_file: None, headers: Vec::new() }
    }
}

/// The URL of a collector: scheme, host, port and a path that others are added to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    origin: Uri,
    /// The URL's path with that for spans added.
    target: PathAndQuery,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("the URL has to begin with http:// or https://");
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("credentials for the collector belong in `headers`, not in the URL");
        }
        if uri.query().is_some() {
            return Err("the URL must not have a query");
        }
        let target = format!("{}{SPANS}", uri.path().trim_end_matches('/'));
        let mut origin = uri.into_parts();
        origin.path_and_query = Some(PathAndQuery::from_static("/"));
        Ok(Self {
            origin: Uri::from_parts(origin).map_err(|_| "this is no URL")?,
            target: target.parse().map_err(|_| "its path can't be used")?,
        })
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer, |text| {
            Self::parse(text).map_err(|why| format!("{why}; write a URL like \"http://collector:4318\""))
        })
    }
}

/// Writes the URL as it is written in the file.
impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (origin, path) = (self.origin.to_string(), self.target.as_str().strip_suffix(SPANS).unwrap_or_default());
        serializer.collect_str(&format_args!("{}{path}", origin.trim_end_matches('/')))
    }
}

schema_as!(Endpoint, { "type": "string", "pattern": "^https?://[^?#@]+$" });

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
        while let Some((Name(name), secret)) = map.next_entry()? {
            headers.push((name, secret));
        }
        Ok(headers)
    }
}

struct Name(HeaderName);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_string(deserializer, |text| {
            text.parse().map(Self).map_err(|_| format!("`{text}` can't be the name of a header"))
        })
    }
}
