//! `[[issuers]]`: whose JWTs are taken, where their keys are, and which claim means what.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::diagnostic::Finding;
use super::environment::Environment;
use super::file::SecretSource;
use super::files::Reader;
use super::model::{ClaimPath, Connection, Issuer, IssuerKeys, JwksUrl, KeySource, Tenant, TenantOf};
use super::units::{Bound, Length};
use super::validate::{authorities, find_tenant, read_secret};
use crate::jwks::KeySet;
use crate::suggest::suggest;

/// What an issuer may sign with, if the file does not say: everything that is asymmetric.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Shortest secret for HMAC-SHA-256 (RFC 7518, 3.2), in bytes.
const SHORTEST_SECRET: usize = 32;
/// Largest JWKS document that is read, in bytes.
const LARGEST_JWKS: usize = 256 << 10;

/// An issuer as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// The `iss` of its tokens, to the letter.
    #[schemars(with = "String", length(min = 1))]
    issuer: Spanned<String>,
    /// One of these has to be in `aud`.
    #[schemars(with = "Vec<String>", length(min = 1))]
    audience: Spanned<Vec<String>>,
    /// What it may sign with. Left out: RS, PS, ES 256/384, EdDSA; with a `secret`, HS256 and nothing else.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    algorithms: Option<Spanned<Vec<String>>>,
    /// Where its keys are: one of `url`, `file` and `secret`.
    #[schemars(with = "Keys")]
    pub(super) keys: Spanned<Keys>,
    /// The tenant that all its tokens are for.
    #[schemars(with = "Option<String>")]
    tenant: Option<Spanned<String>>,
    /// Or the claim that holds the tenant's id.
    tenant_claim: Option<String>,
    /// The claim that holds linked accounts, a text or a list; names inside each other with dots between.
    #[serde(default = "linked_account_claim")]
    linked_account_claim: String,
    /// The claim that holds scopes.
    #[serde(default = "scope_claim")]
    scope_claim: String,
    /// The scope of tokens that may also stop and rerun. Left out, its tokens may only read.
    write_scope: Option<String>,
    /// How far clocks may differ.
    #[serde(default = "leeway")]
    leeway: Length,
}

/// Where its keys are: one of `url`, `file` and `secret`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Its JWKS.
    #[schemars(with = "Option<String>")]
    url: Option<Spanned<String>>,
    /// A JWKS or a PEM public key; relative to the configuration file.
    #[schemars(with = "Option<String>")]
    file: Option<Spanned<String>>,
    /// The secret that it signs with.
    #[schemars(with = "Option<SecretSource>")]
    pub(super) secret: Option<Spanned<SecretSource>>,
    /// PEM file of authorities to trust at that URL instead of the public ones.
    ca_file: Option<String>,
    /// How often the URL is read. 5m unless it is set.
    refresh: Option<Bound>,
    /// It is read at most once in this time when a token names a key that is not known. 30s unless it is set.
    cooldown: Option<Length>,
}

fn linked_account_claim() -> String {
    "linked_account_id".to_owned()
}

fn scope_claim() -> String {
    "scope".to_owned()
}

fn leeway() -> Length {
    Length(Duration::from_secs(30))
}

pub(super) fn read(
    written: &Written,
    tenants: &[Arc<Tenant>],
    reader: &Reader,
    environment: &Environment,
) -> Result<Issuer, Finding> {
    if written.issuer.get_ref().is_empty() {
        return Err(Finding::at(written.issuer.span(), "an issuer needs a name: the `iss` of its tokens"));
    }
    if written.audience.get_ref().is_empty() {
        let message = "an issuer needs an audience, or tokens for other services would be taken here";
        return Err(Finding::at(written.audience.span(), message));
    }
    let (keys, keys_from) = read_keys(&written.keys, reader, environment)?;
    let symmetric = written.keys.get_ref().secret.is_some();
    let tenant = match (&written.tenant, &written.tenant_claim) {
        (Some(id), None) => TenantOf::Fixed(find_tenant(id, tenants)?),
        (None, Some(path)) => TenantOf::Claim(ClaimPath(path.as_str().into())),
        _ => {
            let message = "an issuer has either `tenant` (all its tokens are for that one) or `tenant_claim`";
            return Err(Finding::at(written.issuer.span(), message));
        }
    };
    Ok(Issuer {
        issuer: written.issuer.get_ref().as_str().into(),
        audience: written.audience.get_ref().clone(),
        algorithms: read_algorithms(written.algorithms.as_ref(), symmetric)?,
        keys,
        keys_from,
        tenant,
        linked_account_claim: ClaimPath(written.linked_account_claim.as_str().into()),
        scope_claim: ClaimPath(written.scope_claim.as_str().into()),
        write_scope: written.write_scope.as_deref().map(Box::from),
        leeway: written.leeway.0,
    })
}

fn read_algorithms(written: Option<&Spanned<Vec<String>>>, symmetric: bool) -> Result<Vec<Algorithm>, Finding> {
    let possible: &[Algorithm] = if symmetric { &[Algorithm::HS256] } else { &ASYMMETRIC };
    let Some(written) = written else { return Ok(possible.to_vec()) };
    let names: Vec<String> = possible.iter().map(|algorithm| format!("{algorithm:?}")).collect();
    let read = |name: &String| {
        names.iter().position(|known| known == name).map(|at| possible[at]).ok_or_else(|| {
            let suggestion = suggest(name, names.iter().map(String::as_str));
            let suggestion = suggestion.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
            let kind = if symmetric { "a `secret`" } else { "public keys" };
            let message = format!("`{name}` is no algorithm for {kind}{suggestion}; there are {}", names.join(", "));
            Finding::at(written.span(), message)
        })
    };
    if written.get_ref().is_empty() {
        return Err(Finding::at(written.span(), "there is no algorithm in it; leave the line out for all"));
    }
    written.get_ref().iter().map(read).collect()
}

fn read_keys(
    written: &Spanned<Keys>,
    reader: &Reader,
    environment: &Environment,
) -> Result<(IssuerKeys, KeySource), Finding> {
    let keys = written.get_ref();
    match (&keys.url, &keys.file, &keys.secret) {
        (Some(url), None, None) => {
            let refused = |why: &str| Finding::at(url.span(), format!("{why}; write a URL like \"https://host/path\""));
            let uri: Uri = url.get_ref().parse().map_err(|_| refused("this is no URL"))?;
            let loopback = matches!(uri.host(), Some("127.0.0.1" | "[::1]" | "localhost"));
            match uri.scheme_str() {
                Some("https") => {}
                Some("http") if loopback => {}
                // Whoever is on the way could put in a key of their own.
                Some("http") => return Err(refused("keys are fetched by https from another host")),
                _ => return Err(refused("the URL has to begin with https://")),
            }
            let from = KeySource::Url(shown(&uri));
            let mut origin = uri.into_parts();
            let target = origin.path_and_query.replace(PathAndQuery::from_static("/"));
            let keys = IssuerKeys::Url(Box::new(JwksUrl {
                connection: Connection {
                    base_url: Uri::from_parts(origin).map_err(|_| refused("this is no URL"))?,
                    ca_file: keys.ca_file.as_ref().map(|path| authorities(path, reader)),
                    connect_timeout: Duration::from_secs(2),
                    first_byte_timeout: Duration::from_secs(5),
                    total_timeout: Duration::from_secs(10),
                    max_body: LARGEST_JWKS,
                    pool_idle_per_worker: 1,
                    pool_idle_timeout: Duration::from_secs(5),
                },
                target: target.unwrap_or(PathAndQuery::from_static("/")),
                refresh: keys.refresh.map_or(Duration::from_mins(5), |bound| bound.0),
                cooldown: keys.cooldown.map_or(Duration::from_secs(30), |length| length.0),
            }));
            Ok((keys, from))
        }
        (None, Some(file), None) => {
            let path = reader.resolve(file.get_ref());
            let refused = |why: &dyn std::fmt::Display| {
                Finding::at(file.span(), format!("the key file {}: {why}", path.display()))
            };
            let text = reader.read(&path).map_err(|error| refused(&error))?;
            let keys = KeySet::parse(&text).map_err(|error| refused(&error))?;
            Ok((IssuerKeys::Fixed(Arc::new(keys)), KeySource::File(path)))
        }
        (None, None, Some(source)) => {
            let secret = read_secret(source, reader, environment)?;
            if secret.expose().len() < SHORTEST_SECRET {
                let message = format!("a secret for HS256 has at least {SHORTEST_SECRET} bytes (RFC 7518, 3.2)");
                return Err(Finding::at(source.span(), message));
            }
            let keys = KeySet::of_secret(secret.expose().as_bytes());
            Ok((IssuerKeys::Fixed(Arc::new(keys)), KeySource::Secret(secret.source().clone())))
        }
        _ => Err(Finding::at(written.span(), "one of `url`, `file` and `secret` says where the keys are")),
    }
}

/// A URL without what may be a secret in it: user, password, query.
fn shown(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}
