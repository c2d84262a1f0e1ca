//! The tenants that reloads have removed. Their series are removed from the metrics at the next scrapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tenant::Tenant;

/// Scrapes at which a tenant's series are removed: requests that began before the reload may count after the first.
const SCRAPES: u8 = 3;

/// The tenants of the configuration in effect, and those of earlier ones, by [`Tenant::interned_id`].
#[derive(Debug, Default)]
pub(super) struct RemovedTenants {
    configured: BTreeMap<usize, Arc<str>>,
    /// Each with the number of scrapes that are left.
    removed: BTreeMap<usize, (Arc<str>, u8)>,
}

impl RemovedTenants {
    /// Notes the tenants of the configuration that takes effect now.
    pub(super) fn configure(&mut self, tenants: &[Arc<Tenant>]) {
        let configured = tenants.iter().map(|tenant| (tenant.interned_id(), Arc::clone(&tenant.config.id))).collect();
        let before = std::mem::replace(&mut self.configured, configured);
        self.removed.extend(before.into_iter().map(|(number, id)| (number, (id, SCRAPES))));
        self.removed.retain(|number, _| !self.configured.contains_key(number));
    }

    /// Returns the tenants whose series are to be removed at this scrape, each with its number.
    pub(super) fn at_scrape(&mut self) -> Vec<(usize, Arc<str>)> {
        let removed = self.removed.iter().map(|(number, (id, _))| (*number, Arc::clone(id))).collect();
        self.removed.retain(|_, (_, left)| {
            *left -= 1;
            *left > 0
        });
        removed
    }
}
