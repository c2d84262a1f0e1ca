//! Client certificates: callers that are authenticated by TLS. The server verifies the certificate; here its names select the
//! permissions.

use std::collections::HashMap;
use std::sync::Arc;

use super::credential_kind::CredentialKind;
use super::grant::{Grant, TenantGrant};
use super::tenants::TenantIndex;
use crate::config::{ClientCertificate, Config};

/// The grants of configured client certificates by subject alternative name.
#[derive(Debug)]
pub(super) struct Certificates(HashMap<String, TenantGrant>);

impl Certificates {
    pub(super) fn new(config: &Config) -> Self {
        let mut certificates = HashMap::new();
        for (index, tenant) in config.tenants.iter().enumerate() {
            let tenant_index = TenantIndex::of_config(index);
            for certificate in &tenant.client_certificates {
                let grant = TenantGrant { tenant: tenant_index, grant: Arc::new(grant(certificate)) };
                certificates.insert(certificate.san.clone(), grant);
            }
        }
        Self(certificates)
    }

    /// Finds the grant of a certificate with these subject alternative names; the first configured name decides.
    pub(super) fn find(&self, names: &[String]) -> Option<&TenantGrant> {
        names.iter().find_map(|name| self.0.get(name))
    }
}

fn grant(certificate: &ClientCertificate) -> Grant {
    Grant {
        name: Arc::clone(&certificate.name),
        access: certificate.access,
        budget: None,
        usage: Some(Arc::default()),
        linked_accounts: certificate.linked_accounts.clone(),
        expires: None,
        kind: CredentialKind::Certificate,
    }
}
