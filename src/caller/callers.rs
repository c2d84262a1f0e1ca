//! All credentials of one configuration.

use std::sync::Arc;

use super::api_key::ApiKeys;
use super::certificate::Certificates;
use super::client_key::KeyStates;
use super::grant::TenantGrant;
use super::jwt::{IssuerIndex, Issuers, KeyState};
use super::tenants::Tenants;
use crate::clock::Clock;
use crate::config::{Config, TrustedProxy};
use crate::error::ClientError;
use crate::fleet::Fleet;
use crate::http_client::ClientSetupError;
use crate::tenant::{Tenant, share_budgets};

/// The tenants and credentials of one configuration.
#[derive(Debug)]
pub struct Callers {
    pub(super) tenants: Tenants,
    pub(super) api_keys: ApiKeys,
    pub(super) issuers: Issuers,
    pub(super) certificates: Certificates,
    pub(super) trusted_proxies: Vec<TrustedProxy>,
    pub(super) clock: Clock,
    pub(super) fleet: Option<Fleet>,
}

impl Callers {
    /// Creates the callers of a configuration. A fleet shares the budgets of callers and of org keys, and the cached entries.
    ///
    /// # Errors
    /// If the HTTP client for an issuer's keys can't be set up.
    pub fn new(config: &Config, clock: &Clock, fleet: Option<&Fleet>) -> Result<Self, ClientSetupError> {
        let tenant = |tenant| Tenant::new(Arc::clone(tenant), clock.clone()).in_fleet(fleet);
        let mut tenants: Vec<_> = config.tenants.iter().map(tenant).collect();
        share_budgets(&mut tenants, &[], fleet);
        let tenants: Vec<_> = tenants.into_iter().map(Arc::new).collect();
        Ok(Self {
            api_keys: ApiKeys::new(&tenants, &KeyStates::default()),
            issuers: Issuers::new(&config.issuers, clock)?,
            certificates: Certificates::new(config),
            tenants: Tenants::new(tenants),
            trusted_proxies: config.server.trusted_proxies.clone(),
            clock: clock.clone(),
            fleet: fleet.cloned(),
        })
    }

    /// Returns all tenants, in the order of the configuration.
    #[must_use]
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        self.tenants.as_slice()
    }

    /// Returns the tenant with this id, if it accepts webhooks.
    #[must_use]
    pub fn tenant_with_webhooks(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.tenants.find(id).filter(|tenant| tenant.config.webhooks)
    }

    /// Returns the grant of a verified client certificate with these subject alternative names.
    #[must_use]
    pub fn by_certificate(&self, names: &[String]) -> Option<TenantGrant> {
        self.certificates.find(names).cloned()
    }

    /// Fetches the keys of an issuer for a token that names an unknown one, unless they were fetched within its cooldown.
    ///
    /// # Errors
    /// 503 if the issuer's keys could not be read yet, if the fetch takes too long, or if too many requests wait for it.
    pub async fn ask_issuer(&self, issuer: IssuerIndex) -> Result<(), ClientError> {
        self.issuers.refresh(issuer).await
    }

    /// The names of all issuers of tokens, each with the state of its keys.
    pub fn issuer_keys(&self) -> impl Iterator<Item = (&Arc<str>, KeyState)> {
        self.issuers.key_states()
    }

    /// Fetches the keys of all issuers periodically. Ends at once if no issuer has keys behind a URL, else never.
    pub async fn keep_issuers_fresh(&self) {
        self.issuers.keep_fresh().await;
    }
}
