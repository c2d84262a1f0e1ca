//! Keys in `x-api-key`: those that Postern issued, of which only the SHA-256 is known, and the org key of tenants that
//! validate it.
//!
//! Both are found by the digest of what came, so an unknown key and a wrong one cost the same, and the time of the look-up
//! says nothing about any key.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::linked_account::one_linked_account;
use crate::clock::Clock;
use crate::config::{Access, AccountPattern, ClientCertificate, TenantMode, Trusted};
use crate::digest::sha256;
use crate::error::{ClientError, Reason};
use crate::fields::Fields;
use crate::limit::ClientBudget;
use crate::tenant::Tenant;

/// A client key while the gateway runs.
#[derive(Debug)]
pub struct KeyInUse {
    /// Its name in logs.
    pub name: Arc<str>,
    /// What it may do.
    pub access: Access,
    /// Its own budget, if it has one.
    pub budget: Option<Arc<ClientBudget>>,
    linked_accounts: Vec<AccountPattern>,
    expires: Option<Timestamp>,
}

impl KeyInUse {
    /// What everybody may do who connects to a trusted listener.
    pub(super) fn trusted(trusted: &Trusted) -> Self {
        Self {
            name: "trusted listener".into(),
            access: trusted.access,
            budget: None,
            linked_accounts: trusted.linked_accounts.clone(),
            expires: None,
        }
    }

    /// What somebody may do who shows a certificate.
    pub(super) fn certificate(certificate: &ClientCertificate) -> Self {
        Self {
            name: Arc::clone(&certificate.name),
            access: certificate.access,
            budget: None,
            linked_accounts: certificate.linked_accounts.clone(),
            expires: None,
        }
    }

    /// The linked accounts it may act for.
    #[must_use]
    pub fn linked_accounts(&self) -> &[AccountPattern] {
        &self.linked_accounts
    }

    /// The linked account that a request names, if the key may act for it.
    pub(super) fn one_linked_account<'a>(&self, fields: &Fields<'a>) -> Result<&'a str, ClientError> {
        let asked = one_linked_account(fields)?;
        if self.linked_accounts.iter().any(|pattern| pattern.matches(asked)) {
            return Ok(asked);
        }
        let message = "this key is not for that linked account";
        Err(ClientError::new(Reason::LinkedAccountNotAllowed, message))
    }

    /// Refuses a key whose time is over.
    pub(super) fn check_expiry(&self, clock: &Clock) -> Result<(), ClientError> {
        match self.expires {
            Some(expires) if clock.wall() >= expires => {
                Err(ClientError::new(Reason::ExpiredCredentials, "this key has expired; ask for a new one"))
            }
            _ => Ok(()),
        }
    }
}

/// All keys of all tenants, by digest.
#[derive(Debug)]
pub(super) struct Keys(HashMap<[u8; 32], Known, foldhash::fast::RandomState>);

/// A key that was found.
#[derive(Debug)]
pub(super) struct Known {
    /// Index of its tenant.
    pub(super) tenant: usize,
    /// `None` for the org key itself.
    pub(super) client_key: Option<Arc<KeyInUse>>,
}

/// Budgets of client keys by the tenant's id and the key's name.
pub(super) type KeyBudgets = HashMap<(Arc<str>, Arc<str>), Arc<ClientBudget>>;

impl Keys {
    /// The keys of these tenants. `budgets` are those that there were before: a key with the same name and the same rate
    /// has not got back what it has spent.
    pub(super) fn new(tenants: &[Arc<Tenant>], budgets: &KeyBudgets) -> Self {
        let mut keys = HashMap::default();
        for (index, tenant) in tenants.iter().enumerate() {
            for key in &tenant.config.client_keys {
                let budget = key.budget().map(|rate| {
                    let before = budgets.get(&(Arc::clone(&tenant.config.id), Arc::clone(&key.name)));
                    let kept = before.filter(|budget| budget.rate() == rate).map(Arc::clone);
                    kept.unwrap_or_else(|| Arc::new(ClientBudget::new(rate)))
                });
                let in_use = KeyInUse {
                    name: Arc::clone(&key.name),
                    access: key.access,
                    budget,
                    linked_accounts: key.linked_accounts.clone(),
                    expires: key.expires,
                };
                let known = Known { tenant: index, client_key: Some(Arc::new(in_use)) };
                keys.insert(key.sha256, known);
            }
            if tenant.config.mode == TenantMode::Validate {
                for org_key in std::iter::once(&tenant.config.org_key).chain(&tenant.config.org_key_next) {
                    keys.insert(sha256(org_key.expose().as_bytes()), Known { tenant: index, client_key: None });
                }
            }
        }
        Self(keys)
    }

    /// The budgets of all that have one.
    pub(super) fn budgets(&self, tenants: &[Arc<Tenant>]) -> KeyBudgets {
        let of = |known: &Known| {
            let key = known.client_key.as_ref()?;
            let name = (Arc::clone(&tenants[known.tenant].config.id), Arc::clone(&key.name));
            Some((name, Arc::clone(key.budget.as_ref()?)))
        };
        self.0.values().filter_map(of).collect()
    }

    /// Who has this key.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Known> {
        self.0.get(&sha256(key))
    }
}
