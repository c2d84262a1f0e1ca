//! The validated configuration: what the rest of the program reads. Nothing here needs a second check.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, Method, Uri};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::admin::Admin;
use super::diff::Written;
use super::observe::{Log, Traces};
use super::secret::{Provenance, Secret};
use crate::executions::{Dialect, QueryPolicy};
use crate::jwks::KeySet;
use crate::tls::TlsFiles;

/// Everything that an operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Sockets that callers connect to; at least one.
    pub listeners: Vec<Listener>,
    /// The listener for whoever runs the gateway; `None` if it is switched off.
    pub admin: Option<Admin>,
    /// How connections are served.
    pub server: Server,
    /// Where Refold is and how it is spoken to.
    pub upstream: Upstream,
    /// How query parameters are read.
    pub query: QueryPolicy,
    /// The cache that all tenants share.
    pub cache: Cache,
    /// Refold orgs; at least one, with different ids.
    pub tenants: Vec<Arc<Tenant>>,
    /// Issuers whose JWTs are taken.
    pub issuers: Vec<Issuer>,
    /// Browser pages that may ask; none if left out.
    pub cors: Option<Cors>,
    /// What of the rest of the API may pass.
    pub pass_through: Vec<Arc<PassThrough>>,
    /// What is logged of requests.
    pub log: Log,
    /// Where traces go, if anywhere.
    pub traces: Option<Traces>,
    /// What all this was read from.
    pub written: Written,
}

/// One socket that callers connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: ListenAddress,
    /// The tenant (index into [`Config::tenants`]) for which `Authorization: Bearer` session tokens are passed through
    /// here; `None` refuses them.
    pub session_tokens: Option<usize>,
    /// What everybody who connects here may do, with no credential but the connection.
    pub trusted: Option<Trusted>,
    /// How its connections are encrypted, if they are.
    pub tls: Option<TlsFiles>,
    /// Who may connect, if it is a Unix socket.
    pub socket: SocketFile,
}

/// Mode and owner of a Unix socket; what is left out stays as the process makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFile {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User id.
    pub owner: Option<u32>,
    /// Group id.
    pub group: Option<u32>,
}

/// What a listener stands for that is a credential itself: loopback and Unix sockets alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The tenant, an index into [`Config::tenants`].
    pub tenant: usize,
    /// Linked accounts that can be named; never empty.
    pub linked_accounts: Vec<AccountPattern>,
    /// What can be done.
    pub access: Access,
}

/// Requests of the rest of the API that may pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassThrough {
    /// Their methods; whatever is not GET or HEAD needs a caller who may write.
    pub methods: Vec<Method>,
    /// Their paths.
    pub path: PathPattern,
    /// Request headers that go upstream beside `Accept` and `Content-Type`.
    pub request_headers: Vec<HeaderName>,
    /// Largest body in either direction, in bytes.
    pub max_body: usize,
}

/// A path whose segments are given, or any (`*`), the last perhaps any number of them (`**`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(pub Vec<PathSegment>);

/// One segment of a [`PathPattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathSegment {
    /// This one.
    Given(Box<str>),
    /// Any one.
    Any,
    /// One or more, to the end.
    Rest,
}

impl PathPattern {
    /// Whether a path, which begins with `/`, is meant; byte by byte.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/').skip(1);
        for wanted in &self.0 {
            match (wanted, segments.next()) {
                (PathSegment::Rest, Some(_)) => return true,
                (PathSegment::Any, Some(_)) => {}
                (PathSegment::Given(given), Some(segment)) if **given == *segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

/// Browser pages of other origins that may ask (the Fetch standard, 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Their origins, or `*` alone.
    pub origins: Vec<String>,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Duration,
}

/// A TCP address or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`
    Tcp(SocketAddr),
    /// `unix:/run/postern.sock`
    Unix(PathBuf),
}

/// How connections are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads, each with its own runtime, listener and upstream pool.
    pub workers: usize,
    /// A caller must have sent its whole head within this time: 408 after it, to within a half.
    pub header_timeout: Duration,
    /// A connection on which nothing happens is closed after this time.
    pub idle_timeout: Duration,
    /// A caller must have sent its whole body within this time.
    pub body_timeout: Duration,
    /// Largest request head that is read, in bytes: 431 above it.
    pub max_header_bytes: usize,
    /// Longest request target that is read, in bytes: 414 above it.
    pub max_uri_bytes: usize,
    /// Largest request body (stop, rerun) that is read, in bytes: 413 above it.
    pub max_request_body: usize,
    /// How long requests in flight may go on after SIGTERM.
    pub drain_timeout: Duration,
}

/// Where Refold is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// How it is reached.
    pub connection: Connection,
    /// Which of the vendor's two dialects it speaks.
    pub dialect: Dialect,
    /// Requests that may be under way at once.
    pub max_concurrent: usize,
    /// How often a question that failed is asked again.
    pub retries: u8,
    /// When it is left alone.
    pub breaker: BreakerSettings,
}

/// When an upstream that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// After so many failures in a row.
    pub failures: NonZeroU32,
    /// For so long.
    pub open_for: Duration,
}

/// How a server is reached, and what is waited and read of it at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Scheme and authority, no path: `https://api.gocobalt.io`.
    pub base_url: Uri,
    /// The certificate authorities to trust instead of the public ones.
    pub ca_file: Option<CaFile>,
    /// Bound on TCP and TLS connection establishment.
    pub connect_timeout: Duration,
    /// Bound on the time to the response head.
    pub first_byte_timeout: Duration,
    /// Bound on the whole exchange.
    pub total_timeout: Duration,
    /// Largest response body that is read, in bytes.
    pub max_body: usize,
    /// Idle connections kept by each worker.
    pub pool_idle_per_worker: usize,
    /// An idle connection is closed after this time.
    pub pool_idle_timeout: Duration,
}

/// A PEM file of certificate authorities. Two are equal as long as nothing has been written to it in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of what was in it; `None` if it could not be read.
    pub digest: Option<[u8; 32]>,
}

/// The cache that all tenants share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Bound on keys, headers and bodies together, in bytes; 0 turns caching off.
    pub capacity: u64,
    /// Whether an upstream `Cache-Control: no-store` keeps an answer out of the cache.
    pub honour_no_store: bool,
    /// Whether callers who ask the same at the same time share one fetch.
    pub collapse: bool,
    /// Whether an answer that follows from others in the cache is derived from them instead of fetched.
    pub derive: bool,
}

/// One Refold org and environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name in logs, keys and the configuration.
    pub id: Arc<str>,
    /// What callers present.
    pub mode: TenantMode,
    /// The org API key.
    pub org_key: Secret,
    /// The one that follows it, while keys are rotated: tried when Refold does not take the other.
    pub org_key_next: Option<Secret>,
    /// Keys that Postern issued for this tenant; empty in mode `validate`.
    pub client_keys: Vec<ClientKey>,
    /// Callers who show a certificate.
    pub client_certificates: Vec<ClientCertificate>,
    /// How long its answers stay fresh.
    pub freshness: Freshness,
    /// How long they may be given after that.
    pub stale: Stale,
    /// Whether Refold's webhooks are taken at `/hooks/refold/{id}`.
    pub webhooks: bool,
    /// What its callers may ask of the cache.
    pub request_directives: Vec<RequestDirective>,
    /// Budget of each of its linked accounts and session tokens.
    pub client_budget: Rate,
    /// Budget of its org key at the upstream.
    pub upstream_budget: UpstreamRate,
    /// Linked accounts and session tokens that are remembered at once.
    pub max_partitions: u64,
}

/// What callers of a tenant present in `x-api-key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantMode {
    /// A client key; the org key is put in its place.
    Inject,
    /// The org key itself.
    Validate,
}

/// A key that Postern issued: only its SHA-256 is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// Its name in logs.
    pub name: Arc<str>,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Linked accounts it may act for; never empty.
    pub linked_accounts: Vec<AccountPattern>,
    /// What it may do.
    pub access: Access,
    /// The moment from which it is refused.
    pub expires: Option<Timestamp>,
    /// A budget of its own, beside that of the linked account.
    pub budget: Option<Rate>,
}

/// A caller who shows a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its name in logs.
    pub name: Arc<str>,
    /// A DNS or URI subject alternative name, such as a SPIFFE id.
    pub san: String,
    /// Linked accounts it may act for; never empty.
    pub linked_accounts: Vec<AccountPattern>,
    /// What it may do.
    pub access: Access,
}

/// What a credential may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read executions.
    Read,
    /// Read, stop and rerun executions.
    ReadWrite,
}

/// An issuer whose JWTs are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub issuer: Arc<str>,
    /// One of these has to be in `aud`.
    pub audience: Vec<String>,
    /// What its tokens may be signed with; never `none`, and never both of a kind with public keys and HMAC.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Its keys.
    pub keys: IssuerKeys,
    /// Where they come from, to be shown.
    pub keys_from: KeySource,
    /// Whose callers the holders of its tokens are.
    pub tenant: TenantOf,
    /// Where a token names its linked account, or a list of them.
    pub linked_account_claim: ClaimPath,
    /// Where a token says what it may do.
    pub scope_claim: ClaimPath,
    /// The word in the scope that lets its holder stop and rerun.
    pub write_scope: Option<Box<str>>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssuerKeys {
    /// They were in the configuration.
    Fixed(Arc<KeySet>),
    /// They are fetched.
    Url(Box<JwksUrl>),
}

/// Where an issuer's keys come from, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeySource {
    /// A JWKS document.
    Url(String),
    /// A JWKS document or a PEM key.
    File(PathBuf),
    /// A secret that they share with us.
    Secret(Provenance),
}

/// A JWKS document behind a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl {
    /// How its server is reached.
    pub connection: Connection,
    /// Path and query.
    pub target: PathAndQuery,
    /// How long keys are kept before they are fetched anew.
    pub refresh: Duration,
    /// Pause between two fetches, however many tokens name an unknown key.
    pub cooldown: Duration,
}

/// How a token says which tenant it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantOf {
    /// All are for this one (index into [`Config::tenants`]).
    Fixed(usize),
    /// The tenant's id is in this claim.
    Claim(ClaimPath),
}

/// The name of a claim, or names inside each other with dots between: `org.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub Box<str>);

/// A linked account, or all whose id begins alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountPattern {
    /// Exactly this id; case-sensitive.
    Exact(Box<str>),
    /// `prefix*`: every id that begins so; `*` alone is every id.
    Prefix(Box<str>),
}

impl AccountPattern {
    /// Whether `linked_account_id` is meant; byte by byte, since the id is opaque.
    #[must_use]
    pub fn matches(&self, linked_account_id: &str) -> bool {
        match self {
            Self::Exact(id) => **id == *linked_account_id,
            Self::Prefix(prefix) => linked_account_id.starts_with(&**prefix),
        }
    }
}

/// How long an answer stays fresh, by what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Some execution in it still runs.
    pub live: Duration,
    /// Its time range is over and all in it is settled.
    pub closed: Duration,
    /// Anything else.
    pub recent: Duration,
}

/// How long an answer may be given after it has ceased to be fresh (RFC 5861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// While it is fetched anew in the background.
    pub while_revalidate: Duration,
    /// If it can't be fetched.
    pub if_error: Duration,
}

/// A `Cache-Control` directive of a request (RFC 9111, 5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RequestDirective {
    /// Ask the upstream.
    NoCache,
    /// Ask the upstream, and keep nothing of it.
    NoStore,
    /// No older than this many seconds.
    MaxAge,
    /// Fresh for this many seconds more.
    MinFresh,
    /// Stale for at most this many seconds.
    MaxStale,
    /// 504 rather than asking the upstream.
    OnlyIfCached,
}

impl RequestDirective {
    /// The directive of a name, in any case.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        const NAMES: [(&str, RequestDirective); 6] = [
            ("no-cache", RequestDirective::NoCache),
            ("no-store", RequestDirective::NoStore),
            ("max-age", RequestDirective::MaxAge),
            ("min-fresh", RequestDirective::MinFresh),
            ("max-stale", RequestDirective::MaxStale),
            ("only-if-cached", RequestDirective::OnlyIfCached),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, directive)| *directive)
    }
}

/// A GCRA quota: `burst` at once, refilled at `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained requests per second.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// The org key's quota at the upstream, and how long a fetch may wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamRate {
    /// What Refold grants.
    pub rate: Rate,
    /// A fetch that would wait longer is refused.
    pub max_wait: Duration,
    /// Fetches that may wait at once.
    pub max_queue: usize,
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
