//! Drops of a tenant's entries on all replicas of a fleet.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::fleet_tenant::FleetTenant;
use super::{Partition, Tenant};
use crate::fleet::{DropReach, DroppedEntries, EntryDropper, Fleet, Generations};

impl Tenant {
    /// Puts the tenant into a fleet, if there is one. Call it before the tenant has partitions.
    #[must_use]
    pub fn in_fleet(mut self, fleet: Option<&Fleet>) -> Self {
        self.client_budgets = fleet.map(|fleet| fleet.client_budgets().clone());
        self.fleet = fleet.map(|fleet| FleetTenant::new(fleet, &self.config.id));
        self
    }

    /// The name of the tenant in its fleet.
    #[must_use]
    pub fn fleet_name(&self) -> Option<&str> {
        self.fleet.as_ref().map(|tenant| &*tenant.name)
    }

    /// Drops, on all replicas of the fleet, all entries that a change made by the partition's caller can affect. A linked account
    /// can have been evicted and created anew since the request began, so the entries of its present partition are dropped too.
    pub async fn drop_entries(&self, partition: &Partition) -> DropReach {
        partition.drop_entries();
        match partition.linked_account_id() {
            Some(id) => self.drop_entries_of(&[id]).await,
            // A session token may belong to any linked account.
            None => self.drop_all_entries().await,
        }
    }

    /// Drops, on all replicas of the fleet, all entries of linked accounts, and those of all session tokens: only Refold knows which
    /// of the tokens belong to these accounts.
    pub async fn drop_entries_of(&self, linked_accounts: &[&str]) -> DropReach {
        let Some(FleetTenant { fleet, name, .. }) = &self.fleet else {
            for account in linked_accounts {
                self.drop_account_here(self.accounts.find(account));
            }
            return DropReach::Everywhere;
        };
        let name_of = |account: &&str| self.fleet.as_ref().map(|tenant| tenant.partition_name(account));
        let partitions = linked_accounts.iter().map(name_of);
        let dropped: Vec<_> = partitions.map(|partition| DroppedEntries { tenant: name.clone(), partition }).collect();
        fleet.drop_entries(&dropped).await
    }

    /// Drops, on all replicas of the fleet, all entries of this tenant.
    pub async fn drop_all_entries(&self) -> DropReach {
        let Some(FleetTenant { fleet, name, .. }) = &self.fleet else {
            self.drop_everything_here();
            return DropReach::Everywhere;
        };
        fleet.drop_entries(&[DroppedEntries { tenant: name.clone(), partition: None }]).await
    }

    /// Notes the generations of a partition and this tenant, as the fleet's server tells them. Returns the latest ones that were seen:
    /// if they are later, someone has set the server's back, and with them what was dropped.
    #[must_use]
    pub fn latest_generations(&self, partition: &Partition, told: Generations) -> Generations {
        let tenant = self.fleet.as_ref().map_or(told.tenant, |in_fleet| in_fleet.saw_generation(told.tenant));
        Generations { partition: partition.saw_generation(told.partition), tenant }
    }

    fn drop_account_here(&self, partition: Option<Arc<Partition>>) {
        if let Some(partition) = partition {
            partition.drop_entries();
        }
        self.token_epoch.advance();
    }

    /// Drops all entries of this tenant in this process, in O(1).
    fn drop_everything_here(&self) {
        self.account_epoch.advance();
        self.token_epoch.advance();
    }
}

/// Drops the entries that this process holds of its tenants.
#[derive(Debug)]
pub struct TenantDropper(HashMap<Box<str>, Weak<Tenant>>);

impl TenantDropper {
    /// Drops the entries of these tenants, which are in the fleet. Does not keep them, nor through them the fleet, in memory.
    #[must_use]
    pub fn new(tenants: &[Arc<Tenant>]) -> Self {
        Self(tenants.iter().filter_map(|tenant| Some((tenant.fleet_name()?.into(), Arc::downgrade(tenant)))).collect())
    }
}

impl EntryDropper for TenantDropper {
    fn drop_entries(&self, dropped: &DroppedEntries, generation: u64) {
        let Some(tenant) = self.0.get(&dropped.tenant).and_then(Weak::upgrade) else { return };
        if let Some(name) = &dropped.partition {
            let partition = tenant.accounts.find_named(name);
            if let Some(partition) = &partition {
                partition.saw_generation(generation);
            }
            tenant.drop_account_here(partition);
            return;
        }
        if let Some(in_fleet) = &tenant.fleet {
            in_fleet.saw_generation(generation);
        }
        tenant.drop_everything_here();
    }

    fn drop_everything(&self) {
        self.0.values().filter_map(Weak::upgrade).for_each(|tenant| tenant.drop_everything_here());
    }
}
