//! The permissions that the configuration attaches to a client key, a client certificate or a trusted listener.

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;

use super::credential_kind::CredentialKind;
use super::key_usage::KeyUsage;
use super::linked_account;
use super::tenants::TenantIndex;
use crate::clock::Clock;
use crate::config::{Access, AccountPattern};
use crate::error::{ClientError, Reason};
use crate::limit::ClientBudget;
use crate::request::headers::RequestHeaders;

/// The permissions of a client key, a client certificate or a trusted listener.
#[derive(Debug)]
pub struct Grant {
    /// The name in logs.
    pub name: Arc<str>,
    /// The permitted operations.
    pub access: Access,
    /// A budget beside the linked account's, for client keys that are configured with one.
    pub budget: Option<OwnBudget>,
    /// The counts of a client key or a client certificate; `None` for a trusted listener.
    pub(super) usage: Option<Arc<KeyUsage>>,
    pub(super) linked_accounts: Vec<AccountPattern>,
    pub(super) expires: Option<Timestamp>,
    /// A client key, a client certificate or a trusted listener.
    pub(super) kind: CredentialKind,
}

/// The budget of one client key.
#[derive(Clone, Debug)]
pub struct OwnBudget {
    /// The budget.
    pub budget: Arc<ClientBudget>,
    /// `RateLimit-Policy` for requests with the key.
    pub policies: HeaderValue,
}

/// A grant and the tenant that it is for.
#[derive(Clone, Debug)]
pub struct TenantGrant {
    /// The tenant.
    pub tenant: TenantIndex,
    /// The permissions.
    pub grant: Arc<Grant>,
}

impl Grant {
    /// The linked accounts that a request with this grant may name.
    #[must_use]
    pub fn linked_accounts(&self) -> &[AccountPattern] {
        &self.linked_accounts
    }

    /// Returns true if the grant is a credential for every linked account of the org.
    #[must_use]
    pub(super) fn is_of_org(&self) -> bool {
        // A trusted listener has no credential that could be for the whole org.
        self.kind != CredentialKind::Trusted && self.linked_accounts.iter().any(AccountPattern::covers_every_account)
    }

    /// Returns the linked account that a request names.
    ///
    /// # Errors
    /// 400 if the request names none, 403 if the grant does not include it.
    pub(super) fn linked_account<'a>(&self, fields: &RequestHeaders<'a>) -> Result<&'a str, ClientError> {
        let named = linked_account::required(fields)?;
        if self.linked_accounts.iter().any(|pattern| pattern.matches(named)) {
            return Ok(named);
        }
        let message = "this key is not for that linked account";
        Err(ClientError::new(Reason::LinkedAccountNotAllowed, message))
    }

    /// Refuses an expired key with 401.
    pub(super) fn check_expiry(&self, clock: &Clock) -> Result<(), ClientError> {
        match self.expires {
            Some(expires) if clock.wall() >= expires => {
                let message = "this key has expired; ask for a new one";
                Err(ClientError::new(Reason::ExpiredCredentials, message).with_credential_problem("expired_key"))
            }
            _ => Ok(()),
        }
    }
}
