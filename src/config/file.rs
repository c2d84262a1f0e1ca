//! The configuration file as it is written: its tables, keys and defaults. The doc comments are the descriptions of its JSON
//! Schema. What takes more than one value to judge is left to `validate`.

mod listener;
mod scalar;
mod tenant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

pub(super) use listener::{ClientCertificates, Listener, SocketFile, Tls, Trusted};
use scalar::BaseUrl;
pub(super) use scalar::{Address, LITERAL_SECRET, SecretSource, Sha256};
pub(super) use tenant::{Access, ClientCertificate, ClientKey, Mode, Tenant};

use super::observe;
use super::units::{Bound, Count, Length, Size};

/// The configuration of Postern.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Postern")]
pub(super) struct File {
    /// Where callers connect. Left out, there is one on 127.0.0.1:8080.
    #[schemars(with = "Option<Vec<Listener>>")]
    pub(super) listeners: Option<Spanned<Vec<Listener>>>,
    /// The listener for whoever runs the gateway: probes, metrics, status page, purge.
    #[serde(default)]
    pub(super) admin: super::admin::Written,
    /// How connections are served.
    #[serde(default)]
    pub(super) server: Server,
    /// Where Refold is and how it is spoken to.
    #[serde(default)]
    pub(super) upstream: Upstream,
    /// How query parameters are read.
    #[serde(default)]
    pub(super) query: Query,
    /// The cache that all tenants share.
    #[serde(default)]
    pub(super) cache: Cache,
    /// What callers may ask, and what may be asked of Refold.
    #[serde(default)]
    pub(super) limits: Limits,
    /// Refold orgs and environments; at least one.
    #[serde(default)]
    #[schemars(!default, length(min = 1))]
    pub(super) tenants: Vec<Tenant>,
    /// Issuers whose JWTs are taken (Authorization: Bearer).
    #[serde(default)]
    pub(super) issuers: Vec<super::issuer::Written>,
    /// Browser pages of other origins; none may ask if it is left out.
    pub(super) cors: Option<Cors>,
    /// What of the rest of the API may pass: authenticated, limited, the key put in, never cached. All else is 404.
    #[serde(default)]
    pub(super) pass_through: Vec<PassThrough>,
    /// One JSON line a request, on standard error.
    #[serde(default)]
    pub(super) log: observe::WrittenLog,
    /// Spans by OTLP over HTTP; none without an endpoint.
    #[serde(default)]
    pub(super) traces: observe::WrittenTraces,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    /// Threads; 0 is one per core.
    pub(super) workers: u16,
    /// How long a request head may take: 408 after it.
    pub(super) header_timeout: Bound,
    /// A connection on which nothing happens is closed after it.
    pub(super) idle_timeout: Bound,
    /// How long a request body may take: 408 after it.
    pub(super) body_timeout: Bound,
    /// Largest request head: 431 above it.
    pub(super) max_header_size: Size,
    /// Longest request target: 414 above it.
    pub(super) max_uri_length: Size,
    /// Largest request body: 413 above it.
    pub(super) max_request_body: Size,
    /// How long requests in flight may go on after SIGTERM.
    pub(super) drain_timeout: Length,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Upstream {
    /// Scheme and host of Refold.
    pub(super) base_url: BaseUrl,
    /// How filters are spelled upstream.
    pub(super) dialect: Dialect,
    /// PEM file of authorities to trust instead of the public ones; relative to the configuration file.
    pub(super) ca_file: Option<String>,
    /// How long a connection may take.
    pub(super) connect_timeout: Bound,
    /// Connecting and waiting for the response head together.
    pub(super) first_byte_timeout: Bound,
    /// The whole exchange.
    pub(super) total_timeout: Bound,
    /// Largest response body that is taken.
    pub(super) max_response_body: Size,
    /// Keep-alive connections that each worker keeps open.
    pub(super) pool_idle_per_worker: usize,
    /// How long it keeps them.
    pub(super) pool_idle_timeout: Bound,
    /// Requests under way at once: more only queue up in an upstream that has become slow.
    pub(super) max_concurrent: Count,
    /// How often a question that failed (no connection, 502, 503, 504) is asked again, while that is at most a fifth of all
    /// requests.
    pub(super) retries: u8,
    /// When Refold is left alone.
    pub(super) breaker: Breaker,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Breaker {
    /// Failures in a row after which Refold is left alone.
    pub(super) failures: Count,
    /// For how long; then one request tries.
    pub(super) open_for: Bound,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dialect {
    /// As the endpoint's documentation page has it.
    Documented,
    /// As the newer OpenAPI file has it.
    V3,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Query {
    /// A larger `limit` is refused, not clamped: clamping would shift the pages.
    pub(super) max_limit: Count,
    /// What becomes of a parameter that the API does not know.
    pub(super) unknown_parameters: Unknown,
    /// Parameters that are always dropped.
    pub(super) ignored_parameters: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unknown {
    /// 400, with the nearest known name.
    Reject,
    /// Sent on, and part of the cache key.
    Forward,
    /// Left out.
    Drop,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cache {
    /// Bodies and bookkeeping of all tenants together; 0 turns caching off.
    pub(super) capacity: Size,
    /// Keep nothing that Refold marks as no-store.
    pub(super) honour_no_store: bool,
    /// Callers who ask the same at the same time share one fetch.
    pub(super) collapse: bool,
    /// What follows from pages in the cache with certainty is not fetched.
    pub(super) derive: bool,
    /// How long an answer is fresh, by what is in it.
    pub(super) freshness: Freshness,
    /// How long an answer may be given after that.
    pub(super) stale: Stale,
}

/// Requests of the rest of the API that may pass.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PassThrough {
    /// GET, HEAD, POST, PUT, PATCH, DELETE; all but GET and HEAD need a caller who may write.
    #[schemars(with = "Vec<String>")]
    pub(super) methods: Spanned<Vec<String>>,
    /// The path: `*` is one segment, `**` all that follow.
    #[schemars(with = "String")]
    pub(super) path: Spanned<String>,
    /// Request headers that go upstream beside Accept and Content-Type.
    #[serde(default = "no_headers")]
    #[schemars(with = "Vec<String>")]
    pub(super) request_headers: Spanned<Vec<String>>,
    /// Largest body, in either direction.
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cors {
    /// Scheme, host and port alone, like `https://app.example.com`; or `["*"]` for all.
    #[schemars(with = "Vec<String>")]
    pub(super) origins: Vec<Spanned<String>>,
    /// How long a browser may remember that it may ask.
    #[serde(default = "preflight_max_age")]
    pub(super) max_age: Length,
}

fn preflight_max_age() -> Length {
    Length(std::time::Duration::from_mins(10))
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Freshness {
    /// Some execution in it still runs. 2s unless it is set.
    pub(super) live: Option<Length>,
    /// All in it is settled, but more can come. 5s unless it is set.
    pub(super) recent: Option<Length>,
    /// Its end_date is over by more than a day and all in it is settled. 10m unless it is set.
    pub(super) closed: Option<Length>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stale {
    /// While it is fetched anew in the background. 30s unless it is set.
    pub(super) while_revalidate: Option<Length>,
    /// If Refold can't be reached, fails, or its budget is spent. 1h unless it is set.
    pub(super) if_error: Option<Length>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// For each linked account or session token; cache hits count too.
    pub(super) client: ClientLimits,
    /// For each org key; only fetches count.
    pub(super) upstream: UpstreamLimits,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientLimits {
    /// Requests a second. 50 unless it is set.
    pub(super) per_second: Option<Count>,
    /// Requests at once. 100 unless it is set.
    pub(super) burst: Option<Count>,
    /// Linked accounts and tokens remembered at once, per tenant. 100000 unless it is set.
    pub(super) max_partitions: Option<Count>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UpstreamLimits {
    /// Requests a second. 20 unless it is set: what Refold publishes.
    pub(super) per_second: Option<Count>,
    /// Requests at once. 5 unless it is set.
    pub(super) burst: Option<Count>,
    /// A fetch that would wait longer is answered 429. 5s unless it is set.
    pub(super) max_wait: Option<Length>,
    /// Fetches that may wait at once. 1000 unless they are set.
    pub(super) max_queue: Option<u32>,
}

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
            max_concurrent: Count(std::num::NonZeroU32::MIN.saturating_add(99)),
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
            collapse: true,
            derive: true,
            freshness: Freshness::default(),
            stale: Stale::default(),
        }
    }
}
