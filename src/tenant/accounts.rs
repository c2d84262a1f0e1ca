//! The linked accounts of a tenant that somebody has asked for lately. Looking one up takes no lock; their number is bounded.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use papaya::HashMap;

use super::partition::Partition;
use crate::clock::Moment;

/// A linked account that nobody has asked for is forgotten after this time.
const IDLE: Duration = Duration::from_mins(15);
/// Idle ones are looked for no more often than this.
const SWEEP: Duration = Duration::from_mins(1);

/// Partitions by linked account.
#[derive(Debug)]
pub(super) struct Accounts {
    partitions: HashMap<Arc<str>, Arc<Partition>, foldhash::fast::RandomState>,
    capacity: AtomicUsize,
    next_sweep: AtomicU64,
    sweeping: Mutex<()>,
}

impl Accounts {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            partitions: HashMap::with_hasher(foldhash::fast::RandomState::default()),
            capacity: AtomicUsize::new(capacity.max(1)),
            next_sweep: AtomicU64::new(0),
            sweeping: Mutex::new(()),
        }
    }

    /// Remembers so many from now on.
    pub(super) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity.max(1), Ordering::Relaxed);
    }

    /// The partition of a linked account, made if there is none. The hit path: a look-up, a store and a count.
    pub(super) fn get(&self, id: &str, now: Moment, make: impl Fn(Arc<str>) -> Partition) -> Arc<Partition> {
        let partitions = self.partitions.pin();
        if let Some(partition) = partitions.get(id) {
            partition.seen(now);
            return Arc::clone(partition);
        }
        self.make_room(now);
        let id: Arc<str> = id.into();
        let partition = partitions.get_or_insert_with(Arc::clone(&id), || Arc::new(make(Arc::clone(&id))));
        partition.seen(now);
        Arc::clone(partition)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// The partition of a linked account, if there is one.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Partition>> {
        self.partitions.pin().get(id).map(Arc::clone)
    }

    /// Those that were asked for most in the last minute, at most `most` of them, and how often.
    pub(super) fn busiest(&self, most: usize, now: Moment) -> Vec<(String, u64)> {
        let partitions = self.partitions.pin();
        let mut busy: Vec<(u64, &str)> = partitions
            .iter()
            .map(|(id, partition)| (partition.requests(now), &**id))
            .filter(|(requests, _)| *requests > 0)
            .collect();
        // By name where they are equal, so that a list that people look at does not jump.
        busy.sort_unstable_by(|(one, name), (other, other_name)| other.cmp(one).then(name.cmp(other_name)));
        busy.truncate(most);
        busy.into_iter().map(|(requests, id)| (id.to_owned(), requests)).collect()
    }

    /// Forgets those that are idle, and a tenth of all, the longest idle first, if there is no room otherwise.
    fn make_room(&self, now: Moment) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let full = self.partitions.len() >= capacity;
        if !full && now.as_nanos() < self.next_sweep.load(Ordering::Relaxed) {
            return;
        }
        // Whoever finds it locked may go on: room is being made.
        let Ok(_sweeping) = self.sweeping.try_lock() else { return };
        self.next_sweep.store((now + SWEEP).as_nanos(), Ordering::Relaxed);
        let partitions = self.partitions.pin();
        partitions.retain(|_, partition| now.since(partition.last_seen()) < IDLE);
        if partitions.len() < capacity {
            return;
        }
        let mut seen: Vec<Moment> = partitions.values().map(|partition| partition.last_seen()).collect();
        let tenth = seen.len() / 10;
        let (_, newest_to_go, _) = seen.select_nth_unstable(tenth);
        let newest_to_go = *newest_to_go;
        let mut to_go = tenth + 1;
        partitions.retain(|_, partition| {
            let goes = to_go > 0 && partition.last_seen() <= newest_to_go;
            to_go -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::partition::Holder;
    use super::*;
    use crate::config::Rate;

    fn account(accounts: &Accounts, id: &str, at: u64) -> Arc<Partition> {
        let rate = Rate { per_second: std::num::NonZeroU32::MIN, burst: std::num::NonZeroU32::MIN };
        accounts.get(id, Moment::from_nanos(at), |id| Partition::new(Holder::LinkedAccount(id), rate))
    }

    #[test]
    fn an_account_has_one_partition_as_long_as_it_is_asked_for() {
        let accounts = Accounts::new(100);
        let first = account(&accounts, "a", 0);
        let minute = u64::try_from(Duration::from_mins(1).as_nanos()).expect("a minute fits");
        for at in 1..30 {
            assert!(Arc::ptr_eq(&first, &account(&accounts, "a", at * minute)));
            account(&accounts, &format!("other-{at}"), at * minute);
        }
        assert!(accounts.find("other-29").is_some());
        assert!(accounts.find("other-1").is_none(), "idle ones are forgotten");
        assert!(!Arc::ptr_eq(&first, &account(&accounts, "A", 0)));
    }

    #[test]
    fn the_busiest_of_the_last_minute_come_first() {
        let accounts = Accounts::new(100);
        for (id, requests) in [("a", 2), ("c", 5), ("b", 5), ("d", 1)] {
            (0..requests).for_each(|_| drop(account(&accounts, id, 7)));
        }
        let busiest = accounts.busiest(3, Moment::from_nanos(8));
        assert_eq!(busiest, [("b".to_owned(), 5), ("c".to_owned(), 5), ("a".to_owned(), 2)]);
        let later = Moment::from_nanos(8) + Duration::from_mins(2);
        assert_eq!(accounts.busiest(3, later), []);
    }

    #[test]
    fn there_are_never_more_than_the_capacity_and_the_longest_idle_go_first() {
        let accounts = Accounts::new(100);
        for at in 0..1000 {
            account(&accounts, &format!("account-{at}"), at);
            assert!(accounts.partitions.len() <= 100);
        }
        assert!(accounts.find("account-999").is_some() && accounts.find("account-950").is_some());
        assert!(accounts.find("account-0").is_none());
        // Also when all were seen at the same time.
        let accounts = Accounts::new(10);
        for number in 0..100 {
            account(&accounts, &format!("account-{number}"), 7);
            assert!(accounts.partitions.len() <= 10);
        }
    }
}
