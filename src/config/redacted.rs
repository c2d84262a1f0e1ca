//! The configuration in effect, to be looked at: what was written, the defaults and the overrides together. Of a secret only
//! the place where it comes from is shown. Everything is written as the file would have it.

use serde_json::{Map, Value, json};

use super::model::{
    Access, AccountPattern, BreakerSettings, Config, Cors, Issuer, Listener, PassThrough, PathSegment, Rate, Stale,
    Tenant, TenantMode, TenantOf, Trusted,
};
use super::observe::Traces;
use super::units::{Length, Size};
use crate::digest::Hex;
use crate::executions::{Dialect, UnknownParameters};

impl Config {
    /// What is in effect, without a secret in it.
    #[must_use]
    pub fn redacted(&self) -> Value {
        let tenant = |index: usize| self.tenants.get(index).map(|tenant| tenant.id.to_string());
        json!({
            "listeners": self.listeners.iter().map(|one| listener(one, tenant)).collect::<Vec<_>>(),
            "admin": self.admin.as_ref().map_or(json!({ "address": "off" }), |admin| json!({
                "address": admin.address.to_string(),
                "token": admin.token.as_ref().map(|token| token.source().clone()),
            })),
            "server": {
                "workers": self.server.workers,
                "header_timeout": Length(self.server.header_timeout).to_string(),
                "idle_timeout": Length(self.server.idle_timeout).to_string(),
                "body_timeout": Length(self.server.body_timeout).to_string(),
                "max_header_size": size(self.server.max_header_bytes),
                "max_uri_length": size(self.server.max_uri_bytes),
                "max_request_body": size(self.server.max_request_body),
                "drain_timeout": Length(self.server.drain_timeout).to_string(),
            },
            "upstream": self.upstream(),
            "query": {
                "max_limit": self.query.max_limit,
                "unknown_parameters": match self.query.unknown {
                    UnknownParameters::Reject => "reject",
                    UnknownParameters::Forward => "forward",
                    UnknownParameters::Drop => "drop",
                },
                "ignored_parameters": self.query.ignored,
            },
            "cache": {
                "capacity": Size(self.cache.capacity).to_string(),
                "honour_no_store": self.cache.honour_no_store,
                "collapse": self.cache.collapse,
                "derive": self.cache.derive,
            },
            "tenants": self.tenants.iter().map(|one| describe(one)).collect::<Vec<_>>(),
            "issuers": self.issuers.iter().map(|one| issuer(one, tenant)).collect::<Vec<_>>(),
            "cors": self.cors.as_ref().map(cors),
            "pass_through": self.pass_through.iter().map(|allowed| pass_through(allowed)).collect::<Vec<_>>(),
            "log": {
                "requests": self.log.requests,
                "sample": self.log.sample,
                "linked_accounts": self.log.linked_accounts,
            },
            "traces": traces(self.traces.as_ref()),
        })
    }

    fn upstream(&self) -> Value {
        let connection = &self.upstream.connection;
        let BreakerSettings { failures, open_for } = self.upstream.breaker;
        json!({
            "base_url": connection.base_url.to_string().trim_end_matches('/'),
            "dialect": match self.upstream.dialect {
                Dialect::Documented => "documented",
                Dialect::V3 => "v3",
            },
            "ca_file": connection.ca_file.as_ref().map(|file| &file.path),
            "connect_timeout": Length(connection.connect_timeout).to_string(),
            "first_byte_timeout": Length(connection.first_byte_timeout).to_string(),
            "total_timeout": Length(connection.total_timeout).to_string(),
            "max_response_body": size(connection.max_body),
            "pool_idle_per_worker": connection.pool_idle_per_worker,
            "pool_idle_timeout": Length(connection.pool_idle_timeout).to_string(),
            "max_concurrent": self.upstream.max_concurrent,
            "retries": self.upstream.retries,
            "breaker": { "failures": failures, "open_for": Length(open_for).to_string() },
        })
    }
}

fn traces(traces: Option<&Traces>) -> Value {
    let headers = |traces: &Traces| -> Map<String, Value> {
        traces.headers.iter().map(|(name, secret)| (name.to_string(), json!(secret.source()))).collect()
    };
    json!({
        "endpoint": traces.map(Traces::endpoint),
        "sample": traces.map(|traces| traces.sample),
        "service_name": traces.map(|traces| traces.service_name.to_string()),
        "ca_file": traces.and_then(|traces| traces.connection.ca_file.as_ref()).map(|file| &file.path),
        "headers": traces.map(headers),
    })
}

fn size(bytes: usize) -> String {
    Size(bytes as u64).to_string()
}

fn listener(listener: &Listener, tenant: impl Fn(usize) -> Option<String>) -> Value {
    let trusted = |trusted: &Trusted| {
        json!({
            "tenant": tenant(trusted.tenant),
            "linked_accounts": patterns(&trusted.linked_accounts),
            "access": access(trusted.access),
        })
    };
    json!({
        "address": listener.address.to_string(),
        "session_tokens": listener.session_tokens.and_then(&tenant),
        "trusted": listener.trusted.as_ref().map(trusted),
        "tls": listener.tls.as_ref().map(|tls| json!({
            "certificate": tls.certificate,
            "key": tls.key,
            "client_ca": tls.client_ca,
            "client_certificate": if tls.client_certificate_required { "required" } else { "optional" },
        })),
        "socket": {
            "mode": listener.socket.mode.map(|mode| format!("{mode:04o}")),
            "owner": listener.socket.owner,
            "group": listener.socket.group,
        },
    })
}

fn describe(tenant: &Tenant) -> Value {
    let Stale { while_revalidate, if_error } = tenant.stale;
    let keys = tenant.client_keys.iter().map(|key| {
        json!({
            "name": key.name.to_string(),
            // What the file has: the key can't be had from it.
            "sha256": Hex(&key.sha256).to_string(),
            "linked_accounts": patterns(&key.linked_accounts),
            "access": access(key.access),
            "expires": key.expires.map(|expiry| expiry.to_string()),
            "per_second": key.budget.map(|rate| rate.per_second),
            "burst": key.budget.map(|rate| rate.burst),
        })
    });
    let certificates = tenant.client_certificates.iter().map(|certificate| {
        json!({
            "name": certificate.name.to_string(),
            "san": certificate.san,
            "linked_accounts": patterns(&certificate.linked_accounts),
            "access": access(certificate.access),
        })
    });
    let Rate { per_second, burst } = tenant.client_budget;
    let upstream = tenant.upstream_budget;
    json!({
        "id": tenant.id.to_string(),
        "mode": match tenant.mode {
            TenantMode::Inject => "inject",
            TenantMode::Validate => "validate",
        },
        "org_key": tenant.org_key.source(),
        "org_key_next": tenant.org_key_next.as_ref().map(|key| key.source().clone()),
        "webhooks": tenant.webhooks,
        "request_directives": tenant.request_directives,
        "freshness": {
            "live": Length(tenant.freshness.live).to_string(),
            "recent": Length(tenant.freshness.recent).to_string(),
            "closed": Length(tenant.freshness.closed).to_string(),
        },
        "stale": {
            "while_revalidate": Length(while_revalidate).to_string(),
            "if_error": Length(if_error).to_string(),
        },
        "limits": {
            "client": { "per_second": per_second, "burst": burst, "max_partitions": tenant.max_partitions },
            "upstream": {
                "per_second": upstream.rate.per_second,
                "burst": upstream.rate.burst,
                "max_wait": Length(upstream.max_wait).to_string(),
                "max_queue": upstream.max_queue,
            },
        },
        "client_keys": keys.collect::<Vec<_>>(),
        "client_certificates": certificates.collect::<Vec<_>>(),
    })
}

fn issuer(issuer: &Issuer, tenant: impl Fn(usize) -> Option<String>) -> Value {
    let (fixed, claim) = match &issuer.tenant {
        TenantOf::Fixed(index) => (tenant(*index), None),
        TenantOf::Claim(path) => (None, Some(&path.0)),
    };
    json!({
        "issuer": issuer.issuer.to_string(),
        "audience": issuer.audience,
        "algorithms": issuer.algorithms,
        "keys": issuer.keys_from,
        "tenant": fixed,
        "tenant_claim": claim,
        "linked_account_claim": issuer.linked_account_claim.0,
        "scope_claim": issuer.scope_claim.0,
        "write_scope": issuer.write_scope,
        "leeway": Length(issuer.leeway).to_string(),
    })
}

fn cors(cors: &Cors) -> Value {
    json!({ "origins": cors.origins, "max_age": Length(cors.max_age).to_string() })
}

fn pass_through(allowed: &PassThrough) -> Value {
    let path = allowed.path.0.iter().fold(String::new(), |path, segment| {
        path + "/"
            + match segment {
                PathSegment::Given(given) => given,
                PathSegment::Any => "*",
                PathSegment::Rest => "**",
            }
    });
    json!({
        "methods": allowed.methods.iter().map(http::Method::as_str).collect::<Vec<_>>(),
        "path": path,
        "request_headers": allowed.request_headers.iter().map(http::HeaderName::as_str).collect::<Vec<_>>(),
        "max_body": size(allowed.max_body),
    })
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::ReadWrite => "read+write",
    }
}

fn patterns(patterns: &[AccountPattern]) -> Vec<String> {
    let text = |pattern: &AccountPattern| match pattern {
        AccountPattern::Exact(id) => id.to_string(),
        AccountPattern::Prefix(prefix) => format!("{prefix}*"),
    };
    patterns.iter().map(text).collect()
}
