//! The names of a tenant and its linked accounts in a fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fleet::Fleet;

/// A tenant's place in the fleet.
#[derive(Clone, Debug)]
pub(super) struct FleetTenant {
    pub(super) fleet: Fleet,
    tenant_id: Arc<str>,
    pub(super) name: Box<str>,
    /// The latest generation that was seen.
    generation: Arc<AtomicU64>,
}

impl FleetTenant {
    pub(super) fn new(fleet: &Fleet, tenant_id: &Arc<str>) -> Self {
        let name = fleet.names().hidden("tenant", &[tenant_id.as_bytes()]).into();
        Self { fleet: fleet.clone(), tenant_id: Arc::clone(tenant_id), name, generation: Arc::default() }
    }

    /// Notes a generation of the tenant, and returns the latest that was seen.
    pub(super) fn saw_generation(&self, generation: u64) -> u64 {
        self.generation.fetch_max(generation, Ordering::AcqRel).max(generation)
    }

    /// The name of a linked account's partition, the same on all replicas.
    pub(super) fn partition_name(&self, linked_account: &str) -> Box<str> {
        let parts = [self.tenant_id.as_bytes(), linked_account.as_bytes()];
        self.fleet.names().hidden("partition", &parts).into()
    }
}
