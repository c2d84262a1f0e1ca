//! Trusted listeners: a loopback or Unix socket that authenticates every connection to it, without a credential in the
//! request.

use std::sync::Arc;

use super::grant::{Grant, TenantGrant};
use super::tenants::TenantIndex;
use crate::config::{ListenerConfig, TenantRef, Trusted};
use crate::request::peer::Peer;

/// The identity that a connection gives to all its requests, by its listener, its client certificate and its peer.
#[derive(Clone, Debug, Default)]
pub struct ListenerIdentity {
    /// The tenant whose session tokens are accepted on the connection.
    pub session_tokens: Option<TenantIndex>,
    /// The grant of every request on the connection: a trusted listener's or a client certificate's. Such a request must not
    /// carry another credential.
    pub grant: Option<TenantGrant>,
    /// The other end of the connection, which may be a trusted proxy.
    pub peer: Peer,
}

impl ListenerIdentity {
    /// Creates the identity of connections to a listener.
    #[must_use]
    pub fn of(listener: &ListenerConfig) -> Self {
        Self {
            grant: listener.trusted.as_ref().map(grant),
            ..Self::for_session_tokens(listener.session_tokens.as_ref().map(TenantRef::index))
        }
    }

    /// Creates an identity without a grant. `tenant` is the index in the configuration of the tenant whose session tokens are
    /// accepted.
    #[must_use]
    pub fn for_session_tokens(tenant: Option<usize>) -> Self {
        Self { session_tokens: tenant.map(TenantIndex::of_config), ..Self::default() }
    }
}

fn grant(trusted: &Trusted) -> TenantGrant {
    let grant = Grant {
        name: "trusted listener".into(),
        access: trusted.access,
        budget: None,
        linked_accounts: trusted.linked_accounts.clone(),
        expires: None,
        may_be_of_org: false,
    };
    TenantGrant { tenant: TenantIndex::of_config(trusted.tenant.index()), grant: Arc::new(grant) }
}
