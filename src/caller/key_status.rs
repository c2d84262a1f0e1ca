//! The client keys as `/status` shows them.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::callers::Callers;
use super::key_usage::KeyUsage;
use crate::clock::Moment;
use crate::config::{Access, AccountNaming, AccountPattern, ClientKey};
use crate::tenant::Tenant;

/// Most patterns of linked accounts that are shown of a key.
const MAX_PATTERNS: usize = 10;

/// A client key, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientKeyStatus {
    /// The tenant that the key belongs to.
    pub tenant: String,
    /// The name in logs.
    pub name: String,
    /// The permitted operations.
    pub access: Access,
    /// The first patterns of the linked accounts that the key is for, named as in the log.
    pub linked_accounts: Vec<String>,
    /// The number of further patterns, or of all if the log does not name linked accounts.
    pub more_linked_accounts: usize,
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
    /// The client keys of all tenants, in the order of the configuration, with linked accounts named like this.
    #[must_use]
    pub fn client_keys(&self, now: Moment, naming: AccountNaming) -> Vec<ClientKeyStatus> {
        let of_tenant = |tenant: &Arc<Tenant>| -> Vec<ClientKeyStatus> {
            let keys = tenant.config.client_keys.iter();
            keys.map(|key| status((tenant, naming), key, self.api_keys.usage(&key.sha256), now)).collect()
        };
        self.tenants().iter().flat_map(of_tenant).collect()
    }
}

fn status(
    (tenant, naming): (&Tenant, AccountNaming),
    key: &ClientKey,
    usage: Option<&KeyUsage>,
    now: Moment,
) -> ClientKeyStatus {
    let shown = key.linked_accounts.iter().take(MAX_PATTERNS).filter_map(|pattern| shown(pattern, naming));
    let linked_accounts: Vec<String> = shown.collect();
    let (requests, limited) = usage.map(|usage| usage.of_last_minute(now)).unwrap_or_default();
    ClientKeyStatus {
        tenant: tenant.config.id.to_string(),
        name: key.name.to_string(),
        access: key.access,
        more_linked_accounts: key.linked_accounts.len() - linked_accounts.len(),
        linked_accounts,
        expires: key.expires,
        per_second: key.budget().map(|rate| rate.per_second.get()),
        requests,
        limited,
        last_used_seconds_ago: usage.and_then(|usage| usage.seconds_since_use(now)),
    }
}

/// A pattern as `/status` shows it; `None` if it is left out. That of every account names none.
fn shown(pattern: &AccountPattern, naming: AccountNaming) -> Option<String> {
    match pattern {
        AccountPattern::Exact(id) => naming.name(id).map(Cow::into_owned),
        AccountPattern::Prefix(prefix) if prefix.is_empty() => Some(pattern.to_string()),
        AccountPattern::Prefix(prefix) => naming.name(prefix).map(|prefix| format!("{prefix}*")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_named_as_the_log_names_linked_accounts() {
        let of = |pattern: &str, naming| shown(&AccountPattern::parse(pattern).expect("a pattern"), naming);
        for (pattern, hashed) in [("acme-1", "7974d1de1641df02"), ("acme-*", "d8b61d2d336bd22f*")] {
            assert_eq!(of(pattern, AccountNaming::Plain).as_deref(), Some(pattern));
            assert_eq!(of(pattern, AccountNaming::Hashed).as_deref(), Some(hashed));
            assert_eq!(of(pattern, AccountNaming::None), None);
        }
        for naming in [AccountNaming::Plain, AccountNaming::Hashed, AccountNaming::None] {
            assert_eq!(of("*", naming).as_deref(), Some("*"));
        }
    }
}
