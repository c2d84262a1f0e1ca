//! Org keys as credentials: callers of a tenant of mode `validate` send Refold's org API key in `x-api-key`.

use crate::config::{TenantConfig, TenantMode};
use crate::digest::sha256;

/// Returns the SHA-256 of each org key that callers of a tenant may send; none in mode `inject`.
pub(super) fn digests(tenant: &TenantConfig) -> impl Iterator<Item = [u8; 32]> {
    let keys = std::iter::once(&tenant.org_key).chain(&tenant.org_key_next);
    keys.filter(|_| tenant.mode == TenantMode::Validate).map(|key| sha256(key.expose().as_bytes()))
}
