//! Trusted listeners: a loopback or Unix socket that authenticates every connection to it, without a credential in the
//! request.

use std::sync::Arc;

use http::HeaderValue;
use http::header::{HOST, ORIGIN};
use http::request::Parts;
use jiff::Timestamp;

use super::credential_kind::CredentialKind;
use super::grant::{Grant, TenantGrant};
use super::tenants::TenantIndex;
use crate::config::{HostName, ListenAddress, ListenerConfig, TenantRef, Trusted};
use crate::error::{ClientError, Reason};
use crate::request::authority::HostAndPort;
use crate::request::cors::AllowedOrigin;
use crate::request::peer::Peer;

/// The identity that a connection gives to all its requests, by its listener, its client certificate and its peer.
#[derive(Clone, Debug, Default)]
pub struct ListenerIdentity {
    /// The tenant whose session tokens are accepted on the connection.
    pub session_tokens: Option<TenantIndex>,
    /// The grant of every request on the connection: a trusted listener's or a client certificate's. Such a request must not
    /// carry another credential.
    pub grant: Option<TenantGrant>,
    /// The end of the client certificate that the grant comes from.
    pub expires: Option<Timestamp>,
    /// The hosts that a request may name beside loopback ones, if the listener's address alone is the credential and a web page
    /// can reach it: on TCP.
    pub trusted_hosts: Option<Arc<[HostName]>>,
    /// The other end of the connection, which may be a trusted proxy.
    pub peer: Peer,
}

impl ListenerIdentity {
    /// Creates the identity of connections to a listener.
    #[must_use]
    pub fn of(listener: &ListenerConfig) -> Self {
        let trusted = listener.trusted.as_ref();
        let is_tcp = matches!(listener.address, ListenAddress::Tcp(_));
        Self {
            grant: trusted.map(grant),
            trusted_hosts: trusted.filter(|_| is_tcp).map(|trusted| Arc::clone(&trusted.hosts)),
            ..Self::for_session_tokens(listener.session_tokens.as_ref().map(TenantRef::index))
        }
    }

    /// Creates an identity without a grant. `tenant` is the index in the configuration of the tenant whose session tokens are
    /// accepted.
    #[must_use]
    pub fn for_session_tokens(tenant: Option<usize>) -> Self {
        Self { session_tokens: tenant.map(TenantIndex::of_config), ..Self::default() }
    }

    /// The identity of a connection whose client certificate has a grant and is valid until `expires`.
    #[must_use]
    pub fn with_certificate(&self, grant: TenantGrant, expires: Timestamp) -> Self {
        Self { grant: Some(grant), expires: Some(expires), trusted_hosts: None, ..self.clone() }
    }

    /// Checks that a request to a trusted listener over TCP comes from a program, or from a page of an origin that may use the
    /// gateway. `allowed` is that origin. A page that another site has led to the listener by its own name (DNS rebinding)
    /// names itself in `Host`; a page of another origin names itself in `Origin`.
    ///
    /// # Errors
    /// 403 for a host or an origin that is not allowed. Requests to other listeners are not checked.
    pub fn check_source(&self, head: &Parts, allowed: Option<&AllowedOrigin>) -> Result<(), ClientError> {
        let Some(hosts) = &self.trusted_hosts else { return Ok(()) };
        let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
        let named = target.into_iter().chain(head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes));
        let is_trusted =
            |host: HostAndPort<'_>| host.is_loopback() || hosts.iter().any(|trusted| trusted.is(host.host()));
        let (mut names_a_host, mut all_trusted) = (false, true);
        for host in named {
            names_a_host = true;
            all_trusted &= HostAndPort::parse(host).is_some_and(is_trusted);
        }
        if !names_a_host || !all_trusted {
            let message = "this listener accepts loopback host names and those of `trusted.hosts` only";
            return Err(ClientError::new(Reason::HostNotAllowed, message));
        }
        let origins = head.headers.get_all(ORIGIN).iter().count();
        if origins > 1 || origins == 1 && allowed.is_none() {
            let message = "pages of this origin may not use this listener; `[cors]` names those that may";
            return Err(ClientError::new(Reason::OriginNotAllowed, message));
        }
        Ok(())
    }
}

fn grant(trusted: &Trusted) -> TenantGrant {
    let grant = Grant {
        name: "trusted listener".into(),
        access: trusted.access,
        budget: None,
        usage: None,
        linked_accounts: trusted.linked_accounts.clone(),
        expires: None,
        kind: CredentialKind::Trusted,
    };
    TenantGrant { tenant: TenantIndex::of_config(trusted.tenant.index()), grant: Arc::new(grant) }
}
