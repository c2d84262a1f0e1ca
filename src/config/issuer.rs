//! `[[issuers]]`: issuers of JWTs, and the meaning of the claims in their tokens.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::issuer_keys::IssuerKeys;
use super::resolver::Resolver;
use super::setting_path::{InvalidSetting, SettingPath};
use super::tenant::TenantConfig;
use super::tenant_ref::TenantRef;
use super::units::AnyDuration;

/// Algorithms for public keys.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// An issuer whose JWTs are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The `iss` of its tokens, compared byte by byte.
    #[schemars(length(min = 1))]
    pub issuer: Arc<str>,
    /// Names of this service; one of them has to be in `aud`.
    #[schemars(length(min = 1))]
    pub audience: Vec<String>,
    /// Signature algorithms that are accepted. If omitted: RS, PS, ES 256/384, EdDSA; with a `secret`, only HS256.
    // Never `none`, and never public keys and HMAC together.
    #[serde(default, deserialize_with = "algorithms")]
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// Source of its keys: one of `url`, `file` and `secret`.
    pub keys: IssuerKeys,
    /// The tenant of all its tokens. Excludes tenant_claim.
    tenant: Option<TenantRef>,
    /// The claim that holds the tenant's id. Excludes tenant.
    tenant_claim: Option<ClaimPath>,
    /// The claim that holds linked accounts, a text or a list; nested names are joined by dots.
    #[serde(default = "linked_account_claim")]
    pub linked_account_claim: ClaimPath,
    /// The claim that holds scopes.
    #[serde(default = "scope_claim")]
    pub scope_claim: ClaimPath,
    /// The scope of tokens that may stop and rerun executions. If omitted, its tokens are read-only.
    pub write_scope: Option<Box<str>>,
    /// Tolerance for differences between clocks.
    #[serde(default = "leeway", with = "AnyDuration")]
    pub leeway: Duration,
}

/// The name of a claim, or nested names joined by dots: `org.id`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ClaimPath(pub Box<str>);

impl ClaimPath {
    /// Returns the claim at this path: the member of exactly that name if there is one (names can contain dots), else the member
    /// that the path leads to through nested objects.
    #[must_use]
    pub fn find<'a>(&self, claims: &'a serde_json::Value) -> Option<&'a serde_json::Value> {
        let path = self.0.as_ref();
        claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, name| value.get(name)))
    }
}

/// The tenant of an issuer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantOf<'a> {
    /// The tenant of all tokens.
    Fixed(&'a TenantRef),
    /// The claim that holds the tenant's id.
    Claim(&'a ClaimPath),
}

impl Issuer {
    /// The tenant of the issuer's tokens.
    ///
    /// # Panics
    /// If the configuration is unchecked; `Config::parse` refuses an issuer that does not have exactly one of `tenant` and
    /// `tenant_claim`.
    #[must_use]
    pub fn tenant(&self) -> TenantOf<'_> {
        self.tenant_setting().expect("Config::parse checks that an issuer has a tenant")
    }

    /// The tenant, also of an unchecked issuer; `None` unless it has exactly one of the settings.
    pub(super) fn tenant_setting(&self) -> Option<TenantOf<'_>> {
        match (&self.tenant, &self.tenant_claim) {
            (Some(tenant), None) => Some(TenantOf::Fixed(tenant)),
            (None, Some(claim)) => Some(TenantOf::Claim(claim)),
            _ => None,
        }
    }

    /// Checks the settings, resolves the tenant and the keys, and fills in the default algorithms.
    pub(super) fn check(
        &mut self,
        at: &SettingPath,
        tenants: &[Arc<TenantConfig>],
        resolver: &Resolver<'_>,
    ) -> Result<(), InvalidSetting> {
        if self.issuer.is_empty() {
            return Err(at.key("issuer").refuse("an issuer needs a name: the `iss` of its tokens"));
        }
        if self.audience.is_empty() {
            let message = "an issuer needs an audience, or tokens for other services would be accepted";
            return Err(at.key("audience").refuse(message));
        }
        self.keys.check(&at.key("keys"), resolver)?;
        if self.tenant_setting().is_none() {
            let message = "an issuer has either `tenant` (for all its tokens) or `tenant_claim`";
            return Err(at.key("issuer").refuse(message));
        }
        if let Some(tenant) = &mut self.tenant {
            tenant.resolve(tenants, &at.key("tenant"))?;
        }
        self.check_algorithms(&at.key("algorithms"))
    }

    fn check_algorithms(&mut self, at: &SettingPath) -> Result<(), InvalidSetting> {
        let (possible, kind): (&[Algorithm], _) =
            if self.keys.is_symmetric() { (&[Algorithm::HS256], "a `secret`") } else { (&ASYMMETRIC, "public keys") };
        if self.algorithms.is_empty() {
            self.algorithms = possible.to_vec();
        }
        match self.algorithms.iter().find(|algorithm| !possible.contains(algorithm)) {
            None => Ok(()),
            Some(wrong) => {
                let names: Vec<String> = possible.iter().map(|algorithm| format!("{algorithm:?}")).collect();
                let message = format!("`{wrong:?}` is no algorithm for {kind} (accepted: {})", names.join(", "));
                Err(at.refuse(message))
            }
        }
    }
}

fn algorithms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Algorithm>, D::Error> {
    let algorithms = Vec::deserialize(deserializer)?;
    if algorithms.is_empty() {
        return Err(de::Error::custom("an empty list allows no algorithm; omit the setting for all"));
    }
    Ok(algorithms)
}

fn linked_account_claim() -> ClaimPath {
    ClaimPath("linked_account_id".into())
}

fn scope_claim() -> ClaimPath {
    ClaimPath("scope".into())
}

fn leeway() -> Duration {
    Duration::from_secs(30)
}
