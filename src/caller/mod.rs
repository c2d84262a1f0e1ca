//! Who is calling: the credential of a request to a [`Caller`].
//!
//! A [`Caller`] can only be made here, and whatever belongs to somebody (cache keys, budgets, upstream requests) can only
//! be made from a [`Caller`].

mod client_key;
mod session_token;

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

pub use client_key::KeyInUse;
use client_key::Keys;

use crate::clock::{Clock, Moment};
use crate::config::{Access, Config};
use crate::digest::sha256;
use crate::error::{ClientError, Reason};
use crate::tenant::{Partition, Standing, Tenant, TokenDigest};

/// Carries a client key or the org key.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Names the linked account.
pub const LINKED_ACCOUNT_ID: HeaderName = HeaderName::from_static("linked_account_id");
/// The same, for proxies that drop names with underscores.
pub const LINKED_ACCOUNT_ID_ALIAS: HeaderName = HeaderName::from_static("linked-account-id");

/// Longest linked account id that is accepted, in bytes.
const MAX_LINKED_ACCOUNT_ID: usize = 256;

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
    /// The org key, which goes upstream.
    OrgKey,
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
            Credential::OrgKey | Credential::SessionToken(_) => Access::ReadWrite,
        }
    }

    /// Its name in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.credential {
            Credential::ClientKey(key) => &key.name,
            Credential::OrgKey => "org key",
            Credential::SessionToken(_) => "session token",
        }
    }

    /// The upstream has taken what this caller has shown, or has refused it. Only a session token is the upstream's to
    /// judge: a linked account was authenticated here.
    pub fn judged_by_upstream(&self, verdict: Verdict) {
        if let Credential::SessionToken(token) = &self.credential {
            match verdict {
                Verdict::Accepted => self.tenant.accept_token(token.digest, &self.partition),
                Verdict::Refused => self.tenant.refuse_token(token.digest, &self.partition),
            }
        }
    }
}

impl SessionToken {
    /// The value of `Authorization` for the upstream.
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
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
    clock: Clock,
}

impl Callers {
    /// Those that the configuration names.
    #[must_use]
    pub fn new(config: &Config, clock: &Clock) -> Self {
        let tenants: Vec<_> =
            config.tenants.iter().map(|tenant| Arc::new(Tenant::new(Arc::clone(tenant), clock.clone()))).collect();
        Self { keys: Keys::new(&tenants, clock), tenants, clock: clock.clone() }
    }

    /// Finds the caller of a request. `session_tokens` is the tenant for which the listener takes session tokens.
    ///
    /// # Errors
    /// 400 for credentials that could be read in two ways or a missing linked account, 401 for one that is not good, 403
    /// for a linked account that is not the caller's.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        session_tokens: Option<usize>,
        now: Moment,
    ) -> Result<Caller, ClientError> {
        let key = single(headers, &X_API_KEY)?;
        let authorization = single(headers, &AUTHORIZATION)?;
        match (key, authorization) {
            (Some(_), Some(_)) => Err(ambiguous("x-api-key and Authorization are both there; send one of them")),
            (Some(key), None) => self.by_key(key, headers, now),
            (None, Some(authorization)) => {
                let tenant = session_tokens.and_then(|index| self.tenants.get(index));
                by_session_token(authorization, tenant, now)
            }
            (None, None) => Err(ClientError::invalid_credentials()),
        }
    }

    fn by_key(&self, key: &HeaderValue, headers: &HeaderMap, now: Moment) -> Result<Caller, ClientError> {
        let found = self.keys.find(key.as_bytes()).ok_or_else(ClientError::invalid_credentials)?;
        let tenant = &self.tenants[found.tenant];
        let credential = match &found.client_key {
            Some(key) => {
                key.check_expiry(&self.clock)?;
                Credential::ClientKey(Arc::clone(key))
            }
            None => Credential::OrgKey,
        };
        let linked_account = linked_account(headers)?;
        if let Credential::ClientKey(key) = &credential
            && !key.may_see(linked_account)
        {
            let message = "this key is not for that linked account";
            return Err(ClientError::new(Reason::LinkedAccountNotAllowed, message));
        }
        let partition = tenant.linked_account(linked_account, now);
        Ok(Caller { tenant: Arc::clone(tenant), partition, credential })
    }
}

fn by_session_token(value: &HeaderValue, tenant: Option<&Arc<Tenant>>, now: Moment) -> Result<Caller, ClientError> {
    let (Some(tenant), Some(token)) = (tenant, session_token::bearer(value)) else {
        return Err(ClientError::invalid_credentials());
    };
    let digest = sha256(token);
    let partition = tenant.session_token(&digest);
    if partition.standing(now) == Standing::Refused {
        return Err(ClientError::invalid_credentials());
    }
    let credential = Credential::SessionToken(SessionToken { authorization: session_token::canonical(token), digest });
    Ok(Caller { tenant: Arc::clone(tenant), partition, credential })
}

/// The one value of a header that says who somebody is: twice is refused, since readers differ on which of them counts.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ClientError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(ambiguous(format!("{name} is there twice; send it once"))),
        (value, None) => Ok(value),
    }
}

/// The linked account that the headers name, in either spelling.
fn linked_account(headers: &HeaderMap) -> Result<&str, ClientError> {
    let value = match (single(headers, &LINKED_ACCOUNT_ID)?, single(headers, &LINKED_ACCOUNT_ID_ALIAS)?) {
        (Some(_), Some(_)) => {
            return Err(ambiguous("linked_account_id and linked-account-id are both there; send one of them"));
        }
        (Some(value), None) | (None, Some(value)) => value,
        (None, None) => return Err(ClientError::no_linked_account()),
    };
    if value.is_empty() {
        return Err(ClientError::no_linked_account());
    }
    if value.len() > MAX_LINKED_ACCOUNT_ID {
        let message = format!("linked_account_id is longer than {MAX_LINKED_ACCOUNT_ID} bytes");
        return Err(ClientError::new(Reason::MalformedRequest, message));
    }
    std::str::from_utf8(value.as_bytes())
        .map_err(|_| ClientError::new(Reason::MalformedRequest, "linked_account_id is not UTF-8"))
}

fn ambiguous(message: impl Into<std::borrow::Cow<'static, str>>) -> ClientError {
    ClientError::new(Reason::AmbiguousCredentials, message)
}
