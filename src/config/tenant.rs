//! `[[tenants]]`: Refold orgs and environments, and the settings for their callers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::{Freshness, Stale};
use super::client_certificate::ClientCertificate;
use super::client_key::ClientKey;
use super::limits::Limits;
use super::request_directive::RequestDirective;
use super::resolver::Resolver;
use super::secret::Secret;
use super::setting_path::{Findings, InvalidSetting, SettingPath};
use super::tree::Tree;

/// A Refold org and environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// Name of the tenant: 1 to 64 letters, digits, `-`, `_` or `.`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,64}$"))]
    pub id: Arc<str>,
    /// Credential that callers present in x-api-key.
    pub mode: TenantMode,
    /// The org API key of Refold.
    pub org_key: Secret,
    /// Second org key, during a rotation: tried when Refold refuses the first, and kept in use if it works.
    pub org_key_next: Option<Secret>,
    /// Freshness lifetime of answers, by their content. Settings that are left out are those of `[cache.freshness]`.
    #[serde(default)]
    #[schemars(transform = without_defaults)]
    pub freshness: Freshness,
    /// Use of answers after their freshness lifetime. Settings that are left out are those of `[cache.stale]`.
    #[serde(default)]
    #[schemars(transform = without_defaults)]
    pub stale: Stale,
    /// Accept Refold's webhooks at /hooks/refold/ and the id. They remove a linked account's answers from the cache.
    #[serde(default)]
    pub webhooks: bool,
    /// Cache-Control directives that callers may use.
    #[serde(default)]
    pub request_directives: Vec<RequestDirective>,
    /// Budgets. Settings that are left out are those of `[limits]`.
    #[serde(default)]
    #[schemars(transform = without_defaults)]
    pub limits: Limits,
    /// Keys that the gateway accepts from callers; `postern keygen` prints a key and its table.
    #[serde(default)]
    pub client_keys: Vec<ClientKey>,
    /// Callers with a certificate from a listener's client_ca.
    #[serde(default)]
    pub client_certificates: Vec<ClientCertificate>,
}

/// The credential that callers of a tenant present in `x-api-key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TenantMode {
    /// A credential of the gateway's; the gateway replaces it with the org key.
    Inject,
    /// The org key itself.
    Validate,
}

/// Values that have to be unique among all tenants.
#[derive(Default)]
pub(super) struct UniqueValues {
    /// Any listener asks for client certificates.
    has_client_ca: bool,
    ids: HashSet<Arc<str>>,
    /// The owner of each client key, by the key's hash.
    key_owners: HashMap<[u8; 32], String>,
    /// Org keys of the tenants in mode `validate`.
    validated: Vec<Secret>,
    /// Names in client certificates.
    sans: HashSet<String>,
}

impl UniqueValues {
    /// None yet. `has_client_ca` says whether any listener asks for client certificates.
    pub(super) fn new(has_client_ca: bool) -> Self {
        Self { has_client_ca, ..Self::default() }
    }
}

/// Gives every tenant the common settings that it leaves out.
pub(super) fn inherit_common_settings(tree: &mut Tree<'_>) {
    tree.inherit("tenants", "freshness", &["cache", "freshness"]);
    tree.inherit("tenants", "stale", &["cache", "stale"]);
    tree.inherit("tenants", "limits", &["limits"]);
}

impl TenantConfig {
    /// Checks the tenant and reads its secrets.
    pub(super) fn check(
        &mut self,
        at: &SettingPath,
        resolver: &Resolver<'_>,
        seen: &mut UniqueValues,
        findings: &mut Findings,
    ) {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(is_plain) {
            let message = "a tenant's id has 1 to 64 letters, digits, `-`, `_` or `.`";
            findings.note(Err(at.key("id").refuse(message)));
        }
        if !seen.ids.insert(Arc::clone(&self.id)) {
            findings.note(Err(at.key("id").refuse(format!("there is a tenant `{}` already", self.id))));
        }
        findings.note(resolver.secret(&mut self.org_key, &at.key("org_key")));
        if let Some(next) = &mut self.org_key_next {
            findings.note(resolver.secret(next, &at.key("org_key_next")));
        }
        if self.mode == TenantMode::Validate {
            findings.note(self.check_validated(at, seen));
        }
        self.check_client_keys(&at.key("client_keys"), seen, findings);
        self.check_client_certificates(&at.key("client_certificates"), seen, findings);
    }

    fn check_validated(&self, at: &SettingPath, seen: &mut UniqueValues) -> Result<(), InvalidSetting> {
        if !self.client_keys.is_empty() {
            let message = "a tenant of mode `validate` has no client keys: its callers present the org key itself";
            return Err(at.key("client_keys").index(0).key("name").refuse(message));
        }
        let own = [&self.org_key].into_iter().chain(&self.org_key_next);
        if own.clone().any(|key| key.is_resolved() && seen.validated.contains(key)) {
            let message = "another tenant of mode `validate` has the same org key, so callers could not be told apart";
            return Err(at.key("org_key").refuse(message));
        }
        seen.validated.extend(own.cloned());
        Ok(())
    }

    fn check_client_keys(&self, at: &SettingPath, seen: &mut UniqueValues, findings: &mut Findings) {
        let mut names = HashSet::new();
        for (index, key) in self.client_keys.iter().enumerate() {
            let at = at.index(index);
            if !names.insert(&key.name) {
                let message = format!("there is a client key `{}` in this tenant already", key.name);
                findings.note(Err(at.key("name").refuse(message)));
            }
            findings.note(key.check(&at));
            let owner = format!("{}` of tenant `{}", key.name, self.id);
            if let Some(owner) = seen.key_owners.insert(key.sha256, owner).filter(|_| !key.is_example()) {
                let message = format!("the client key `{owner}` has the same hash; every key needs its own");
                findings.note(Err(at.key("sha256").refuse(message)));
            }
        }
    }

    fn check_client_certificates(&self, at: &SettingPath, seen: &mut UniqueValues, findings: &mut Findings) {
        for (index, certificate) in self.client_certificates.iter().enumerate() {
            let at = at.index(index).key("san");
            if certificate.san.is_empty() || !seen.sans.insert(certificate.san.clone()) {
                let message =
                    "a client certificate needs a name of its own: a DNS name or a URI like \"spiffe://cluster/app\"";
                findings.note(Err(at.refuse(message)));
            }
            if !seen.has_client_ca {
                let message = "no listener asks for client certificates: `tls = { client_ca = \"…\", … }` is missing";
                findings.note(Err(at.miss(message)));
            }
        }
    }
}

/// Removes the defaults from a schema: a tenant's are those of a common table.
fn without_defaults(schema: &mut schemars::Schema) {
    fn remove(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(members) => {
                members.remove("default");
                members.values_mut().for_each(remove);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(remove),
            _ => {}
        }
    }
    if let Some(members) = schema.as_object_mut() {
        members.values_mut().for_each(remove);
    }
}
