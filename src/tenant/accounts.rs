//! The linked accounts of a tenant that were requested lately. A look-up takes no lock, and their number is bounded.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use papaya::HashMap;

use super::partition::Partition;
use crate::clock::Moment;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A linked account without requests for this time is evicted.
const IDLE: Duration = Duration::from_mins(15);
/// Minimum time between two searches for idle linked accounts.
const SWEEP: Duration = Duration::from_mins(1);

/// Partitions by their names in the fleet.
type PartitionsByName = std::collections::HashMap<Box<str>, Arc<Partition>>;

/// Partitions by linked account.
type Partitions = HashMap<Arc<str>, Arc<Partition>, foldhash::fast::RandomState>;

/// The linked accounts of a tenant.
#[derive(Debug)]
pub(super) struct Accounts {
    /// Made with the first linked account: an empty map has 16 KiB, for the threads that may use it.
    partitions: OnceLock<Partitions>,
    capacity: AtomicUsize,
    next_sweep: AtomicU64,
    sweeping: Mutex<()>,
    /// The partitions by their names in the fleet. Locked when one is created, so that each that is found in `partitions` is found
    /// here too.
    named: Mutex<PartitionsByName>,
}

impl Accounts {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            partitions: OnceLock::new(),
            capacity: AtomicUsize::new(capacity.max(1)),
            next_sweep: AtomicU64::new(0),
            sweeping: Mutex::new(()),
            named: Mutex::default(),
        }
    }

    /// Changes the maximum number of linked accounts, which the next insertion enforces.
    pub(super) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity.max(1), Ordering::Relaxed);
    }

    /// Returns the partition of a linked account, and creates it if there is none. Part of the hit path: a look-up and a
    /// store.
    pub(super) fn get(&self, id: &str, now: Moment, create: impl Fn(Arc<str>) -> Partition) -> Arc<Partition> {
        let all = self.partitions.get_or_init(Partitions::default);
        let partitions = all.pin();
        if let Some(partition) = partitions.get(id) {
            partition.touch(now);
            return Arc::clone(partition);
        }
        self.make_room(all, now);
        let id: Arc<str> = id.into();
        let created = Arc::new(create(Arc::clone(&id)));
        // Before another thread finds it: without a request it is idle, and goes with the next sweep.
        created.touch(now);
        let mut named = created.fleet_name().is_some().then(|| self.named());
        let partition = partitions.get_or_insert_with(id, || Arc::clone(&created));
        if let (Some(named), Some(name)) = (&mut named, partition.fleet_name()) {
            named.insert(name.into(), Arc::clone(partition));
        }
        if !Arc::ptr_eq(partition, &created) {
            partition.touch(now);
        }
        Arc::clone(partition)
    }

    /// Returns the partition with this name in the fleet, if there is one.
    pub(super) fn find_named(&self, name: &str) -> Option<Arc<Partition>> {
        self.named().get(name).cloned()
    }

    fn named(&self) -> MutexGuard<'_, PartitionsByName> {
        // Insertions leave the map valid even if a panic poisoned the lock.
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of linked accounts.
    pub(super) fn len(&self) -> usize {
        self.partitions.get().map_or(0, HashMap::len)
    }

    /// Returns the partition of a linked account, if there is one.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Partition>> {
        self.partitions.get()?.pin().get(id).map(Arc::clone)
    }

    /// Returns the linked accounts with the most requests in the last minute, at most `limit` of them, with the number of
    /// their requests, the busiest first.
    pub(super) fn busiest(&self, limit: usize, now: Moment) -> Vec<(String, u64)> {
        let Some(partitions) = self.partitions.get() else { return Vec::new() };
        let partitions = partitions.pin();
        let mut busy: Vec<(u64, &str)> = partitions
            .iter()
            .map(|(id, partition)| (partition.requests(now), &**id))
            .filter(|(requests, _)| *requests > 0)
            .collect();
        // Accounts with equal numbers of requests are sorted by id, so that the list on the status page is stable.
        busy.sort_unstable_by(|(one, id), (other, other_id)| other.cmp(one).then(id.cmp(other_id)));
        busy.truncate(limit);
        busy.into_iter().map(|(requests, id)| (id.to_owned(), requests)).collect()
    }

    /// Evicts idle linked accounts. If that makes no room, evicts a tenth of all or more, the longest idle first.
    fn make_room(&self, all: &Partitions, now: Moment) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let is_full = all.len() >= capacity;
        if !is_full && now.as_nanos() < self.next_sweep.load(Ordering::Relaxed) {
            return;
        }
        let _sweeping = match self.sweeping.try_lock() {
            Ok(sweeping) => sweeping,
            // The lock protects no data, so a panic under it leaves nothing inconsistent.
            Err(TryLockError::Poisoned(sweeping)) => sweeping.into_inner(),
            // Another thread is making room already.
            Err(TryLockError::WouldBlock) => return,
        };
        self.next_sweep.store((now + SWEEP).as_nanos(), Ordering::Relaxed);
        let partitions = all.pin();
        partitions.retain(|_, partition| now.since(partition.last_seen()) < IDLE);
        if partitions.len() >= capacity {
            evict_oldest(all, capacity);
        }
        let is_present = |partition: &Arc<Partition>| {
            let present = partition.linked_account_id().and_then(|id| partitions.get(id));
            present.is_some_and(|present| Arc::ptr_eq(present, partition))
        };
        self.named().retain(|_, partition| is_present(partition));
    }
}

/// Evicts a tenth of all linked accounts, or as many as make room for one, the longest idle first.
fn evict_oldest(all: &Partitions, capacity: usize) {
    let partitions = all.pin();
    let mut last_seen: Vec<Moment> = partitions.values().map(|partition| partition.last_seen()).collect();
    // One less than are evicted.
    let last = (last_seen.len() / 10).max(last_seen.len().saturating_sub(capacity));
    let (_, newest_evicted, _) = last_seen.select_nth_unstable(last);
    let newest_evicted = *newest_evicted;
    let mut left_to_evict = last + 1;
    partitions.retain(|_, partition| {
        let is_evicted = left_to_evict > 0 && partition.last_seen() <= newest_evicted;
        left_to_evict -= usize::from(is_evicted);
        !is_evicted
    });
}

#[cfg(test)]
mod tests {
    use super::super::partition::Owner;
    use super::*;
    use crate::config::Rate;
    use crate::limit::ClientBudget;

    fn account(accounts: &Accounts, id: &str, at: u64) -> Arc<Partition> {
        let rate = Rate { per_second: std::num::NonZeroU32::MIN, burst: std::num::NonZeroU32::MIN };
        accounts
            .get(id, Moment::from_nanos(at), |id| Partition::new(Owner::LinkedAccount(id), 0, ClientBudget::new(rate)))
    }

    #[test]
    fn an_account_keeps_its_partition_while_it_is_requested() {
        let accounts = Accounts::new(100);
        let first = account(&accounts, "a", 0);
        let minute = u64::try_from(Duration::from_mins(1).as_nanos()).expect("a minute fits");
        for at in 1..30 {
            assert!(Arc::ptr_eq(&first, &account(&accounts, "a", at * minute)));
            account(&accounts, &format!("other-{at}"), at * minute);
        }
        assert!(accounts.find("other-29").is_some());
        assert!(accounts.find("other-1").is_none(), "idle accounts are evicted");
        assert!(!Arc::ptr_eq(&first, &account(&accounts, "A", 0)));
    }

    #[test]
    fn the_busiest_accounts_of_the_last_minute_come_first() {
        let accounts = Accounts::new(100);
        for (id, requests) in [("a", 2), ("c", 5), ("b", 5), ("d", 1)] {
            (0..requests).for_each(|_| account(&accounts, id, 7).count_request(Moment::from_nanos(7)));
        }
        let busiest = accounts.busiest(3, Moment::from_nanos(8));
        assert_eq!(busiest, [("b".to_owned(), 5), ("c".to_owned(), 5), ("a".to_owned(), 2)]);
        let later = Moment::from_nanos(8) + Duration::from_mins(2);
        assert_eq!(accounts.busiest(3, later), []);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a panic that poisons the lock")]
    fn the_bound_holds_after_a_panic_under_the_sweep_lock() {
        let accounts = Arc::new(Accounts::new(100));
        let poisoned = Arc::clone(&accounts);
        let panicked = std::thread::spawn(move || {
            let _sweeping = poisoned.sweeping.lock().expect("it is free");
            panic!("under the lock");
        });
        assert!(panicked.join().is_err() && accounts.sweeping.is_poisoned());
        for number in 0..1000 {
            account(&accounts, &format!("account-{number}"), number);
            assert!(accounts.len() <= 100, "{number}");
        }
        accounts.set_capacity(10);
        account(&accounts, "one more", 1001);
        assert!(accounts.len() <= 10, "the next insertion enforces it");
        (0..20).for_each(|number| drop(account(&accounts, &format!("later-{number}"), 1002 + number)));
        let idle = 2 * u64::try_from(IDLE.as_nanos()).expect("it fits");
        account(&accounts, "after all", idle);
        assert_eq!(accounts.len(), 1, "idle accounts are evicted");
    }

    #[test]
    fn the_longest_idle_accounts_are_evicted_at_capacity() {
        let accounts = Accounts::new(100);
        for at in 0..1000 {
            account(&accounts, &format!("account-{at}"), at);
            assert!(accounts.len() <= 100);
        }
        assert!(accounts.find("account-999").is_some() && accounts.find("account-950").is_some());
        assert!(accounts.find("account-0").is_none());
        // The bound holds also if all accounts were requested at the same time.
        let accounts = Accounts::new(10);
        for number in 0..100 {
            account(&accounts, &format!("account-{number}"), 7);
            assert!(accounts.len() <= 10);
        }
    }
}
