//! The identification of a request: finds its credential, verifies it, and authorizes it for one linked account.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderValue};

use super::Caller;
use super::api_key::ApiKey;
use super::callers::Callers;
use super::credential::Credential;
use super::grant::Grant;
use super::jwt::{Identity, IssuerIndex, Verification, unknown_key};
use super::linked_account::{self, ambiguous, single};
use super::problem::CredentialProblem;
use super::session_token::{SessionToken, bearer};
use super::trusted::ListenerIdentity;
use crate::clock::Moment;
use crate::digest::sha256;
use crate::error::ClientError;
use crate::request::headers::{RequestHeaders, X_API_KEY};
use crate::request::peer::Peer;
use crate::tenant::{Partition, Tenant, TokenDigest, TokenStatus};

/// A known credential and its tenant. If the credential is not authorized for the request, [`Unidentified::NotAuthorized`]
/// contains them, for the log.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The tenant that the credential belongs to.
    pub tenant: Arc<Tenant>,
    /// The credential.
    pub credential: Credential,
}

/// The reason why a request has no [`Caller`].
#[derive(Debug)]
pub enum Unidentified {
    /// No valid credential.
    Refused(ClientError),
    /// A known credential that is not authorized for the request.
    NotAuthorized(ClientError, Authenticated),
    /// An issuer's token whose key is unknown; [`Callers::ask_issuer`] may find it.
    UnknownKey(IssuerIndex),
}

impl From<CredentialProblem> for Unidentified {
    fn from(problem: CredentialProblem) -> Self {
        Self::Refused(problem.into())
    }
}

impl From<ClientError> for Unidentified {
    fn from(error: ClientError) -> Self {
        Self::Refused(error)
    }
}

impl Unidentified {
    /// The error for the client. An issuer's key that is still unknown after [`Callers::ask_issuer`] makes the credential
    /// invalid.
    #[must_use]
    pub fn into_error(self) -> ClientError {
        match self {
            Self::Refused(error) | Self::NotAuthorized(error, _) => error,
            Self::UnknownKey(_) => unknown_key(),
        }
    }
}

impl Authenticated {
    /// Creates the caller with this credential, if `partition` is `Ok`: the partition that the credential may read.
    fn authorize(self, partition: Result<Arc<Partition>, ClientError>) -> Result<Caller, Unidentified> {
        match partition {
            Ok(partition) => Ok(Caller { tenant: self.tenant, partition, credential: self.credential }),
            Err(error) => Err(Unidentified::NotAuthorized(error, self)),
        }
    }
}

impl Callers {
    /// Identifies the caller of a request from its header fields and its connection. Part of the hit path.
    ///
    /// # Errors
    /// 400 for ambiguous credentials or a missing linked account, 401 for an invalid credential, 403 for a linked account
    /// that the credential does not include.
    pub fn identify(
        &self,
        fields: &RequestHeaders<'_>,
        connection: &ListenerIdentity,
        now: Moment,
    ) -> Result<Caller, Unidentified> {
        let key = single(&fields.key, &X_API_KEY)?;
        let authorization = single(&fields.authorization, &AUTHORIZATION)?;
        if let Some(granted) = &connection.grant {
            if key.is_some() || authorization.is_some() {
                let message = "this connection is authenticated already; send neither x-api-key nor Authorization";
                return Err(ambiguous(message).into());
            }
            if connection.expires.is_some_and(|end| self.clock.wall().as_second() > end.as_second()) {
                return Err(CredentialProblem::ExpiredCertificate.into());
            }
            return self.by_grant(self.tenants.at(granted.tenant), &granted.grant, fields, now);
        }
        match (key, authorization) {
            (Some(_), Some(_)) => {
                Err(ambiguous("the request has both x-api-key and Authorization; send one of them").into())
            }
            (Some(key), None) => self.by_api_key(key, fields, now),
            (None, Some(authorization)) => self.by_bearer_token(authorization, fields, connection, now),
            (None, None) => Err(CredentialProblem::Missing.into()),
        }
    }

    fn by_api_key(&self, key: &HeaderValue, fields: &RequestHeaders<'_>, now: Moment) -> Result<Caller, Unidentified> {
        match self.api_keys.find(key.as_bytes()) {
            None => Err(CredentialProblem::UnknownKey.into()),
            Some(ApiKey::Client(tenant, grant)) => self.by_grant(tenant, grant, fields, now),
            Some(ApiKey::Org(tenant)) => {
                let key = tenant.org_keys().find(key.as_bytes()).ok_or(CredentialProblem::UnknownKey)?;
                let partition = linked_account::required(fields).map(|account| tenant.linked_account(account, now));
                Authenticated { tenant: Arc::clone(tenant), credential: Credential::OrgKey(key) }.authorize(partition)
            }
        }
    }

    fn by_grant(
        &self,
        tenant: &Arc<Tenant>,
        grant: &Arc<Grant>,
        fields: &RequestHeaders<'_>,
        now: Moment,
    ) -> Result<Caller, Unidentified> {
        let account = grant.check_expiry(&self.clock).and_then(|()| grant.linked_account(fields));
        let partition = account.map(|account| tenant.linked_account(account, now));
        let credential = Credential::Grant(Arc::clone(grant));
        Authenticated { tenant: Arc::clone(tenant), credential }.authorize(partition)
    }

    fn by_bearer_token(
        &self,
        authorization: &HeaderValue,
        fields: &RequestHeaders<'_>,
        connection: &ListenerIdentity,
        now: Moment,
    ) -> Result<Caller, Unidentified> {
        let tenant = connection.session_tokens.map(|index| self.tenants.at(index));
        let token = bearer(authorization).ok_or(CredentialProblem::NoBearerToken)?;
        let digest = sha256(token);
        match self.verify_jwt(token, digest, tenant, now) {
            Verification::Valid(identity) => self.by_jwt(identity, fields, now),
            Verification::NoIssuer => {
                let tenant = tenant.ok_or(CredentialProblem::NoIssuer)?;
                self.by_session_token((token, digest), tenant, fields, connection, now)
            }
            Verification::UnknownKey(issuer) => Err(Unidentified::UnknownKey(issuer)),
            Verification::Invalid(error) => Err(error.into()),
        }
    }

    fn verify_jwt(
        &self,
        token: &[u8],
        digest: TokenDigest,
        session_tokens: Option<&Arc<Tenant>>,
        now: Moment,
    ) -> Verification {
        if self.issuers.is_empty() {
            return Verification::NoIssuer;
        }
        if let Some(verification) = self.issuers.verified(&digest, now) {
            return verification;
        }
        // A token that Refold has accepted is a session token: tokens of configured issuers are never sent to Refold.
        if session_tokens.is_some_and(|tenant| tenant.has_accepted(&digest, now)) {
            return Verification::NoIssuer;
        }
        self.issuers.verify(token, digest, now, |id| self.tenants.position(id))
    }

    fn by_jwt(
        &self,
        identity: Arc<Identity>,
        fields: &RequestHeaders<'_>,
        now: Moment,
    ) -> Result<Caller, Unidentified> {
        let tenant = self.tenants.at(identity.tenant());
        let partition = identity.linked_account(fields).map(|account| tenant.linked_account(account, now));
        Authenticated { tenant: Arc::clone(tenant), credential: Credential::Jwt(identity) }.authorize(partition)
    }

    /// Identifies the caller by a session token, which the upstream verifies with the first request.
    fn by_session_token(
        &self,
        (token, digest): (&[u8], TokenDigest),
        tenant: &Arc<Tenant>,
        fields: &RequestHeaders<'_>,
        connection: &ListenerIdentity,
        now: Moment,
    ) -> Result<Caller, Unidentified> {
        // The token names the account. A field that names one too is not used, and checked as always.
        linked_account::optional(fields)?;
        let partition = tenant.session_token(&digest, now);
        let sender = match partition.token_status(now) {
            TokenStatus::Refused => return Err(CredentialProblem::RefusedSessionToken.into()),
            // Looking for proxies' fields costs time, and an accepted token's sender does not matter.
            TokenStatus::Accepted => Peer::Unknown,
            TokenStatus::Unproven => connection.peer.sender(fields.all, &self.trusted_proxies),
        };
        let credential = Credential::SessionToken(SessionToken::new(token, digest, sender));
        Ok(Caller { tenant: Arc::clone(tenant), partition, credential })
    }
}

#[cfg(test)]
mod tests;
