//! Authentication: from the credential of a request to its [`Caller`].
//!
//! [`Callers::identify`] is the step. A credential is one of:
//!
//! - `client_key`: a key that Postern issued, in `x-api-key`; only its SHA-256 is known.
//! - `org_key`: Refold's org API key in `x-api-key`, for tenants of mode `validate`.
//! - `jwt`: a JWT of a configured issuer, in `Authorization: Bearer`.
//! - `session_token`: Refold's own bearer token, which only Refold can verify.
//! - `trusted`: the connection to a trusted listener.
//! - `certificate`: the client certificate of a TLS connection.
//!
//! Only this module creates a [`Caller`], and later steps take a [`Caller`] instead of a credential: a cache key, for
//! example, can only be created from one.

mod api_key;
mod callers;
mod certificate;
mod client_key;
mod credential;
mod credential_kind;
mod grant;
mod identify;
mod jwt;
mod key_status;
mod key_usage;
mod linked_account;
mod org_key;
mod problem;
mod reload;
mod session_token;
mod tenants;
mod trusted;

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::FixedState;
use http::StatusCode;

pub use self::callers::Callers;
pub use self::credential::Credential;
pub use self::credential_kind::CredentialKind;
pub use self::grant::{Grant, TenantGrant};
pub use self::identify::{Authenticated, Unidentified};
pub use self::jwt::{FetchKeysError, Identity, IssuerIndex, KeyState, fetch_keys};
pub use self::key_status::ClientKeyStatus;
pub use self::key_usage::{KeyUsage, OUTCOMES, OutcomeCounters};
pub use self::session_token::SessionToken;
pub use self::tenants::TenantIndex;
pub use self::trusted::ListenerIdentity;
use crate::clock::Moment;
use crate::config::Access;
use crate::error::ClientError;
use crate::limit::Flow;
use crate::request::peer::Peer;
use crate::tenant::{KeyVerdict, OrgKey, Partition, Tenant, TokenStatus, UpstreamVerdict};

/// The authenticated sender of a request, authorized for one partition of one tenant.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: Arc<Tenant>,
    partition: Arc<Partition>,
    credential: Credential,
}

impl Caller {
    /// The tenant that the caller's credential belongs to.
    #[must_use]
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The partition whose entries the caller may read.
    #[must_use]
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The credential that the caller was identified by.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The caller's name in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        self.credential.name()
    }

    /// The operations that the caller may perform. For an org key and a session token Refold decides.
    #[must_use]
    pub fn access(&self) -> Access {
        self.credential.access()
    }

    /// Returns whether the credential is for the whole org: the org key, or a client key or certificate for every account.
    #[must_use]
    pub fn is_of_org(&self) -> bool {
        match &self.credential {
            Credential::Grant(grant) => grant.is_of_org(),
            Credential::OrgKey(_) => true,
            Credential::Jwt(_) | Credential::SessionToken(_) => false,
        }
    }

    /// Returns whether upstream requests carry an org key that the caller does not have. If Refold refuses that key, the
    /// operator has to act, not the caller; and the key must not reach the caller.
    #[must_use]
    pub fn injects_org_key(&self) -> bool {
        match &self.credential {
            Credential::Grant(_) | Credential::Jwt(_) => true,
            Credential::OrgKey(_) | Credential::SessionToken(_) => false,
        }
    }

    /// The org key that the caller has sent itself.
    #[must_use]
    pub fn own_org_key(&self) -> Option<OrgKey> {
        match self.credential {
            Credential::OrgKey(key) => Some(key),
            _ => None,
        }
    }

    /// Returns whether an error is the upstream's refusal of the caller's own org key. Such a refusal says nothing about
    /// other callers that read the same entries.
    #[must_use]
    pub fn is_refusal_of_own_org_key(&self, error: &ClientError) -> bool {
        self.own_org_key().is_some() && error.status() == StatusCode::UNAUTHORIZED
    }

    /// The flow of the caller's upstream requests. Its credential is the client key, certificate or trusted listener, the issuer, the
    /// org key, or all session tokens of the tenant; those that Refold accepted some time ago, and those that it never accepted,
    /// are apart.
    #[must_use]
    pub fn flow(&self, now: Moment) -> Flow {
        // Not keyed: nothing that a caller sends is hashed. The number is the same on all replicas of a fleet.
        let mut hasher = FixedState::default().build_hasher();
        self.tenant.config.id.hash(&mut hasher);
        match &self.credential {
            // A listener's, a certificate's and a key's name may be equal.
            Credential::Grant(grant) => ("grant", grant.kind, &grant.name).hash(&mut hasher),
            Credential::Jwt(identity) => ("issuer", identity.issuer().position()).hash(&mut hasher),
            Credential::OrgKey(_) => "org key".hash(&mut hasher),
            Credential::SessionToken(_) => {
                let is_accepted = self.partition.token_status(now) == TokenStatus::Accepted;
                ("session token", is_accepted, self.partition.was_accepted()).hash(&mut hasher);
            }
        }
        Flow { credential: hasher.finish(), account: self.partition.flow_id() }
    }

    /// Returns whether the credential is verified: false for a session token that Refold has not accepted.
    #[must_use]
    pub fn is_known(&self, now: Moment) -> bool {
        self.partition.token_status(now) == TokenStatus::Accepted
    }

    /// The flow of the comparisons that go ahead of callers. They are few, so their flow is always the least served one.
    #[must_use]
    pub fn comparison_flow(&self) -> Flow {
        let credential = FixedState::default().hash_one((self.tenant.interned_id(), "comparison"));
        Flow { credential, account: self.partition.flow_id() }
    }

    /// The flow of a session token that Refold has not accepted, in the queue for the probation budget. Instead of a credential it
    /// has the network of the peer that sent the token.
    #[must_use]
    pub fn probation_flow(&self) -> Flow {
        let sender = match &self.credential {
            Credential::SessionToken(token) => token.sender(),
            _ => Peer::Unknown,
        };
        // A hash for which collisions are hard to find: the peer chooses its address.
        let mut hasher = DefaultHasher::new();
        sender.network().hash(&mut hasher);
        Flow { credential: hasher.finish(), account: self.partition.flow_id() }
    }

    /// The org key that the caller's upstream requests are counted by: its own if it has sent one, otherwise the active one.
    #[must_use]
    pub fn org_key(&self) -> OrgKey {
        self.own_org_key().unwrap_or_else(|| self.tenant.org_keys().active())
    }

    /// Records that the upstream answered 429 to a request of this caller, and asked for a pause. The pause is for the session
    /// token, or for everyone with the org key that was sent.
    pub fn record_upstream_pause(&self, key: OrgKey, duration: Duration) {
        match &self.credential {
            Credential::SessionToken(token) => self.tenant.pause_token(*token.digest(), &self.partition, duration),
            _ => self.tenant.org_keys().budget(key).pause(duration),
        }
    }

    /// Returns the time for which the upstream has asked this caller's session token to pause, if it has.
    #[must_use]
    pub fn token_pause(&self) -> Option<Duration> {
        match &self.credential {
            Credential::SessionToken(token) => self.tenant.token_pause(token.digest()),
            _ => None,
        }
    }

    /// Records the upstream's verdict on the credential that a request of this caller carried: a session token, or an org key
    /// that Postern has injected. A refusal says nothing about an injected key by itself, so the key is checked.
    pub fn record_upstream_verdict(&self, key: OrgKey, verdict: UpstreamVerdict) {
        if self.injects_org_key() {
            match verdict {
                UpstreamVerdict::Accepted => self.tenant.record_key_verdict(key, KeyVerdict::NotRefused),
                UpstreamVerdict::Refused => self.tenant.want_key_check(),
            }
        }
        if let Credential::SessionToken(token) = &self.credential {
            self.tenant.record_token_verdict(*token.digest(), &self.partition, verdict);
        }
    }
}
