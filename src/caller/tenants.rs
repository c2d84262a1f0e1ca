//! The tenants of one configuration, and their positions in it.

use std::sync::Arc;

use crate::tenant::Tenant;

/// The tenants of one configuration, in its order.
#[derive(Debug)]
pub(super) struct Tenants(Vec<Arc<Tenant>>);

/// The position of a tenant in a configuration. The position stays valid after a reload that keeps the tenants' ids and
/// their order, whereas an `Arc<Tenant>` would refer to the state before the reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantIndex(usize);

impl TenantIndex {
    /// Wraps an index into [`Config::tenants`](crate::config::Config::tenants).
    pub(super) const fn of_config(index: usize) -> Self {
        Self(index)
    }
}

impl Tenants {
    pub(super) fn new(tenants: Vec<Arc<Tenant>>) -> Self {
        Self(tenants)
    }

    pub(super) fn as_slice(&self) -> &[Arc<Tenant>] {
        &self.0
    }

    /// Returns the tenant at a position.
    ///
    /// # Panics
    /// If the position is one of a configuration with more tenants.
    pub(super) fn at(&self, index: TenantIndex) -> &Arc<Tenant> {
        &self.0[index.0]
    }

    /// Finds the position of the tenant with an id.
    pub(super) fn position(&self, id: &str) -> Option<TenantIndex> {
        self.0.iter().position(|tenant| *tenant.config.id == *id).map(TenantIndex)
    }

    /// Finds the tenant with an id.
    pub(super) fn find(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.0.iter().find(|tenant| *tenant.config.id == *id)
    }

    /// Returns whether every position has a tenant of the same id in both.
    pub(super) fn has_same_ids(&self, other: &Self) -> bool {
        self.0.iter().map(|tenant| &tenant.config.id).eq(other.0.iter().map(|tenant| &tenant.config.id))
    }
}
