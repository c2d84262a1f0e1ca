//! Keys in `x-api-key`: client keys, and the org keys of tenants of mode `validate`.
//!
//! Both are found by the SHA-256 of the key that the request carries. So the time of a look-up reveals nothing about the
//! configured keys, and an unknown key costs as much as a known one.

use std::collections::HashMap;
use std::sync::Arc;

use super::client_key::{self, KeyStates};
use super::grant::Grant;
use super::key_usage::KeyUsage;
use super::org_key;
use crate::digest::sha256;
use crate::tenant::Tenant;

/// The keys of all tenants by their SHA-256.
#[derive(Debug)]
pub(super) struct ApiKeys(HashMap<[u8; 32], ApiKey, foldhash::fast::RandomState>);

/// A known key.
#[derive(Debug)]
pub(super) enum ApiKey {
    /// A client key of a tenant.
    Client(Arc<Tenant>, Arc<Grant>),
    /// One of a tenant's org keys.
    Org(Arc<Tenant>),
}

impl ApiKeys {
    /// Creates the table of the tenants' keys. `states` are the client keys' states before a reload.
    pub(super) fn new(tenants: &[Arc<Tenant>], states: &KeyStates) -> Self {
        let mut keys = HashMap::default();
        for tenant in tenants {
            let client_keys = client_key::grants(tenant, states);
            keys.extend(
                client_keys.map(|(digest, grant)| (digest, ApiKey::Client(Arc::clone(tenant), Arc::new(grant)))),
            );
            keys.extend(org_key::digests(&tenant.config).map(|digest| (digest, ApiKey::Org(Arc::clone(tenant)))));
        }
        Self(keys)
    }

    /// Collects the states of all client keys.
    pub(super) fn states(&self) -> KeyStates {
        let mut states = KeyStates::default();
        for key in self.0.values() {
            if let ApiKey::Client(tenant, grant) = key {
                states.insert(tenant, grant);
            }
        }
        states
    }

    /// Returns the counts of a client key by its SHA-256.
    pub(super) fn usage(&self, sha256: &[u8; 32]) -> Option<&KeyUsage> {
        match self.0.get(sha256)? {
            ApiKey::Client(_, grant) => grant.usage.as_deref(),
            ApiKey::Org(_) => None,
        }
    }

    /// Finds a key. Part of the hit path.
    pub(super) fn find(&self, key: &[u8]) -> Option<&ApiKey> {
        self.0.get(&sha256(key))
    }
}
