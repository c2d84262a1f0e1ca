//! `[log]` and `[traces]`: what is told of requests, and to whom.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, Uri};
use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::diagnostic::Finding;
use super::environment::Environment;
use super::file::SecretSource;
use super::files::Reader;
use super::model::Connection;
use super::schema::by_hand;
use super::secret::Secret;
use super::validate::{authorities, read_secret};
use crate::digest::{Hex, sha256};

/// Where OTLP over HTTP takes spans, below the endpoint.
const SPANS: &str = "/v1/traces";
/// Largest answer of a collector that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;
/// Digits of a linked account's SHA-256 that stand for it.
const DIGITS: usize = 16;

/// `[log]` as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenLog {
    /// Which requests are logged.
    pub(super) requests: Requests,
    /// Share of the requests that succeeded; the others are always logged.
    pub(super) sample: Share,
    /// How a linked account is named here and on the status page.
    pub(super) linked_accounts: Shown,
}

/// `[traces]` as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WrittenTraces {
    /// The collector; /v1/traces is added to it. None unless it is set.
    pub(super) endpoint: Option<Endpoint>,
    /// Share of the requests whose caller sends no traceparent; otherwise the caller decides.
    pub(super) sample: Share,
    /// What the spans say that they are from: service.name.
    pub(super) service_name: String,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    pub(super) ca_file: Option<String>,
    /// Headers that the collector wants to be shown.
    #[schemars(with = "BTreeMap<String, SecretSource>")]
    pub(super) headers: BTreeMap<Spanned<String>, Spanned<SecretSource>>,
}

/// Scheme, host, port and a path that others are added to.
#[derive(Debug)]
pub(super) struct Endpoint(Uri);

/// A part of all, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Share(f64);

/// What is logged of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    /// Which of them.
    pub requests: Requests,
    /// How many of those that succeeded, from 0 to 1.
    pub sample: f64,
    /// How their linked accounts are named; also on the status page.
    pub linked_accounts: Shown,
}

/// Which requests are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Requests {
    /// Every one, as far as `sample` goes.
    All,
    /// Those that were refused or failed.
    Errors,
    /// None.
    None,
}

/// How a linked account is named in the log, and on the status page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// As it is.
    Plain,
    /// By the first 16 hexadecimal digits of its SHA-256.
    Hashed,
    /// Not at all.
    None,
}

impl Shown {
    /// A linked account as it may be seen.
    #[must_use]
    pub fn name(self, account: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Plain => Some(account.into()),
            Self::Hashed => Some(Hex(&sha256(account.as_bytes())[..DIGITS / 2]).to_string().into()),
            Self::None => None,
        }
    }
}

/// Where spans go, and of which requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// How the collector is reached.
    pub connection: Connection,
    /// The path that takes spans.
    pub target: PathAndQuery,
    /// What it wants to be shown.
    pub headers: Vec<(HeaderName, Secret)>,
    /// How many requests are traced, from 0 to 1, of those whose caller has not decided it.
    pub sample: f64,
    /// `service.name`
    pub service_name: Arc<str>,
}

impl Traces {
    /// The collector as it is written in the file.
    pub(super) fn endpoint(&self) -> String {
        let origin = self.connection.base_url.to_string();
        format!("{}{}", origin.trim_end_matches('/'), self.target.as_str().strip_suffix(SPANS).unwrap_or_default())
    }
}

impl Default for WrittenLog {
    fn default() -> Self {
        Self { requests: Requests::All, sample: Share(1.0), linked_accounts: Shown::Plain }
    }
}

impl Default for WrittenTraces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample: Share(0.1),
            service_name: "postern".to_owned(),
            ca_file: None,
            headers: BTreeMap::new(),
        }
    }
}

pub(super) fn log(written: &WrittenLog) -> Log {
    Log { requests: written.requests, sample: written.sample.0, linked_accounts: written.linked_accounts }
}

/// `None` if there is no endpoint.
pub(super) fn traces(
    written: &WrittenTraces,
    reader: &Reader,
    environment: &Environment,
) -> Result<Option<Traces>, Finding> {
    let Some(Endpoint(endpoint)) = &written.endpoint else { return Ok(None) };
    let headers = written.headers.iter().map(|(name, source)| {
        let parsed = name
            .get_ref()
            .parse()
            .map_err(|_| Finding::at(name.span(), format!("`{}` can't be the name of a header", name.get_ref())))?;
        Ok((parsed, read_secret(source, reader, environment)?))
    });
    let target = format!("{}{SPANS}", endpoint.path().trim_end_matches('/'));
    let refused = |what: &str| Finding::of_the_whole(format!("[traces] endpoint: {what}"));
    let mut origin = endpoint.clone().into_parts();
    origin.path_and_query = Some(PathAndQuery::from_static("/"));
    Ok(Some(Traces {
        connection: Connection {
            base_url: Uri::from_parts(origin).map_err(|_| refused("this is no URL"))?,
            ca_file: written.ca_file.as_ref().map(|path| authorities(path, reader)),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(10),
            max_body: LARGEST_ANSWER,
            pool_idle_per_worker: 1,
            pool_idle_timeout: Duration::from_secs(30),
        },
        target: target.parse().map_err(|_| refused("its path can't be used"))?,
        headers: headers.collect::<Result<_, _>>()?,
        sample: written.sample.0,
        service_name: written.service_name.as_str().into(),
    }))
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(de::Error::custom(format!("{share} is no share; write a number from 0 to 1, like 0.1")))
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refused = |why| de::Error::custom(format!("{why}; write a URL like \"http://collector:4318\""));
        let uri: Uri = text.parse().map_err(|_| refused("this is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refused("the URL has to begin with http:// or https://"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refused("what the collector wants to be shown stands in `headers`, not in the URL"));
        }
        if uri.query().is_some() {
            return Err(refused("the URL must not have a query"));
        }
        Ok(Self(uri))
    }
}

by_hand!(Share, { "type": "number", "minimum": 0, "maximum": 1 });
by_hand!(Endpoint, { "type": "string", "pattern": "^https?://[^?#@]+$" });
