//! The parts that the fuzz targets share: a configuration with every kind of credential, its callers, and a gateway that serves it in
//! front of the simulated Refold.

pub mod callers;
pub mod gateway;

use std::path::Path;

use postern::config::{Config, Environment};
use postern::executions::{QueryPolicy, UnknownParameters};

/// The org key, which no client ever sees.
pub const ORG_KEY: &str = "tk_fuzz_org_key_that_no_client_sees";
/// The org key of the tenant whose callers have it themselves.
pub const OWN_ORG_KEY: &str = "tk_own";
/// A client key for the linked accounts that begin with `acme-`.
pub const CLIENT_KEY: &str = "pst_fuzz";
/// The secret of the issuer of JWTs.
pub const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
/// The issuer and the audience of JWTs.
pub const ISSUER: &str = "https://login.example.com/";
/// The start of manual clocks.
pub const NOW: &str = "2026-03-20T12:00:00Z";

/// The configuration, in front of an upstream at `base_url`.
#[must_use]
pub fn configuration(base_url: &str) -> Config {
    let text = format!(
        r#"
        server = {{ workers = 1, trusted_proxies = ["127.0.0.0/8"], drain_timeout = "1s" }}
        admin.address = "off"
        cors.origins = ["https://app.example.com"]
        upstream = {{ base_url = "{base_url}", verify_key = "off", retries = 0 }}
        limits.client = {{ per_second = 100000, burst = 100000 }}
        limits.upstream = {{ per_second = 100000, burst = 100000 }}

        [[listeners]]
        address = "127.0.0.1:0"
        session_tokens = "acme"

        [[tenants]]
        id = "acme"
        mode = "inject"
        org_key = {{ env = "ORG_KEY" }}
        [[tenants.client_keys]]
        name = "fuzz"
        sha256 = "{}"
        linked_accounts = ["acme-*"]
        access = "read+write"

        [[tenants]]
        id = "own"
        mode = "validate"
        org_key = {{ env = "OWN_ORG_KEY" }}

        [[issuers]]
        issuer = "{ISSUER}"
        audience = ["postern"]
        keys = {{ secret = {{ env = "SECRET" }} }}
        tenant = "acme"
        write_scope = "executions:write"

        [[pass_through]]
        methods = ["GET", "POST"]
        path = "/api/v2/public/workflow/**"
        scope = "org"
        "#,
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, CLIENT_KEY.as_bytes()).as_ref()),
    );
    Config::parse(&text, Path::new("/nonexistent/fuzz.toml"), &environment()).unwrap_or_else(|error| panic!("{error}"))
}

/// The environment with all secrets.
#[must_use]
pub fn environment() -> Environment {
    let mut environment = Environment::default();
    for (name, value) in [("ORG_KEY", ORG_KEY), ("OWN_ORG_KEY", OWN_ORG_KEY), ("SECRET", SECRET)] {
        environment.insert(name, value);
    }
    environment
}

/// A policy for queries.
#[must_use]
pub fn policy(unknown: UnknownParameters) -> QueryPolicy {
    QueryPolicy { max_limit: 100, unknown, ignored: vec!["_".to_owned()] }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The HMAC-SHA256 of a message.
#[must_use]
pub fn hmac(key: &str, message: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
}
