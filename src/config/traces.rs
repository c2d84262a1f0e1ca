//! `[traces]`: spans for an OpenTelemetry collector.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::connection::{CaFile, Connection, MAX_CONNECTION_AGE, SUSPECT_AFTER};
use super::environment::{Environment, NOT_UTF8};
use super::otel_variables::{HEADERS, OtelVariables, SpanBatches};
use super::resolver::Resolver;
use super::secret::Secret;
use super::setting_path::{InvalidSetting, SettingPath};
use super::text::{parse_string, string_setting};
use super::units::Share;
use super::url::ServerUrl;

/// Path of OTLP over HTTP for spans, below the endpoint.
const SPANS: &str = "/v1/traces";
/// The variable with the `service.name`.
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// The variable that chooses which requests are traced in other programs.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// Variables that choose another encoding or transport.
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// Largest answer of a collector that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// Export of spans by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// URL of the collector; /v1/traces is added to it. Without it, and without the variables of OpenTelemetry, there are no
    /// traces.
    endpoint: Option<CollectorUrl>,
    /// Share of the requests without a traceparent that is traced; with one, the caller decides.
    #[serde(with = "Share")]
    pub sample: f64,
    /// The service.name of the spans. If omitted, OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has it, or it is postern.
    service_name: Option<Arc<str>>,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    ca_file: Option<CaFile>,
    /// Headers for the collector, with secrets as values.
    #[serde(with = "Headers")]
    #[schemars(with = "BTreeMap<String, Secret>", extend("writeOnly" = true))]
    headers: Vec<(HeaderName, Secret)>,
    /// The export as the file and the environment define it together; filled by `check`.
    #[serde(skip)]
    export: Option<SpanExport>,
}

/// The way of spans to a collector.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanExport {
    /// The connection to the collector.
    pub connection: Connection,
    /// The path that takes spans.
    pub target: PathAndQuery,
    /// The `service.name`, if the file or `OTEL_SERVICE_NAME` has one.
    pub service_name: Option<Arc<str>>,
    /// Limits of the queue.
    pub batches: SpanBatches,
    /// Headers for the collector; of the same name, the last one counts.
    headers: Vec<(HeaderName, Secret)>,
}

impl SpanExport {
    /// Adds the headers for the collector to those of a request.
    ///
    /// # Panics
    /// Never: the characters of the values have been checked.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, secret) in &self.headers {
            let mut value = HeaderValue::from_str(secret.expose()).expect("its characters are checked");
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
}

impl Traces {
    /// The way to the collector; `None` if requests are not traced.
    #[must_use]
    pub fn export(&self) -> Option<&SpanExport> {
        self.export.as_ref()
    }

    pub(super) fn check(&mut self, at: &SettingPath, resolver: &Resolver<'_>) -> Result<(), InvalidSetting> {
        let variables = OtelVariables(resolver.environment());
        // An endpoint of the environment that can't be used is no error: it is not meant for Postern alone.
        let of_environment = || CollectorUrl::of_environment(variables).and_then(|(_, endpoint)| endpoint.ok());
        let Some(endpoint) = self.endpoint.clone().or_else(of_environment) else {
            self.headers.clear();
            return Ok(());
        };
        let at_headers = at.key("headers");
        for (name, secret) in &mut self.headers {
            resolver.secret(secret, &at_headers.key(name.as_str().to_owned()))?;
        }
        let proxy = resolver.proxy(&endpoint.url.origin, &at.key("endpoint"))?;
        resolver.ca_file(&mut self.ca_file, &at.key("ca_file"))?;
        self.export = Some(SpanExport {
            connection: Connection {
                base_url: endpoint.url.origin,
                proxy,
                ca_file: self.ca_file.clone(),
                connect_timeout: Duration::from_secs(2),
                first_byte_timeout: variables.timeout(),
                total_timeout: variables.timeout(),
                max_body: LARGEST_ANSWER,
                pool_idle_per_worker: 1,
                pool_idle_timeout: Duration::from_secs(30),
                max_connection_age: MAX_CONNECTION_AGE,
                suspect_after: SUSPECT_AFTER,
            },
            target: endpoint.spans,
            service_name: self.service_name.clone().or_else(|| variables.get(SERVICE_NAME).map(Into::into)),
            batches: variables.batches(),
            headers: variables.headers().chain(self.headers.iter().cloned()).collect(),
        });
        Ok(())
    }

    /// Warnings about variables of OpenTelemetry that have no effect.
    pub(super) fn remarks(&self, at: &SettingPath, environment: &Environment) -> Vec<InvalidSetting> {
        let variables = OtelVariables(environment);
        let endpoint = at.key("endpoint");
        let mut found = Vec::new();
        let of_environment = CollectorUrl::of_environment(variables);
        let reported = of_environment.as_ref().map(|(name, _)| *name);
        match (&self.endpoint, of_environment) {
            (Some(_), Some((name, _))) => found.push(endpoint.refuse(overrides(name))),
            (None, Some((name, Err(why)))) => {
                found.push(endpoint.refuse(format!("no spans are exported: the environment variable {name}: {why}")));
            }
            _ => {}
        }
        if self.export.is_none() {
            return found;
        }
        if self.service_name.is_some() && variables.get(SERVICE_NAME).is_some() {
            found.push(at.key("service_name").refuse(overrides(SERVICE_NAME)));
        }
        if let (false, Some((name, _))) = (self.headers.is_empty(), variables.first(&HEADERS)) {
            let message = format!(
                "the headers of the environment variable {name} are sent too, unless one here has the same name"
            );
            found.push(at.key("headers").refuse(message));
        }
        if let Some((name, _)) = variables.first(&PROTOCOL).filter(|(_, protocol)| *protocol != "http/protobuf") {
            found.push(
                endpoint.refuse(format!("spans are sent by http/protobuf; the environment variable {name} is ignored")),
            );
        }
        if variables.get(SAMPLER).is_some() {
            found.push(at.key("sample").refuse(format!("this decides; the environment variable {SAMPLER} is ignored")));
        }
        found.extend(variables.ignored_bytes(reported).map(|message| at.refuse(message)));
        found.extend(variables.ignored_numbers().map(|message| at.refuse(message)));
        found
    }
}

/// The warning that a setting and a variable are both set.
fn overrides(name: &str) -> String {
    format!("this overrides the environment variable {name}")
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, sample: 0.1, service_name: None, ca_file: None, headers: Vec::new(), export: None }
    }
}

/// The URL of a collector, and the path that takes spans.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CollectorUrl {
    url: ServerUrl,
    spans: PathAndQuery,
}

impl CollectorUrl {
    /// Parses the URL to which the path for spans is added.
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse_with(text, |path| format!("{}{SPANS}", path.trim_end_matches('/')))
    }

    /// The endpoint in the environment, with the name of its variable.
    fn of_environment(variables: OtelVariables<'_>) -> Option<(&'static str, Result<Self, String>)> {
        const OF_SPANS: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        const OF_ALL_SIGNALS: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const NAMES: [&str; 2] = [OF_SPANS, OF_ALL_SIGNALS];
        if variables.turn_export_off() {
            return None;
        }
        let Some((name, url)) = variables.first(&NAMES) else {
            let is_unreadable = |name: &&str| variables.unreadable().any(|unreadable| unreadable == *name);
            return Some((NAMES.into_iter().find(is_unreadable)?, Err(NOT_UTF8.to_owned())));
        };
        // The variable for spans has the whole path.
        Some((name, if name == OF_SPANS { Self::parse_with(url, str::to_owned) } else { Self::parse(url) }))
    }

    fn parse_with(text: &str, path_of_spans: impl Fn(&str) -> String) -> Result<Self, String> {
        let url = ServerUrl::parse(text).and_then(|url| {
            if url.has_credentials() {
                return Err("credentials for the collector belong in `headers`, not in the URL");
            }
            if url.target.query().is_some() {
                return Err("the URL must not have a query");
            }
            let spans = path_of_spans(url.target.path());
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
