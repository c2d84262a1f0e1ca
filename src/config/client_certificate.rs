//! `[[tenants.client_certificates]]`: callers that a client certificate identifies.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::account_pattern::{Access, AccountPattern, AccountPatterns};

/// A caller that is identified by a client certificate from an authority in a listener's `client_ca`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// Name of the caller in logs.
    pub name: Arc<str>,
    /// DNS or URI subject alternative name of the certificate, such as a SPIFFE id.
    #[schemars(length(min = 1))]
    pub san: String,
    /// Linked accounts that the certificate gives access to: exact ids, or a prefix and one `*`; `["*"]` for all.
    #[serde(with = "AccountPatterns")]
    pub linked_accounts: Vec<AccountPattern>,
    /// Permission to stop and rerun executions, or only to read them.
    #[serde(default)]
    pub access: Access,
}
