//! Keys in `x-api-key`: client keys, and the org keys of tenants of mode `validate`.
//!
//! Both are found by the SHA-256 of the key that the request carries. So the time of a look-up reveals nothing about the
//! configured keys, and an unknown key costs as much as a known one.

use std::collections::HashMap;
use std::sync::Arc;

use super::client_key::{self, KeyBudgets};
use super::grant::Grant;
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
    /// Creates the table of the tenants' keys. `budgets` are the client keys' budgets before a reload.
    pub(super) fn new(tenants: &[Arc<Tenant>], budgets: &KeyBudgets) -> Self {
        let mut keys = HashMap::default();
        for tenant in tenants {
            let client_keys = client_key::grants(tenant, budgets);
            keys.extend(
                client_keys.map(|(digest, grant)| (digest, ApiKey::Client(Arc::clone(tenant), Arc::new(grant)))),
            );
            keys.extend(org_key::digests(&tenant.config).map(|digest| (digest, ApiKey::Org(Arc::clone(tenant)))));
        }
        Self(keys)
    }

    /// Collects the budgets of all client keys that have one.
    pub(super) fn budgets(&self) -> KeyBudgets {
        let mut budgets = KeyBudgets::default();
        for key in self.0.values() {
            if let ApiKey::Client(tenant, grant) = key {
                budgets.insert(tenant, grant);
            }
        }
        budgets
    }

    /// Finds a key. Part of the hit path.
    pub(super) fn find(&self, key: &[u8]) -> Option<&ApiKey> {
        self.0.get(&sha256(key))
    }
}
