//! `[[tenants]]` as it is written: a Refold org and environment, and who may call it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::scalar::{Expiry, SecretSource, Sha256};
use super::{Freshness, Limits, Stale};
use crate::config::model::RequestDirective;
use crate::config::units::Count;

/// A Refold org and environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tenant {
    /// Its name: 1 to 64 letters, digits, `-`, `_` or `.`.
    #[schemars(with = "String", regex(pattern = r"^[A-Za-z0-9_.-]{1,64}$"))]
    pub(in crate::config) id: Spanned<String>,
    /// What its callers present.
    #[schemars(with = "Mode")]
    pub(in crate::config) mode: Spanned<Mode>,
    /// The org API key of Refold.
    #[schemars(with = "SecretSource")]
    pub(in crate::config) org_key: Spanned<SecretSource>,
    /// While the org key is rotated: the other one is tried when Refold does not take the first, and kept to when it works.
    #[schemars(with = "Option<SecretSource>")]
    pub(in crate::config) org_key_next: Option<Spanned<SecretSource>>,
    /// How long an answer is fresh, by what is in it; what is left out is as in `[cache.freshness]`.
    #[serde(default)]
    pub(in crate::config) freshness: Freshness,
    /// How long an answer may be given after that; what is left out is as in `[cache.stale]`.
    #[serde(default)]
    pub(in crate::config) stale: Stale,
    /// Take Refold's webhooks at /hooks/refold/ and the id: they drop what is cached for a linked account.
    #[serde(default)]
    pub(in crate::config) webhooks: bool,
    /// What callers may ask of the cache by Cache-Control.
    #[serde(default)]
    pub(in crate::config) request_directives: Vec<RequestDirective>,
    /// What is left out is as in `[limits]`.
    #[serde(default)]
    pub(in crate::config) limits: Limits,
    /// Keys of your own making; `postern keygen` prints one and its lines.
    #[serde(default)]
    pub(in crate::config) client_keys: Vec<ClientKey>,
    /// Callers who show a certificate, from a listener's client_ca.
    #[serde(default)]
    pub(in crate::config) client_certificates: Vec<ClientCertificate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Mode {
    /// Callers present a credential of their own; the org key is put in its place.
    Inject,
    /// Callers present the org key itself.
    Validate,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ClientKey {
    /// Stands for the caller in logs.
    #[schemars(with = "String", length(min = 1))]
    pub(in crate::config) name: Spanned<String>,
    /// SHA-256 of the key in hexadecimal.
    #[schemars(with = "Sha256")]
    pub(in crate::config) sha256: Spanned<Sha256>,
    /// Linked accounts that it may see: exact ids, or a prefix and one `*`; `["*"]` for all.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(in crate::config) linked_accounts: Spanned<Vec<Spanned<String>>>,
    /// Whether it may also stop and rerun executions.
    #[serde(default)]
    pub(in crate::config) access: Access,
    /// When it ends: a date or a date-time with offset.
    pub(in crate::config) expires: Option<Expiry>,
    /// A budget of its own, beside the linked account's: requests a second. Goes with burst.
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) per_second: Option<Spanned<Count>>,
    /// Requests at once. Goes with per_second.
    #[schemars(with = "Option<Count>")]
    pub(in crate::config) burst: Option<Spanned<Count>>,
}

/// Whoever shows a certificate with this name in it, from an authority of a listener's `client_ca`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ClientCertificate {
    /// Stands for the caller in logs.
    #[schemars(with = "String")]
    pub(in crate::config) name: Spanned<String>,
    /// DNS or URI subject alternative name of the certificate.
    #[schemars(with = "String", length(min = 1))]
    pub(in crate::config) san: Spanned<String>,
    /// Linked accounts that it may see: exact ids, or a prefix and one `*`; `["*"]` for all.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(in crate::config) linked_accounts: Spanned<Vec<Spanned<String>>>,
    /// Whether it may also stop and rerun executions.
    #[serde(default)]
    pub(in crate::config) access: Access,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub(in crate::config) enum Access {
    /// May read.
    #[default]
    #[serde(rename = "read")]
    Read,
    /// May also stop and rerun.
    #[serde(rename = "read+write")]
    ReadWrite,
}
