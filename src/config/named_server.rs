//! The servers that a configuration names, each with its place in the file: `postern check --online` asks them.

use std::sync::Arc;

use super::connection::Connection;
use super::diagnostic::Finding;
use super::issuer_keys::{KeyOrigin, RemoteJwks};
use super::root::Config;
use super::secret::Secret;
use super::setting_path::SettingPath;
use super::traces::SpanEndpoint;

/// A server, or a credential for one, that a configuration names.
#[derive(Clone, Debug)]
pub struct NamedServer {
    /// What it is to the gateway.
    pub role: ServerRole,
    /// A finding without a message, at the setting that names it.
    place: Finding,
}

/// What a server, or a credential for one, is to the gateway.
#[derive(Clone, Debug)]
pub enum ServerRole {
    /// Refold.
    Refold(Connection),
    /// An org key for Refold. A key that several tenants share is listed once.
    OrgKey {
        /// The tenant.
        tenant: Arc<str>,
        /// The name of the setting.
        setting: &'static str,
        /// The key.
        key: Secret,
    },
    /// The keys of an issuer.
    Issuer {
        /// The name of the issuer.
        issuer: Arc<str>,
        /// The document with the keys.
        jwks: Box<RemoteJwks>,
    },
    /// The collector of spans.
    Collector(SpanEndpoint),
}

impl NamedServer {
    pub(super) fn new(role: ServerRole, place: Finding) -> Self {
        Self { role, place }
    }

    /// A finding about the setting that names the server.
    #[must_use]
    pub fn finding(&self, message: impl Into<String>) -> Finding {
        self.place.clone().with_message(message)
    }
}

/// Lists the servers of a valid configuration by the paths of the settings that name them.
pub(super) fn named_servers(config: &Config) -> Vec<(SettingPath, ServerRole)> {
    let root = SettingPath::default();
    let mut servers = vec![(root.key("upstream").key("base_url"), ServerRole::Refold(config.upstream.connection()))];
    let mut seen: Vec<&Secret> = Vec::new();
    for (index, tenant) in config.tenants.iter().enumerate() {
        let keys = [("org_key", Some(&tenant.org_key)), ("org_key_next", tenant.org_key_next.as_ref())];
        for (setting, key) in keys.into_iter().filter_map(|(setting, key)| Some((setting, key?))) {
            if !seen.iter().any(|other| other.expose() == key.expose()) {
                let role = ServerRole::OrgKey { tenant: Arc::clone(&tenant.id), setting, key: key.clone() };
                servers.push((root.key("tenants").index(index).key(setting), role));
                seen.push(key);
            }
        }
    }
    for (index, issuer) in config.issuers.iter().enumerate() {
        if let KeyOrigin::Remote(jwks) = issuer.keys.origin() {
            let role = ServerRole::Issuer { issuer: Arc::clone(&issuer.issuer), jwks };
            servers.push((root.key("issuers").index(index).key("keys"), role));
        }
    }
    let collector = config.traces.span_endpoint().map(ServerRole::Collector);
    servers.extend(collector.map(|role| (root.key("traces").key("endpoint"), role)));
    servers
}
