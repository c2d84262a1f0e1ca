//! The file as it is written to the configuration as it is used: what takes more than one value to judge.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::admin;
use super::diagnostic::Finding;
use super::diff::Written;
use super::environment::Environment;
use super::file::{self, File, SecretSource, Sha256};
use super::files::Reader;
use super::issuer;
use super::listener;
use super::mask;
use super::model::{
    Access, AccountPattern, BreakerSettings, CaFile, Cache, ClientCertificate, ClientKey, Config, Connection, Cors,
    Freshness, ListenAddress, Listener, Rate, Server, SocketFile, Stale, Tenant, TenantMode, TenantOf, Trusted,
    Upstream, UpstreamRate,
};
use super::observe;
use super::pass_through;
use super::secret::{Provenance, Secret};
use super::units::Count;
use crate::digest::sha256;
use crate::executions::{Dialect, QueryPolicy, UnknownParameters};
use crate::suggest::suggest;

const FRESHNESS: Freshness =
    Freshness { live: Duration::from_secs(2), recent: Duration::from_secs(5), closed: Duration::from_mins(10) };
const STALE: Stale = Stale { while_revalidate: Duration::from_secs(30), if_error: Duration::from_hours(1) };
const CLIENT_RATE: Rate = Rate { per_second: number(50), burst: number(100) };
const UPSTREAM_RATE: UpstreamRate = UpstreamRate {
    rate: Rate { per_second: number(20), burst: number(5) },
    max_wait: Duration::from_secs(5),
    max_queue: 1000,
};
const MAX_PARTITIONS: u32 = 100_000;

const fn number(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

pub(super) fn validate(file: &File, reader: &Reader, environment: &Environment) -> Result<Config, Finding> {
    if file.tenants.is_empty() {
        return Err(Finding::of_the_whole("there is no [[tenants]] table; at least one is needed"));
    }
    let mut seen = Seen::default();
    let mut tenants = Vec::with_capacity(file.tenants.len());
    for tenant in &file.tenants {
        tenants.push(Arc::new(read_tenant(tenant, file, reader, environment, &mut seen)?));
    }
    let listeners = read_listeners(file, &tenants, reader)?;
    let issuers = file
        .issuers
        .iter()
        .map(|written| issuer::read(written, &tenants, reader, environment))
        .collect::<Result<Vec<_>, _>>()?;
    for (index, (written, tenant)) in file.tenants.iter().zip(&tenants).enumerate() {
        let reachable = tenant.mode == TenantMode::Validate
            || !tenant.client_keys.is_empty()
            || !tenant.client_certificates.is_empty()
            || listeners.iter().any(|listener| listener.session_tokens == Some(index))
            || listeners
                .iter()
                .any(|listener| listener.trusted.as_ref().is_some_and(|trusted| trusted.tenant == index))
            || issuers.iter().any(|issuer| match issuer.tenant {
                TenantOf::Fixed(tenant) => tenant == index,
                TenantOf::Claim(_) => true,
            });
        if !reachable {
            let message = "nobody can call this tenant: it has no [[tenants.client_keys]], no listener is for it, and no issuer's JWTs are";
            return Err(Finding::at(written.id.span(), message));
        }
    }
    let server = &file.server;
    let upstream = &file.upstream;
    Ok(Config {
        listeners,
        admin: admin::read(&file.admin, reader, environment)?,
        server: Server {
            workers: match usize::from(server.workers) {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                workers => workers,
            },
            header_timeout: server.header_timeout.0,
            idle_timeout: server.idle_timeout.0,
            body_timeout: server.body_timeout.0,
            max_header_bytes: bytes(server.max_header_size.0),
            max_uri_bytes: bytes(server.max_uri_length.0),
            max_request_body: bytes(server.max_request_body.0),
            drain_timeout: server.drain_timeout.0,
        },
        upstream: Upstream {
            dialect: match upstream.dialect {
                file::Dialect::Documented => Dialect::Documented,
                file::Dialect::V3 => Dialect::V3,
            },
            max_concurrent: bytes(upstream.max_concurrent.0.get().into()),
            retries: upstream.retries,
            breaker: BreakerSettings { failures: upstream.breaker.failures.0, open_for: upstream.breaker.open_for.0 },
            connection: Connection {
                base_url: upstream.base_url.0.clone(),
                ca_file: upstream.ca_file.as_ref().map(|path| authorities(path, reader)),
                connect_timeout: upstream.connect_timeout.0,
                first_byte_timeout: upstream.first_byte_timeout.0,
                total_timeout: upstream.total_timeout.0,
                max_body: bytes(upstream.max_response_body.0),
                pool_idle_per_worker: upstream.pool_idle_per_worker,
                pool_idle_timeout: upstream.pool_idle_timeout.0,
            },
        },
        query: QueryPolicy {
            max_limit: file.query.max_limit.0.get(),
            unknown: match file.query.unknown_parameters {
                file::Unknown::Reject => UnknownParameters::Reject,
                file::Unknown::Forward => UnknownParameters::Forward,
                file::Unknown::Drop => UnknownParameters::Drop,
            },
            ignored: file.query.ignored_parameters.clone(),
        },
        cache: Cache {
            capacity: file.cache.capacity.0,
            honour_no_store: file.cache.honour_no_store,
            collapse: file.cache.collapse,
            derive: file.cache.derive,
        },
        tenants,
        issuers,
        cors: file.cors.as_ref().map(read_cors).transpose()?,
        pass_through: file
            .pass_through
            .iter()
            .map(|written| pass_through::read(written).map(Arc::new))
            .collect::<Result<_, _>>()?,
        log: observe::log(&file.log),
        traces: observe::traces(&file.traces, reader, environment)?,
        written: Written::default(),
    })
}

/// A file of authorities. What is in it is the client's to judge, but that it changes is seen here.
pub(super) fn authorities(path: &str, reader: &Reader) -> CaFile {
    let path = reader.resolve(path);
    let digest = reader.read(&path).ok().map(|content| sha256(&content));
    CaFile { path, digest }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn read_listeners(file: &File, tenants: &[Arc<Tenant>], reader: &Reader) -> Result<Vec<Listener>, Finding> {
    let Some(written) = &file.listeners else {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 8080).into());
        return Ok(vec![Listener {
            address,
            session_tokens: None,
            trusted: None,
            tls: None,
            socket: SocketFile::default(),
        }]);
    };
    if written.get_ref().is_empty() {
        return Err(Finding::at(written.span(), "there is no listener in it; at least one is needed"));
    }
    let read = |listener: &file::Listener| {
        let session_tokens = match &listener.session_tokens {
            None => None,
            Some(id) => Some(find_tenant(id, tenants)?),
        };
        let trusted =
            listener.trusted.as_ref().map(|trusted| read_trusted(trusted, &listener.address.get_ref().0, tenants));
        Ok(Listener {
            address: listener.address.get_ref().0.clone(),
            session_tokens,
            trusted: trusted.transpose()?,
            tls: listener.tls.as_ref().map(|tls| listener::tls(tls, reader)).transpose()?,
            socket: listener::socket(listener.socket.as_ref(), &listener.address.get_ref().0)?,
        })
    };
    let read: Vec<Listener> = written.get_ref().iter().map(read).collect::<Result<_, _>>()?;
    for (index, listener) in read.iter().enumerate() {
        let any_port = matches!(&listener.address, ListenAddress::Tcp(address) if address.port() == 0);
        if !any_port && read[..index].iter().any(|other| other.address == listener.address) {
            let message = format!("there are two listeners on {}", listener.address);
            return Err(Finding::at(written.get_ref()[index].address.span(), message));
        }
    }
    Ok(read)
}

fn read_trusted(
    written: &Spanned<file::Trusted>,
    address: &ListenAddress,
    tenants: &[Arc<Tenant>],
) -> Result<Trusted, Finding> {
    if !address.is_local() {
        let message =
            "a trusted listener is its own credential, so it has to be on a loopback address or a Unix socket";
        return Err(Finding::at(written.span(), message));
    }
    let trusted = written.get_ref();
    Ok(Trusted {
        tenant: find_tenant(&trusted.tenant, tenants)?,
        linked_accounts: read_patterns(&trusted.linked_accounts)?,
        access: read_access(trusted.access),
    })
}

fn read_access(access: file::Access) -> Access {
    match access {
        file::Access::Read => Access::Read,
        file::Access::ReadWrite => Access::ReadWrite,
    }
}

fn read_patterns(written: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<AccountPattern>, Finding> {
    if written.get_ref().is_empty() {
        let message = "no linked account may be seen so; name one, or write [\"*\"] for all";
        return Err(Finding::at(written.span(), message));
    }
    written.get_ref().iter().map(read_pattern).collect()
}

fn read_cors(written: &file::Cors) -> Result<Cors, Finding> {
    for origin in &written.origins {
        let text = origin.get_ref();
        let uri: Option<http::Uri> = text.parse().ok();
        let plain = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.path() == "/" && !text.ends_with('/')
        });
        if !(plain || text == "*" && written.origins.len() == 1) {
            let message =
                "an origin is scheme, host and port alone, like \"https://app.example.com\"; or [\"*\"] for all";
            return Err(Finding::at(origin.span(), message));
        }
    }
    let origins = written.origins.iter().map(|origin| origin.get_ref().to_ascii_lowercase()).collect();
    Ok(Cors { origins, max_age: written.max_age.0 })
}

pub(super) fn find_tenant(id: &Spanned<String>, tenants: &[Arc<Tenant>]) -> Result<usize, Finding> {
    tenants.iter().position(|tenant| *tenant.id == **id.get_ref()).ok_or_else(|| {
        let suggestion = suggest(id.get_ref(), tenants.iter().map(|tenant| &*tenant.id));
        let suggestion = suggestion.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        Finding::at(id.span(), format!("there is no tenant `{}`{suggestion}", id.get_ref()))
    })
}

/// What has to be there once in the whole file.
#[derive(Default)]
struct Seen {
    ids: Vec<String>,
    keys: HashMap<Sha256, String>,
    validated: Vec<Secret>,
    sans: Vec<String>,
}

fn read_tenant(
    tenant: &file::Tenant,
    file: &File,
    reader: &Reader,
    environment: &Environment,
    seen: &mut Seen,
) -> Result<Tenant, Finding> {
    let id = tenant.id.get_ref();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        return Err(Finding::at(tenant.id.span(), "a tenant's id has 1 to 64 letters, digits, `-`, `_` or `.`"));
    }
    if seen.ids.contains(id) {
        return Err(Finding::at(tenant.id.span(), format!("there is a tenant `{id}` already")));
    }
    seen.ids.push(id.clone());
    let org_key = read_secret(&tenant.org_key, reader, environment)?;
    let org_key_next = tenant.org_key_next.as_ref().map(|next| read_secret(next, reader, environment)).transpose()?;
    if let (Some(next), Some(written)) = (&org_key_next, &tenant.org_key_next)
        && *next == org_key
    {
        return Err(Finding::at(written.span(), "this is the same key as `org_key`"));
    }
    let mode = match tenant.mode.get_ref() {
        file::Mode::Inject => TenantMode::Inject,
        file::Mode::Validate => TenantMode::Validate,
    };
    if mode == TenantMode::Validate {
        if let Some(key) = tenant.client_keys.first() {
            let message = "a tenant of mode `validate` has no client keys: its callers present the org key itself";
            return Err(Finding::at(key.name.span(), message));
        }
        if std::iter::once(&org_key).chain(&org_key_next).any(|key| seen.validated.contains(key)) {
            let message = "another tenant of mode `validate` has the same org key, so callers could not be told apart";
            return Err(Finding::at(tenant.org_key.span(), message));
        }
        seen.validated.push(org_key.clone());
        seen.validated.extend(org_key_next.clone());
    }
    let mut client_keys: Vec<ClientKey> = Vec::with_capacity(tenant.client_keys.len());
    for key in &tenant.client_keys {
        if client_keys.iter().any(|other| *other.name == **key.name.get_ref()) {
            let message = format!("there is a client key `{}` in this tenant already", key.name.get_ref());
            return Err(Finding::at(key.name.span(), message));
        }
        client_keys.push(read_client_key(key, id, seen)?);
    }
    let client_certificates = tenant
        .client_certificates
        .iter()
        .map(|certificate| read_client_certificate(certificate, file, seen))
        .collect::<Result<_, _>>()?;
    let common = &file.limits;
    let own = &tenant.limits;
    let partitions = own.client.max_partitions.or(common.client.max_partitions);
    Ok(Tenant {
        id: id.as_str().into(),
        mode,
        org_key,
        org_key_next,
        client_keys,
        client_certificates,
        freshness: Freshness {
            live: chosen(tenant.freshness.live, file.cache.freshness.live, FRESHNESS.live),
            recent: chosen(tenant.freshness.recent, file.cache.freshness.recent, FRESHNESS.recent),
            closed: chosen(tenant.freshness.closed, file.cache.freshness.closed, FRESHNESS.closed),
        },
        webhooks: tenant.webhooks,
        request_directives: tenant.request_directives.clone(),
        stale: Stale {
            while_revalidate: chosen(
                tenant.stale.while_revalidate,
                file.cache.stale.while_revalidate,
                STALE.while_revalidate,
            ),
            if_error: chosen(tenant.stale.if_error, file.cache.stale.if_error, STALE.if_error),
        },
        client_budget: Rate {
            per_second: count(own.client.per_second, common.client.per_second, CLIENT_RATE.per_second),
            burst: count(own.client.burst, common.client.burst, CLIENT_RATE.burst),
        },
        upstream_budget: UpstreamRate {
            rate: Rate {
                per_second: count(own.upstream.per_second, common.upstream.per_second, UPSTREAM_RATE.rate.per_second),
                burst: count(own.upstream.burst, common.upstream.burst, UPSTREAM_RATE.rate.burst),
            },
            max_wait: chosen(own.upstream.max_wait, common.upstream.max_wait, UPSTREAM_RATE.max_wait),
            max_queue: own
                .upstream
                .max_queue
                .or(common.upstream.max_queue)
                .map_or(UPSTREAM_RATE.max_queue, |queue| bytes(queue.into())),
        },
        max_partitions: partitions.map_or(MAX_PARTITIONS, |count| count.0.get()).into(),
    })
}

/// The tenant's own setting, or the common one, or the default.
fn chosen(own: Option<super::units::Length>, common: Option<super::units::Length>, default: Duration) -> Duration {
    own.or(common).map_or(default, |length| length.0)
}

fn count(own: Option<Count>, common: Option<Count>, default: NonZeroU32) -> NonZeroU32 {
    own.or(common).map_or(default, |count| count.0)
}

fn read_client_key(key: &file::ClientKey, tenant: &str, seen: &mut Seen) -> Result<ClientKey, Finding> {
    let name = key.name.get_ref();
    if name.is_empty() {
        return Err(Finding::at(key.name.span(), "a client key needs a name: it stands for the caller in logs"));
    }
    if let Some(owner) = seen.keys.insert(*key.sha256.get_ref(), format!("{name}` of tenant `{tenant}")) {
        let message = format!("the client key `{owner}` has the same hash; every key needs its own");
        return Err(Finding::at(key.sha256.span(), message));
    }
    let budget = match (&key.per_second, &key.burst) {
        (Some(per_second), Some(burst)) => Some(Rate { per_second: per_second.get_ref().0, burst: burst.get_ref().0 }),
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            return Err(Finding::at(one.span(), "`per_second` and `burst` go together"));
        }
    };
    Ok(ClientKey {
        name: name.as_str().into(),
        sha256: key.sha256.get_ref().0,
        linked_accounts: read_patterns(&key.linked_accounts)?,
        access: read_access(key.access),
        expires: key.expires.map(|expiry| expiry.0),
        budget,
    })
}

fn read_client_certificate(
    written: &file::ClientCertificate,
    file: &File,
    seen: &mut Seen,
) -> Result<ClientCertificate, Finding> {
    let san = written.san.get_ref();
    if san.is_empty() || seen.sans.contains(san) {
        let message = "a client certificate needs a name of its own: a DNS name or a URI like \"spiffe://cluster/app\"";
        return Err(Finding::at(written.san.span(), message));
    }
    let asked = file.listeners.iter().flat_map(Spanned::get_ref);
    if !asked.filter_map(|listener| listener.tls.as_ref()).any(|tls| tls.get_ref().client_ca.is_some()) {
        let message = "no listener asks for client certificates: `tls = { client_ca = \"…\", … }` is missing";
        return Err(Finding::at(written.san.span(), message));
    }
    seen.sans.push(san.clone());
    Ok(ClientCertificate {
        name: written.name.get_ref().as_str().into(),
        san: san.clone(),
        linked_accounts: read_patterns(&written.linked_accounts)?,
        access: read_access(written.access),
    })
}

fn read_pattern(pattern: &Spanned<String>) -> Result<AccountPattern, Finding> {
    let text = pattern.get_ref();
    match text.strip_suffix('*') {
        None if text.is_empty() => Err(Finding::at(pattern.span(), "a linked account's id can't be empty")),
        None if !text.contains('*') => Ok(AccountPattern::Exact(text.as_str().into())),
        Some(prefix) if !prefix.contains('*') => Ok(AccountPattern::Prefix(prefix.into())),
        _ => Err(Finding::at(pattern.span(), "a `*` can stand at the end of a pattern alone")),
    }
}

pub(super) fn read_secret(
    source: &Spanned<SecretSource>,
    reader: &Reader,
    environment: &Environment,
) -> Result<Secret, Finding> {
    let refused = |message: String| Finding::at(source.span(), message);
    let (value, source) = match source.get_ref() {
        SecretSource::Variable(name) => {
            let value = environment.get(name).map(str::to_owned);
            let value =
                value.ok_or_else(|| refused(format!("the environment variable {} is not set", mask::line(name))))?;
            (value, Provenance::Env(name.clone()))
        }
        SecretSource::File(path) => {
            let path = reader.resolve(path);
            let value = reader
                .read_text(&path)
                .map_err(|error| refused(format!("the secret file {} can't be read: {error}", path.display())))?;
            (value, Provenance::File(path))
        }
    };
    let value = value.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err(refused("the secret is empty".to_owned()));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused(
            "the secret has characters that a header can't have (a space or a line break?)".to_owned(),
        ));
    }
    Ok(Secret::new(value.to_owned(), source))
}
