//! The client keys as the status page shows them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::callers::Callers;
use super::key_usage::KeyUsage;
use crate::clock::Moment;
use crate::config::{Access, ClientKey};
use crate::tenant::Tenant;

/// A client key, as the status page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientKeyStatus {
    /// The tenant that the key belongs to.
    pub tenant: String,
    /// The name in logs.
    pub name: String,
    /// The permitted operations.
    pub access: Access,
    /// The time from which the key is refused.
    pub expires: Option<Timestamp>,
    /// Requests per second of the key's own budget, if it has one.
    pub per_second: Option<u32>,
    /// Requests of the last minute, refused ones too.
    pub requests: u64,
    /// The number of these requests that were answered 429.
    pub limited: u64,
    /// Whole seconds since the last request; `None` if there was none since the process started.
    pub last_used_seconds_ago: Option<u64>,
}

impl Callers {
    /// The client keys of all tenants, in the order of the configuration.
    #[must_use]
    pub fn client_keys(&self, now: Moment) -> Vec<ClientKeyStatus> {
        let of_tenant = |tenant: &Arc<Tenant>| -> Vec<ClientKeyStatus> {
            let keys = tenant.config.client_keys.iter();
            keys.map(|key| status(tenant, key, self.api_keys.usage(&key.sha256), now)).collect()
        };
        self.tenants().iter().flat_map(of_tenant).collect()
    }
}

fn status(tenant: &Tenant, key: &ClientKey, usage: Option<&KeyUsage>, now: Moment) -> ClientKeyStatus {
    let (requests, limited) = usage.map(|usage| usage.of_last_minute(now)).unwrap_or_default();
    ClientKeyStatus {
        tenant: tenant.config.id.to_string(),
        name: key.name.to_string(),
        access: key.access,
        expires: key.expires,
        per_second: key.budget().map(|rate| rate.per_second.get()),
        requests,
        limited,
        last_used_seconds_ago: usage.and_then(|usage| usage.seconds_since_use(now)),
    }
}
