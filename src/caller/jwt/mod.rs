//! JWTs of configured issuers (RFC 7519, RFC 8725).
//!
//! A token is verified once and remembered by its digest until it expires or one of its issuer's keys is taken away, so a
//! repeated token costs a hash and a look-up.

mod claims;
mod source;

use std::sync::Arc;

use jsonwebtoken::{Header, crypto, dangerous};
use moka::sync::Cache;

use self::claims::{Claims, Unusable};
use self::source::KeySource;
use crate::client::ClientSetupError;
use crate::clock::{Clock, Moment};
use crate::config::{Access, Issuer, TenantOf};
use crate::error::{ClientError, Reason};

/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 << 10;
/// Verified tokens that are remembered at once.
const REMEMBERED: u64 = 50_000;

/// Everybody whose tokens are taken.
#[derive(Debug)]
pub(super) struct Issuers {
    known: Vec<KnownIssuer>,
    verified: Cache<[u8; 32], Arc<Identity>, foldhash::fast::RandomState>,
    clock: Clock,
}

#[derive(Debug)]
struct KnownIssuer {
    config: Issuer,
    keys: Arc<KeySource>,
}

/// What a verified token says of its holder.
#[derive(Debug)]
pub struct Identity {
    /// Index of its tenant.
    pub(super) tenant: usize,
    /// Linked accounts that it names.
    pub(super) linked_accounts: Vec<Box<str>>,
    /// What it may do.
    pub(super) access: Access,
    /// `sub`, for logs.
    pub(super) subject: Box<str>,
    issuer: usize,
    generation: u64,
    valid_until: Moment,
}

impl Identity {
    /// The linked accounts that the token names.
    #[must_use]
    pub fn linked_accounts(&self) -> &[Box<str>] {
        &self.linked_accounts
    }
}

/// What a bearer token was found to be.
#[derive(Debug)]
pub(super) enum Finding {
    /// A good token of an issuer.
    Known(Arc<Identity>),
    /// An issuer's, and refused.
    Refused(ClientError),
    /// An issuer's, signed with a key that is not known here: it may be worth asking the issuer (by index).
    UnknownKey(usize),
    /// No issuer's.
    NotOurs,
}

impl Issuers {
    pub(super) fn new(issuers: &[Issuer], clock: &Clock) -> Result<Self, ClientSetupError> {
        let known =
            |config: &Issuer| Ok(KnownIssuer { config: config.clone(), keys: Arc::new(KeySource::new(&config.keys)?) });
        Ok(Self {
            known: issuers.iter().map(known).collect::<Result<_, ClientSetupError>>()?,
            verified: Cache::builder()
                .max_capacity(REMEMBERED)
                .build_with_hasher(foldhash::fast::RandomState::default()),
            clock: clock.clone(),
        })
    }

    /// The issuers of another configuration. `same_tenants` says whether tenants have the numbers that they had.
    pub(super) fn successor(&self, issuers: &[Issuer], same_tenants: bool) -> Result<Self, ClientSetupError> {
        let known = |config: &Issuer| {
            let before = self.known.iter().find(|before| before.config.keys == config.keys);
            // Those behind a URL would have to be fetched again, and it may not answer at the moment.
            let keys =
                before.map_or_else(|| KeySource::new(&config.keys).map(Arc::new), |it| Ok(Arc::clone(&it.keys)))?;
            Ok(KnownIssuer { config: config.clone(), keys })
        };
        let fresh = Self::new(&[], &self.clock)?;
        let unchanged = same_tenants && self.known.iter().map(|before| &before.config).eq(issuers);
        Ok(Self {
            known: issuers.iter().map(known).collect::<Result<_, ClientSetupError>>()?,
            verified: if unchanged { self.verified.clone() } else { fresh.verified },
            clock: self.clock.clone(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The holder of a token that was verified before. Part of the hit path.
    pub(super) fn remembered(&self, digest: &[u8; 32], now: Moment) -> Option<Arc<Identity>> {
        let identity = self.verified.get(digest)?;
        let current = identity.generation == self.known[identity.issuer].keys.generation();
        (current && now < identity.valid_until).then_some(identity)
    }

    /// Verifies a token. `tenant` finds a tenant by its id.
    pub(super) fn verify(
        &self,
        token: &[u8],
        digest: [u8; 32],
        now: Moment,
        tenant: impl Fn(&str) -> Option<usize>,
    ) -> Finding {
        if token.len() > MAX_TOKEN {
            return Finding::Refused(ClientError::invalid_credentials());
        }
        // Believed for nothing but whose key to try.
        let Ok(claims) = dangerous::insecure_decode_claims(token) else { return Finding::NotOurs };
        let claims = Claims(claims);
        let Some(index) =
            claims.issuer().and_then(|iss| self.known.iter().position(|known| *known.config.issuer == *iss))
        else {
            return Finding::NotOurs;
        };
        let issuer = &self.known[index];
        // Before the keys are looked at: were one taken away meanwhile, the token is verified again.
        let generation = issuer.keys.generation();
        match issuer.check_signature(token) {
            Ok(()) => {}
            Err(BadSignature::UnknownKey) if issuer.keys.can_refresh() => return Finding::UnknownKey(index),
            Err(_) => return Finding::Refused(ClientError::invalid_credentials()),
        }
        let wall = self.clock.wall().as_second();
        let over = match claims.check(&issuer.config, wall) {
            Ok(over) => over,
            Err(Unusable::Expired) => {
                let message = "this token has expired; get a new one";
                return Finding::Refused(ClientError::new(Reason::ExpiredCredentials, message));
            }
            Err(Unusable::Other) => return Finding::Refused(ClientError::invalid_credentials()),
        };
        let tenant = match issuer.config.tenant() {
            TenantOf::Fixed(tenant) => Some(tenant.index()),
            TenantOf::Claim(path) => claims.at(path).and_then(serde_json::Value::as_str).and_then(tenant),
        };
        let Some(tenant) = tenant else { return Finding::Refused(ClientError::invalid_credentials()) };
        let identity = Arc::new(Identity {
            tenant,
            linked_accounts: claims.linked_accounts(&issuer.config),
            access: claims.access(&issuer.config),
            subject: claims.subject().into(),
            issuer: index,
            generation,
            valid_until: now + std::time::Duration::from_secs(u64::try_from(over - wall).unwrap_or(0)),
        });
        self.verified.insert(digest, Arc::clone(&identity));
        Finding::Known(identity)
    }

    /// Asks an issuer for its keys.
    pub(super) async fn refresh(&self, issuer: usize) {
        self.known[issuer].keys.refresh(&self.clock).await;
    }

    /// Keeps the keys of all issuers up to date, for as long as it is polled.
    pub(super) async fn keep_fresh(&self) {
        let each = self.known.iter().filter_map(|issuer| {
            let pause = issuer.keys.refresh_after()?;
            Some(async move {
                loop {
                    issuer.keys.refresh(&self.clock).await;
                    self.clock.sleep_until(self.clock.now() + pause).await;
                }
            })
        });
        futures_util::future::join_all(each).await;
    }
}

enum BadSignature {
    UnknownKey,
    Bad,
}

impl KnownIssuer {
    fn check_signature(&self, token: &[u8]) -> Result<(), BadSignature> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| BadSignature::Bad)?;
        if !self.config.algorithms.contains(&header.alg) || brings_its_own_key(&header) {
            return Err(BadSignature::Bad);
        }
        let mut parts = token.rsplitn(2, |byte| *byte == b'.');
        let (Some(signature), Some(message)) = (parts.next(), parts.next()) else { return Err(BadSignature::Bad) };
        let signature = std::str::from_utf8(signature).map_err(|_| BadSignature::Bad)?;
        let keys = self.keys.keys();
        let id = header.kid.as_deref();
        if !keys.has(id) {
            return Err(BadSignature::UnknownKey);
        }
        let good = keys
            .matching(id, header.alg)
            .any(|key| crypto::verify(signature, message, &key.key, header.alg).unwrap_or(false));
        if good { Ok(()) } else { Err(BadSignature::Bad) }
    }
}

/// A token must not say where its key is, nor ask for what is not understood here (RFC 7515, 4.1.11).
fn brings_its_own_key(header: &Header) -> bool {
    header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
        || header.enc.is_some()
        || header.zip.is_some()
}
