//! Who is calling: the credential of a request to a [`Caller`].
//!
//! A [`Caller`] can only be made here, and whatever belongs to somebody (cache keys, budgets, upstream requests) can only
//! be made from a [`Caller`].

mod client_key;
mod jwt;
mod linked_account;
mod session_token;
mod succession;

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};

pub use client_key::KeyInUse;
use client_key::{KeyBudgets, Keys};
pub use jwt::Identity;
use jwt::{Finding, Issuers};
use linked_account::{checked_account, linked_account, one_linked_account, single};

use crate::client::ClientSetupError;
use crate::clock::{Clock, Moment};
use crate::config::{self, Access, Config};
use crate::digest::sha256;
use crate::error::{ClientError, Reason};
use crate::fields::{Fields, X_API_KEY};
use crate::tenant::{OrgKey, Partition, Standing, Tenant, TokenDigest};

/// Somebody who may ask.
#[derive(Clone, Debug)]
pub struct Caller {
    tenant: Arc<Tenant>,
    partition: Arc<Partition>,
    credential: Credential,
}

/// What the caller has shown.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A key that Postern issued; the org key goes upstream.
    ClientKey(Arc<KeyInUse>),
    /// A JWT of a configured issuer; the org key goes upstream.
    Jwt(Arc<Identity>),
    /// An org key, which goes upstream.
    OrgKey(OrgKey),
    /// A session token of Refold's, which goes upstream as it came.
    SessionToken(SessionToken),
}

/// A session token as it came, for the upstream alone.
#[derive(Clone)]
pub struct SessionToken {
    /// The value of `Authorization`; marked as sensitive.
    authorization: HeaderValue,
    digest: TokenDigest,
}

impl std::fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Caller {
    /// The org it belongs to.
    #[must_use]
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Whose answers it sees.
    #[must_use]
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// What it has shown.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// What it may do. The org key and a session token may do what Refold lets them.
    #[must_use]
    pub fn access(&self) -> Access {
        match &self.credential {
            Credential::ClientKey(key) => key.access,
            Credential::Jwt(identity) => identity.access,
            Credential::OrgKey(_) | Credential::SessionToken(_) => Access::ReadWrite,
        }
    }

    /// Whether the upstream is shown a key that the caller does not have: its refusal is the operator's business then, and
    /// the caller must never see the key.
    #[must_use]
    pub fn is_injected(&self) -> bool {
        match &self.credential {
            Credential::ClientKey(_) | Credential::Jwt(_) => true,
            Credential::OrgKey(_) | Credential::SessionToken(_) => false,
        }
    }

    /// Whether an error says something of what this caller has shown itself, and nothing to others who see the same.
    #[must_use]
    pub fn is_refused_alone(&self, error: &ClientError) -> bool {
        self.shown_org_key().is_some() && error.status() == StatusCode::UNAUTHORIZED
    }

    /// The org key that it has shown itself.
    #[must_use]
    pub fn shown_org_key(&self) -> Option<OrgKey> {
        match self.credential {
            Credential::OrgKey(key) => Some(key),
            _ => None,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        self.credential.name()
    }

    /// The upstream has taken what it was shown, or has refused it: a session token, which is its to judge, or the org key,
    /// where it was put in for a caller who was authenticated here.
    pub fn judged_by_upstream(&self, verdict: Verdict) {
        if self.is_injected() {
            self.tenant.set_credential_accepted(verdict == Verdict::Accepted);
        }
        if let Credential::SessionToken(token) = &self.credential {
            match verdict {
                Verdict::Accepted => self.tenant.accept_token(token.digest, &self.partition),
                Verdict::Refused => self.tenant.refuse_token(token.digest, &self.partition),
            }
        }
    }
}

impl Credential {
    /// The name in logs of whoever has shown it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ClientKey(key) => &key.name,
            Self::Jwt(identity) => &identity.subject,
            Self::OrgKey(_) => "org key",
            Self::SessionToken(_) => "session token",
        }
    }
}

impl SessionToken {
    /// The value of `Authorization` for the upstream.
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The second since 1970 from which it says of itself that it is over. Not verified, so it can only shorten what is
    /// granted.
    #[must_use]
    pub fn says_it_ends(&self) -> Option<i64> {
        let token = self.authorization.as_bytes().strip_prefix(b"Bearer ")?;
        let claims: serde_json::Value = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
        claims.get("exp")?.as_i64()
    }
}

/// What the upstream said of a session token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered 2xx to it.
    Accepted,
    /// It answered 401.
    Refused,
}

/// Everybody who may ask.
#[derive(Debug)]
pub struct Callers {
    tenants: Vec<Arc<Tenant>>,
    keys: Keys,
    issuers: Issuers,
    /// By the name in the certificate.
    certificates: HashMap<String, (usize, Arc<KeyInUse>)>,
    clock: Clock,
}

/// What a connection says of whoever sends requests over it.
#[derive(Clone, Debug, Default)]
pub struct Entrance {
    /// The tenant for which session tokens are taken there.
    pub session_tokens: Option<usize>,
    /// Who it is, whatever the request says: a trusted listener is its own credential. The tenant's index, and what may be
    /// done.
    pub known: Option<(usize, Arc<KeyInUse>)>,
}

impl Entrance {
    /// The entrance that a listener is.
    #[must_use]
    pub fn of(listener: &config::ListenerConfig) -> Self {
        let known =
            listener.trusted.as_ref().map(|trusted| (trusted.tenant.index(), Arc::new(KeyInUse::trusted(trusted))));
        Self { session_tokens: listener.session_tokens.as_ref().map(config::TenantRef::index), known }
    }
}

/// Somebody who is known, and may not ask what they ask: no caller, and nothing belongs to them.
#[derive(Clone, Debug)]
pub struct Known {
    /// Whose credential it is.
    pub tenant: Arc<Tenant>,
    /// What was shown.
    pub credential: Credential,
}

/// Why there is no caller.
#[derive(Debug)]
pub enum Unidentified {
    /// Somebody unknown is refused.
    Refused(ClientError),
    /// Somebody is refused who is known.
    Known(ClientError, Known),
    /// A token of an issuer (by its index) names a key that is not known here: ask it, see [`Callers::ask_issuer`].
    UnknownKey(usize),
}

impl From<ClientError> for Unidentified {
    fn from(error: ClientError) -> Self {
        Self::Refused(error)
    }
}

impl Callers {
    /// Those that the configuration names.
    ///
    /// # Errors
    /// If an issuer's key server can't be reached in the way that the configuration says.
    pub fn new(config: &Config, clock: &Clock) -> Result<Self, ClientSetupError> {
        let tenants: Vec<_> =
            config.tenants.iter().map(|tenant| Arc::new(Tenant::new(Arc::clone(tenant), clock.clone()))).collect();
        Ok(Self {
            keys: Keys::new(&tenants, &KeyBudgets::default()),
            issuers: Issuers::new(&config.issuers, clock)?,
            certificates: by_name(config),
            tenants,
            clock: clock.clone(),
        })
    }

    /// Finds the caller of a request. `entrance` is where it came in.
    ///
    /// # Errors
    /// 400 for credentials that could be read in two ways or a missing linked account, 401 for one that is not good, 403
    /// for a linked account that is not the caller's.
    pub fn identify(&self, fields: &Fields<'_>, entrance: &Entrance, now: Moment) -> Result<Caller, Unidentified> {
        let key = single(&fields.key, &X_API_KEY)?;
        let authorization = single(&fields.authorization, &AUTHORIZATION)?;
        if let Some((tenant, known)) = &entrance.known {
            if key.is_some() || authorization.is_some() {
                let message = "who connects here is known already; send neither x-api-key nor Authorization";
                return Err(ambiguous(message).into());
            }
            return self.by_client_key(*tenant, known, fields, now);
        }
        match (key, authorization) {
            (Some(_), Some(_)) => Err(ambiguous("x-api-key and Authorization are both there; send one of them").into()),
            (Some(key), None) => self.by_key(key, fields, now),
            (None, Some(authorization)) => {
                let tenant = entrance.session_tokens.and_then(|index| self.tenants.get(index));
                let token = session_token::bearer(authorization).ok_or_else(ClientError::invalid_credentials)?;
                let digest = sha256(token);
                match self.jwt(token, digest, tenant, now) {
                    Finding::Known(identity) => self.by_jwt(identity, fields, now),
                    Finding::NotOurs => Ok(by_session_token(token, digest, tenant, now)?),
                    Finding::UnknownKey(issuer) => Err(Unidentified::UnknownKey(issuer)),
                    Finding::Refused(error) => Err(error.into()),
                }
            }
            (None, None) => Err(ClientError::invalid_credentials().into()),
        }
    }

    /// Who has shown a certificate with these names in it.
    #[must_use]
    pub fn by_certificate(&self, names: &[String]) -> Option<(usize, Arc<KeyInUse>)> {
        names.iter().find_map(|name| self.certificates.get(name)).cloned()
    }

    /// All tenants, in the order of the configuration.
    #[must_use]
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }

    /// The tenant with this id, if it takes webhooks.
    #[must_use]
    pub fn tenant_with_webhooks(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.tenants.iter().find(|tenant| *tenant.config.id == *id && tenant.config.webhooks)
    }

    /// Asks an issuer for its keys, at most once in a while.
    pub async fn ask_issuer(&self, issuer: usize) {
        self.issuers.refresh(issuer).await;
    }

    /// Keeps the keys of all issuers up to date, for as long as it is polled.
    pub async fn keep_issuers_fresh(&self) {
        self.issuers.keep_fresh().await;
    }

    /// What a bearer token is to the issuers.
    fn jwt(&self, token: &[u8], digest: TokenDigest, session_tokens: Option<&Arc<Tenant>>, now: Moment) -> Finding {
        if self.issuers.is_empty() {
            return Finding::NotOurs;
        }
        if let Some(identity) = self.issuers.remembered(&digest, now) {
            return Finding::Known(identity);
        }
        // A token that Refold has accepted is no issuer's: theirs are never sent there.
        if session_tokens.is_some_and(|tenant| tenant.has_accepted(&digest)) {
            return Finding::NotOurs;
        }
        self.issuers.verify(token, digest, now, |id| self.tenants.iter().position(|tenant| *tenant.config.id == *id))
    }

    fn by_jwt(&self, identity: Arc<Identity>, fields: &Fields<'_>, now: Moment) -> Result<Caller, Unidentified> {
        let tenant = &self.tenants[identity.tenant];
        let partition = granted(&identity, fields).map(|account| tenant.linked_account(account, now));
        Known { tenant: Arc::clone(tenant), credential: Credential::Jwt(identity) }.with(partition)
    }

    fn by_key(&self, key: &HeaderValue, fields: &Fields<'_>, now: Moment) -> Result<Caller, Unidentified> {
        let found = self.keys.find(key.as_bytes()).ok_or_else(ClientError::invalid_credentials)?;
        let tenant = &self.tenants[found.tenant];
        if let Some(key) = &found.client_key {
            return self.by_client_key(found.tenant, key, fields, now);
        }
        let which = tenant.org_keys().which(key.as_bytes()).ok_or_else(ClientError::invalid_credentials)?;
        let partition = one_linked_account(fields).map(|account| tenant.linked_account(account, now));
        Known { tenant: Arc::clone(tenant), credential: Credential::OrgKey(which) }.with(partition)
    }

    fn by_client_key(
        &self,
        tenant: usize,
        key: &Arc<KeyInUse>,
        fields: &Fields<'_>,
        now: Moment,
    ) -> Result<Caller, Unidentified> {
        let tenant = &self.tenants[tenant];
        let account = key.check_expiry(&self.clock).and_then(|()| key.one_linked_account(fields));
        let partition = account.map(|account| tenant.linked_account(account, now));
        Known { tenant: Arc::clone(tenant), credential: Credential::ClientKey(Arc::clone(key)) }.with(partition)
    }
}

impl Known {
    /// The caller, if there is something that it may see.
    fn with(self, partition: Result<Arc<Partition>, ClientError>) -> Result<Caller, Unidentified> {
        match partition {
            Ok(partition) => Ok(Caller { tenant: self.tenant, partition, credential: self.credential }),
            Err(error) => Err(Unidentified::Known(error, self)),
        }
    }
}

/// The linked account that a token's holder asks for, if it is one of the token's.
fn granted<'a>(identity: &'a Identity, fields: &Fields<'a>) -> Result<&'a str, ClientError> {
    match (linked_account(fields)?, identity.linked_accounts.as_slice()) {
        (Some(asked), granted) if granted.iter().any(|granted| **granted == *asked) => Ok(asked),
        (Some(_), [_, ..]) => {
            let message = "this token is not for that linked account";
            Err(ClientError::new(Reason::LinkedAccountNotAllowed, message))
        }
        (None, [only]) => Ok(only),
        (None, [_, _, ..]) => Err(ClientError::no_linked_account()),
        (_, []) => {
            let message = "this token is for no linked account";
            Err(ClientError::new(Reason::LinkedAccountNotAllowed, message))
        }
    }
}

fn by_session_token(
    token: &[u8],
    digest: TokenDigest,
    tenant: Option<&Arc<Tenant>>,
    now: Moment,
) -> Result<Caller, ClientError> {
    let tenant = tenant.ok_or_else(ClientError::invalid_credentials)?;
    let partition = tenant.session_token(&digest);
    if partition.standing(now) == Standing::Refused {
        return Err(ClientError::invalid_credentials());
    }
    let credential = Credential::SessionToken(SessionToken { authorization: session_token::canonical(token), digest });
    Ok(Caller { tenant: Arc::clone(tenant), partition, credential })
}

fn by_name(config: &Config) -> HashMap<String, (usize, Arc<KeyInUse>)> {
    let of = |(index, tenant): (usize, &Arc<config::Tenant>)| {
        let known = |certificate: &config::ClientCertificate| {
            (certificate.san.clone(), (index, Arc::new(KeyInUse::certificate(certificate))))
        };
        tenant.client_certificates.iter().map(known).collect::<Vec<_>>()
    };
    config.tenants.iter().enumerate().flat_map(of).collect()
}

fn ambiguous(message: impl Into<std::borrow::Cow<'static, str>>) -> ClientError {
    ClientError::new(Reason::AmbiguousCredentials, message)
}
