//! The credential that a caller was identified by.

use std::sync::Arc;

use super::credential_kind::CredentialKind;
use super::grant::Grant;
use super::jwt::Identity;
use super::key_usage::{KeyUsage, OutcomeCounters};
use super::session_token::SessionToken;
use crate::config::Access;
use crate::tenant::OrgKey;

/// A verified credential; a session token is verified by the upstream.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A client key, a client certificate or a trusted listener. Upstream requests carry the org key.
    Grant(Arc<Grant>),
    /// A JWT of a configured issuer. Upstream requests carry the org key.
    Jwt(Arc<Identity>),
    /// An org key, which upstream requests carry as well.
    OrgKey(OrgKey),
    /// A session token of Refold's, which upstream requests carry as well.
    SessionToken(SessionToken),
}

impl Credential {
    /// The kind of the credential.
    #[must_use]
    pub fn kind(&self) -> CredentialKind {
        match self {
            Self::Grant(grant) => grant.kind,
            Self::Jwt(_) => CredentialKind::Jwt,
            Self::OrgKey(_) => CredentialKind::OrgKey,
            Self::SessionToken(_) => CredentialKind::SessionToken,
        }
    }

    /// The name in logs of the caller that has sent the credential.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Grant(grant) => &grant.name,
            Self::Jwt(identity) => identity.subject(),
            Self::OrgKey(_) => "org key",
            Self::SessionToken(_) => "session token",
        }
    }

    /// The counts of a client key or a client certificate; `None` for other credentials.
    #[must_use]
    pub fn key_usage(&self) -> Option<&KeyUsage> {
        match self {
            Self::Grant(grant) => grant.usage.as_deref(),
            Self::Jwt(_) | Self::OrgKey(_) | Self::SessionToken(_) => None,
        }
    }

    /// The metrics' counters of a credential that they name, and that name, which the configuration has: of a client key or client
    /// certificate its own, of a JWT its issuer's.
    #[must_use]
    pub fn counters(&self) -> Option<(&OutcomeCounters, &str)> {
        match self {
            Self::Grant(grant) => Some((&grant.usage.as_deref()?.counters, &grant.name)),
            Self::Jwt(identity) => Some(identity.counters()),
            Self::OrgKey(_) | Self::SessionToken(_) => None,
        }
    }

    /// The operations that the credential allows.
    #[must_use]
    pub fn access(&self) -> Access {
        match self {
            Self::Grant(grant) => grant.access,
            Self::Jwt(identity) => identity.access(),
            Self::OrgKey(_) | Self::SessionToken(_) => Access::ReadWrite,
        }
    }
}
