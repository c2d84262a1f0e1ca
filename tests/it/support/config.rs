//! Builds a gateway's configuration. Only this file and `config_tables` write TOML.

use std::net::SocketAddr;
use std::path::Path;

use postern::config::{Config, ConfigError, Environment};
use toml::{Table, Value};

use super::config_tables::{Issuer, Listener, Tenant, environment, merge, set, without};
use super::{ClientKey, ENVIRONMENT, KEY};

/// A limit that no test reaches.
const UNLIMITED: u32 = 100_000;

/// A configuration, changed setting by setting and rendered as TOML.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    root: Table,
    listeners: Vec<Listener>,
    tenants: Vec<Tenant>,
    issuers: Vec<Issuer>,
    /// Environment variables beside the secrets.
    variables: Vec<(&'static str, String)>,
}

impl Configuration {
    /// One listener that takes session tokens, one tenant `t` with [`KEY`], limits that no test reaches, no retries, and no
    /// stale responses.
    pub(crate) fn new() -> Self {
        Self::bare()
            .listeners([Listener::new().session_tokens("t")])
            .tenants([Tenant::new("t").client_key(ClientKey::new("all", KEY).write())])
            .upstream_limit(UNLIMITED, UNLIMITED)
            .client_limit(UNLIMITED, UNLIMITED)
            .stale("0s", "0s")
    }

    /// [`Configuration::new`] with the limits and the staleness that the gateway has by default.
    pub(crate) fn with_default_limits() -> Self {
        Self { listeners: Self::new().listeners, tenants: Self::new().tenants, ..Self::bare() }
    }

    /// Neither listeners nor tenants; the admin listener is off, and no org key is verified.
    pub(crate) fn bare() -> Self {
        let empty = Self {
            root: Table::new(),
            listeners: Vec::new(),
            tenants: Vec::new(),
            issuers: Vec::new(),
            variables: Vec::new(),
        };
        let empty = empty.set("admin.address", "off").set("server.workers", 2).drain_timeout("200ms").retries(0);
        empty.verify_key("off")
    }

    /// Sets one setting by its dotted name.
    pub(crate) fn set(mut self, setting: &str, value: impl Into<Value>) -> Self {
        set(&mut self.root, setting, value.into());
        self
    }

    /// Leaves a setting or a table out.
    pub(crate) fn without(mut self, setting: &str) -> Self {
        without(&mut self.root, setting);
        self
    }

    /// Adds tables that are written as text.
    pub(crate) fn toml(mut self, fragment: &str) -> Self {
        let fragment: Table = fragment.parse().unwrap_or_else(|error| panic!("{error}: {fragment}"));
        merge(&mut self.root, fragment);
        self
    }

    pub(crate) fn upstream(self, address: SocketAddr) -> Self {
        self.set("upstream.base_url", format!("http://{address}"))
    }

    pub(crate) fn retries(self, retries: u32) -> Self {
        self.set("upstream.retries", retries)
    }

    /// Sets the condition under which answers are derived.
    pub(crate) fn derive(self, setting: &str) -> Self {
        self.set("cache.derive", setting)
    }

    /// Sets when Refold is asked whether it accepts the org keys.
    pub(crate) fn verify_key(self, setting: &str) -> Self {
        self.set("upstream.verify_key", setting)
    }

    pub(crate) fn breaker(self, failures: u32, open_for: &str) -> Self {
        self.set("upstream.breaker.failures", failures).set("upstream.breaker.open_for", open_for)
    }

    pub(crate) fn drain_timeout(self, timeout: &str) -> Self {
        self.set("server.drain_timeout", timeout)
    }

    /// Serves with one worker, so that requests are handled one after the other.
    pub(crate) fn one_worker(self) -> Self {
        self.set("server.workers", 1)
    }

    pub(crate) fn upstream_limit(self, per_second: u32, burst: u32) -> Self {
        self.set("limits.upstream.per_second", per_second).set("limits.upstream.burst", burst)
    }

    /// The longest that a fetch waits for its permit.
    pub(crate) fn max_wait(self, wait: &str) -> Self {
        self.set("limits.upstream.max_wait", wait)
    }

    pub(crate) fn client_limit(self, per_second: u32, burst: u32) -> Self {
        self.set("limits.client.per_second", per_second).set("limits.client.burst", burst)
    }

    pub(crate) fn stale(self, while_revalidate: &str, if_error: &str) -> Self {
        self.while_revalidate(while_revalidate).set("cache.stale.if_error", if_error)
    }

    pub(crate) fn while_revalidate(self, time: &str) -> Self {
        self.set("cache.stale.while_revalidate", time)
    }

    /// An admin listener without a token.
    pub(crate) fn admin(self) -> Self {
        self.set("admin.address", "127.0.0.1:0")
    }

    /// An admin listener that takes [`super::ADMIN_TOKEN`].
    pub(crate) fn admin_with_token(self) -> Self {
        self.admin().set("admin.token", environment("ADMIN_TOKEN"))
    }

    pub(crate) fn admin_off(self) -> Self {
        self.without("admin").set("admin.address", "off")
    }

    /// Replaces all listeners.
    pub(crate) fn listeners(mut self, listeners: impl Into<Vec<Listener>>) -> Self {
        self.listeners = listeners.into();
        self
    }

    /// Changes the last listener: the first is often a second one in front of the usual one.
    pub(crate) fn listener(mut self, change: impl FnOnce(Listener) -> Listener) -> Self {
        let listener = self.listeners.pop().expect("a listener");
        self.listeners.push(change(listener));
        self
    }

    /// Adds a listener before the others.
    pub(crate) fn first_listener(mut self, listener: Listener) -> Self {
        self.listeners.insert(0, listener);
        self
    }

    /// Replaces all tenants.
    pub(crate) fn tenants(mut self, tenants: impl Into<Vec<Tenant>>) -> Self {
        self.tenants = tenants.into();
        self
    }

    /// Changes the only tenant.
    pub(crate) fn tenant(mut self, change: impl FnOnce(Tenant) -> Tenant) -> Self {
        let tenant = self.tenants.pop().expect("a tenant");
        self.tenants.push(change(tenant));
        self
    }

    /// Replaces the client keys of the only tenant.
    pub(crate) fn client_keys(self, keys: impl IntoIterator<Item = ClientKey>) -> Self {
        self.tenant(|tenant| tenant.client_keys(keys))
    }

    /// Replaces the issuer of JWTs.
    pub(crate) fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuers = vec![issuer];
        self
    }

    pub(crate) fn no_issuer(mut self) -> Self {
        self.issuers.clear();
        self
    }

    /// The only tenant in mode `validate`, with two org keys, no client key and an issuer of tokens like
    /// [`super::tokens::token_of`].
    pub(crate) fn validating(self) -> Self {
        self.tenant(|tenant| tenant.client_keys([]).mode("validate").org_key_next("NEXT_ORG_KEY"))
            .issuer(Issuer::with_secret())
    }

    /// Sets an environment variable of a gateway within the test's process.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The text of the configuration file.
    pub(crate) fn to_toml(&self) -> String {
        let mut root = self.root.clone();
        let arrays = [
            ("listeners", self.listeners.iter().map(Listener::table).collect::<Vec<_>>()),
            ("tenants", self.tenants.iter().map(Tenant::table).collect()),
            ("issuers", self.issuers.iter().map(Issuer::table).collect()),
        ];
        for (name, tables) in arrays {
            if !tables.is_empty() {
                root.insert(name.to_owned(), tables.into());
            }
        }
        toml::to_string(&root).expect("a table can be written")
    }

    /// The configuration as the gateway reads it, in an environment that has all the secrets.
    pub(crate) fn parse(&self) -> Result<Config, ConfigError> {
        parse(&self.to_toml(), &self.variables)
    }
}

/// A configuration file's text, read in an environment that has all the secrets.
fn parse(text: &str, variables: &[(&str, String)]) -> Result<Config, ConfigError> {
    let mut environment = Environment::default();
    for (name, value) in ENVIRONMENT.into_iter().chain(variables.iter().map(|(name, value)| (*name, &**value))) {
        environment.insert(name, value);
    }
    Config::parse(text, Path::new("test.toml"), &environment)
}

/// The refusal of a configuration file's text.
pub(crate) fn refusal(text: &str) -> ConfigError {
    parse(text, &[]).expect_err("the configuration is wrong")
}
