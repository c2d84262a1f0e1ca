//! JWTs of configured issuers (RFC 7519, RFC 8725).
//!
//! A token is verified once. Its identity is then cached by the token's digest until the token expires or one of the issuer's
//! keys is removed, so a repeated token costs a hash and a look-up.

mod claims;
mod identity;
mod keyring;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::dangerous;
use moka::sync::Cache;

use self::claims::{ClaimError, Claims};
use self::identity::Validity;
pub use self::identity::{Identity, IssuerIndex};
use self::keyring::Keyring;
pub use self::keyring::{FetchKeysError, KeyState, fetch_keys};
use self::signature::SignatureError;
use super::key_usage::OutcomeCounters;
use super::tenants::TenantIndex;
use crate::clock::{Clock, Moment};
use crate::config::{Issuer, TenantOf};
use crate::error::{ClientError, Reason};
use crate::http_client::ClientSetupError;

/// Maximum number of cached identities.
const MAX_VERIFIED: u64 = 50_000;

/// The configured issuers and the tokens that were verified lately.
#[derive(Debug)]
pub(super) struct Issuers {
    trusted: Vec<TrustedIssuer>,
    verified: VerifiedCache,
    clock: Clock,
}

type VerifiedCache = Cache<[u8; 32], Arc<Identity>, foldhash::fast::RandomState>;

#[derive(Debug)]
struct TrustedIssuer {
    config: Issuer,
    keyring: Arc<Keyring>,
}

/// The result of verifying a bearer token as a JWT.
#[derive(Debug)]
pub(super) enum Verification {
    /// A valid token of an issuer.
    Valid(Arc<Identity>),
    /// An invalid token of a configured issuer.
    Invalid(ClientError),
    /// A token of a configured issuer, signed with an unknown key; a refresh of the issuer's keys may find that key.
    UnknownKey(IssuerIndex),
    /// Not a token of a configured issuer.
    NoIssuer,
}

/// The reason why an issuer's token is not valid. The operator's log shows the reason; the error response distinguishes
/// only expired tokens from all other invalid ones.
#[derive(Debug, thiserror::Error)]
enum InvalidToken {
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("the claim `{0}` names no tenant")]
    UnknownTenant(Box<str>),
}

impl InvalidToken {
    /// The value of the metrics' label `reason`.
    fn label(&self) -> &'static str {
        match self {
            Self::Signature(SignatureError::Header(_)) => "token_malformed",
            Self::Signature(SignatureError::Algorithm(_)) => "token_algorithm",
            Self::Signature(SignatureError::UnsupportedParameter) => "token_parameter",
            Self::Signature(SignatureError::UnknownKey) => "token_unknown_key",
            Self::Signature(SignatureError::Mismatch) => "token_signature",
            Self::Claim(ClaimError::Audience) => "token_audience",
            Self::Claim(ClaimError::NoExpiry | ClaimError::NotADate(_)) => "token_dates",
            Self::Claim(ClaimError::Expired) => "token_expired",
            Self::Claim(ClaimError::NotYetValid) => "token_not_yet_valid",
            Self::UnknownTenant(_) => "token_tenant",
        }
    }
}

impl From<InvalidToken> for ClientError {
    fn from(error: InvalidToken) -> Self {
        let refused = match error {
            InvalidToken::Claim(ClaimError::Expired) => {
                Self::new(Reason::ExpiredCredentials, "this token has expired; get a new one")
            }
            _ => Self::invalid_credentials(),
        };
        refused.with_credential_problem(error.label()).caused_by(error)
    }
}

/// The error for a token whose key the issuer does not have.
pub(super) fn unknown_key() -> ClientError {
    InvalidToken::Signature(SignatureError::UnknownKey).into()
}

/// Decides whether a reload keeps the identities of verified tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VerifiedTokens {
    /// Tenants keep their positions, so identities stay valid unless an issuer has changed.
    Keep,
    /// All tokens are verified again.
    Drop,
}

impl Issuers {
    pub(super) fn new(issuers: &[Issuer], clock: &Clock) -> Result<Self, ClientSetupError> {
        let trusted = |config: &Issuer| {
            Ok(TrustedIssuer { config: config.clone(), keyring: Arc::new(Keyring::new(&config.keys)?) })
        };
        let trusted = issuers.iter().map(trusted).collect::<Result<_, ClientSetupError>>()?;
        Ok(Self { trusted, verified: empty_cache(), clock: clock.clone() })
    }

    /// Creates the issuers of another configuration.
    pub(super) fn reconfigured(&self, issuers: &[Issuer], verified: VerifiedTokens) -> Result<Self, ClientSetupError> {
        let trusted = |config: &Issuer| {
            let previous = self.trusted.iter().find(|previous| previous.config.keys == config.keys);
            // Fetched keys are kept, since their URL may not be reachable right now.
            let keyring = match previous {
                Some(previous) => Arc::clone(&previous.keyring),
                None => Arc::new(Keyring::new(&config.keys)?),
            };
            Ok(TrustedIssuer { config: config.clone(), keyring })
        };
        let is_unchanged = self.trusted.iter().map(|previous| &previous.config).eq(issuers);
        let keeps_verified = verified == VerifiedTokens::Keep && is_unchanged;
        Ok(Self {
            trusted: issuers.iter().map(trusted).collect::<Result<_, ClientSetupError>>()?,
            verified: if keeps_verified { self.verified.clone() } else { empty_cache() },
            clock: self.clock.clone(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trusted.is_empty()
    }

    /// Returns the identity of a token that was verified before, or the refusal of one that has expired since; `None` for a token
    /// that has to be verified. Part of the hit path: one reading of the wall clock.
    pub(super) fn verified(&self, digest: &[u8; 32], now: Moment) -> Option<Verification> {
        let identity = self.verified.get(digest)?;
        if identity.key_generation != self.at(identity.issuer).keyring.generation() {
            return None;
        }
        // Not verified again: the wall clock may have been set back since.
        if identity.validity.is_over(&self.clock, now) {
            return Some(Verification::Invalid(InvalidToken::Claim(ClaimError::Expired).into()));
        }
        Some(Verification::Valid(identity))
    }

    /// Verifies a token. `digest` is its SHA-256, and `tenant` finds a tenant by its id.
    pub(super) fn verify(
        &self,
        token: &[u8],
        digest: [u8; 32],
        now: Moment,
        tenant: impl Fn(&str) -> Option<TenantIndex>,
    ) -> Verification {
        // Until the signature is verified, the claims only select the issuer whose keys are tried.
        let Ok(claims) = dangerous::insecure_decode_claims(token) else { return Verification::NoIssuer };
        let claims = Claims(claims);
        let Some(index) = claims.issuer().and_then(|iss| self.position(iss)) else { return Verification::NoIssuer };
        match self.check(token, &claims, index, now, tenant) {
            Ok(mut identity) => {
                // A token that is verified again, for new keys of its issuer, ends no later than before.
                if let Some(earlier) = self.verified.get(&digest) {
                    identity.validity.moment = identity.validity.moment.min(earlier.validity.moment);
                    if identity.validity.is_over(&self.clock, now) {
                        return Verification::Invalid(InvalidToken::Claim(ClaimError::Expired).into());
                    }
                }
                let identity = Arc::new(identity);
                self.verified.insert(digest, Arc::clone(&identity));
                Verification::Valid(identity)
            }
            Err(InvalidToken::Signature(SignatureError::UnknownKey)) if self.at(index).keyring.can_refresh() => {
                Verification::UnknownKey(index)
            }
            Err(error) => Verification::Invalid(error.into()),
        }
    }

    fn check(
        &self,
        token: &[u8],
        claims: &Claims,
        index: IssuerIndex,
        now: Moment,
        tenant: impl Fn(&str) -> Option<TenantIndex>,
    ) -> Result<Identity, InvalidToken> {
        let TrustedIssuer { config, keyring } = self.at(index);
        // The generation is read before the keys: if a key is removed in between, the token is verified again.
        let key_generation = keyring.generation();
        signature::verify(token, &config.algorithms, &keyring.keys())?;
        let wall = self.clock.wall().as_second();
        let end = claims.check(config, wall)?;
        let tenant = match config.tenant() {
            TenantOf::Fixed(tenant) => TenantIndex::of_config(tenant.index()),
            TenantOf::Claim(path) => {
                let id = claims.at(path).and_then(serde_json::Value::as_str);
                id.and_then(tenant).ok_or_else(|| InvalidToken::UnknownTenant(path.0.clone()))?
            }
        };
        Ok(Identity {
            tenant,
            linked_accounts: claims.linked_accounts(config),
            access: claims.access(config),
            subject: claims.subject().into(),
            issuer: index,
            issuer_name: Arc::clone(&config.issuer),
            counters: OutcomeCounters::default(),
            key_generation,
            validity: Validity {
                moment: now + Duration::from_secs(u64::try_from(end.saturating_sub(wall)).unwrap_or(0)),
                second: end,
            },
        })
    }

    /// Fetches the keys of an issuer for a token that names an unknown one, unless they were fetched within its cooldown.
    ///
    /// # Errors
    /// 503 if the issuer's keys could not be read yet, if the fetch takes too long, or if too many requests wait for it.
    pub(super) async fn refresh(&self, issuer: IssuerIndex) -> Result<(), ClientError> {
        let keyring = &self.at(issuer).keyring;
        keyring.refresh_for_token(&self.clock).await.map_err(|unavailable| {
            let message = "the keys of this token's issuer can't be read at present; try again";
            ClientError::new(Reason::IssuerKeysUnavailable, message)
                .retry_after(keyring.until_next_fetch(self.clock.now()))
                .with_credential_problem("issuer_keys_unavailable")
                .caused_by(unavailable)
        })
    }

    /// The names of all issuers, each with whether its keys could ever be read.
    pub(super) fn key_states(&self) -> impl Iterator<Item = (&Arc<str>, KeyState)> {
        self.trusted.iter().map(|issuer| (&issuer.config.issuer, issuer.keyring.state()))
    }

    /// Fetches the keys of all issuers periodically. Ends at once if no issuer has keys behind a URL, else never.
    pub(super) async fn keep_fresh(&self) {
        let loops = self.trusted.iter().filter_map(|issuer| {
            let interval = issuer.keyring.refresh_interval()?;
            Some(async move {
                loop {
                    issuer.keyring.refresh(&self.clock).await;
                    // After a failure, the pause between two fetches is shorter.
                    let pause = issuer.keyring.retry_pause().unwrap_or(interval);
                    self.clock.sleep_until(self.clock.now() + pause).await;
                }
            })
        });
        futures_util::future::join_all(loops).await;
    }

    fn at(&self, index: IssuerIndex) -> &TrustedIssuer {
        &self.trusted[index.0]
    }

    fn position(&self, iss: &str) -> Option<IssuerIndex> {
        self.trusted.iter().position(|issuer| *issuer.config.issuer == *iss).map(IssuerIndex)
    }
}

fn empty_cache() -> VerifiedCache {
    Cache::builder().max_capacity(MAX_VERIFIED).build_with_hasher(foldhash::fast::RandomState::default())
}
