//! A server that a configuration names, with its place in the file: `postern check --online` asks it.

use std::sync::Arc;

use super::connection::Connection;
use super::diagnostic::Finding;
use super::fleet::FleetConfig;
use super::issuer_keys::RemoteJwks;
use super::secret::Secret;
use super::traces::SpanExport;

/// A server that a configuration names, or a credential for one, with its place in the file.
#[derive(Clone, Debug)]
pub struct NamedServer {
    /// The server, or the credential.
    pub role: ServerRole,
    /// A finding without a message, at the setting that names it.
    place: Finding,
}

/// A server, or a credential for one, by its role for the gateway.
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
    /// The server of the fleet.
    Fleet(Arc<FleetConfig>),
    /// The collector of spans.
    Collector(SpanExport),
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
