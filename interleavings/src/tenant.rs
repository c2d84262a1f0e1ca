//! Models of the linked accounts of a tenant, `../src/tenant/accounts.rs`.

#[path = "../../src/tenant/accounts.rs"]
#[allow(dead_code, reason = "the models need a part of it")]
mod accounts;

use std::sync::Arc;
use std::time::Duration;

use accounts::Accounts;
use partition::Partition;
use shuttle::thread;

use crate::Model;
use crate::clock::Moment;

/// Replaces an item of `../src/tenant/org_keys.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OrgKey {}

/// Replaces `../src/tenant/partition.rs`: what the table of accounts uses of a partition.
mod partition {
    use std::sync::Arc;

    use crate::clock::Moment;
    use crate::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug)]
    pub(super) struct Partition {
        id: Arc<str>,
        name: String,
        last_seen: AtomicU64,
        requests: AtomicU64,
    }

    impl Partition {
        pub(super) fn new(id: Arc<str>) -> Self {
            let name = super::name_of(&id);
            Self { id, name, last_seen: AtomicU64::new(0), requests: AtomicU64::new(0) }
        }

        pub(super) fn fleet_name(&self) -> Option<&str> {
            Some(&self.name)
        }

        pub(super) fn linked_account_id(&self) -> Option<&str> {
            Some(&self.id)
        }

        pub(super) fn touch(&self, now: Moment) {
            self.last_seen.store(now.as_nanos(), Ordering::Relaxed);
        }

        pub(super) fn count_request(&self) {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }

        pub(super) fn last_seen(&self) -> Moment {
            Moment::from_nanos(self.last_seen.load(Ordering::Relaxed))
        }

        pub(super) fn requests(&self, _now: Moment) -> u64 {
            self.requests.load(Ordering::Relaxed)
        }
    }
}

pub(crate) const MODELS: &[Model] = &[
    ("an account is created once and each request counted once", created_once),
    ("an account that is found is found by its name in the fleet", found_by_name),
    ("no sweep of idle accounts takes one that is requested", no_sweep_of_requested),
    ("the next account that is created restores the bound", bounded),
];

/// Time after which all accounts of before are idle.
const LATER: Duration = Duration::from_hours(1);

fn name_of(id: &str) -> String {
    format!("name of {id}")
}

fn request(accounts: &Accounts, id: &str, now: Moment) -> Arc<Partition> {
    let partition = accounts.get(id, now, Partition::new);
    partition.count_request();
    partition
}

/// Starts a thread that requests accounts in turn, and returns their partitions.
fn requests(
    accounts: &Arc<Accounts>,
    ids: &'static [&'static str],
    now: Moment,
) -> thread::JoinHandle<Vec<Arc<Partition>>> {
    let accounts = Arc::clone(accounts);
    thread::spawn(move || ids.iter().map(|id| request(&accounts, id, now)).collect())
}

/// Fails unless an account is there, by its id and by its name.
fn assert_is_there(accounts: &Accounts, partition: &Arc<Partition>) {
    let id = partition.linked_account_id().expect("an account");
    let found = accounts.find(id).unwrap_or_else(|| panic!("{id} is lost"));
    assert!(Arc::ptr_eq(&found, partition), "{id} is there twice");
    let named = accounts.find_named(&name_of(id)).unwrap_or_else(|| panic!("{id} has lost its name"));
    assert!(Arc::ptr_eq(&named, partition), "the name of {id} is another account's");
}

fn created_once() {
    let accounts = Arc::new(Accounts::new(100));
    let now = Moment::default() + LATER;
    let running = [
        requests(&accounts, &["a", "b"], now),
        requests(&accounts, &["b", "a"], now),
        requests(&accounts, &["a"], now),
    ];
    let partitions = running.map(|running| running.join().expect("no panic")).concat();
    partitions.iter().for_each(|partition| assert_is_there(&accounts, partition));
    assert_eq!(accounts.len(), 2);
    assert_eq!(accounts.busiest(2, now), [("a".to_owned(), 3), ("b".to_owned(), 2)]);
}

fn found_by_name() {
    let accounts = Arc::new(Accounts::new(100));
    let now = Moment::default() + LATER;
    let running = [requests(&accounts, &["a"], now), requests(&accounts, &["a", "b"], now)];
    for id in ["a", "b"] {
        if let Some(partition) = accounts.find(id) {
            assert_is_there(&accounts, &partition);
        }
    }
    drop(running.map(|running| running.join().expect("no panic")));
}

fn no_sweep_of_requested() {
    let accounts = Arc::new(Accounts::new(100));
    request(&accounts, "idle", Moment::default());
    let requested = request(&accounts, "requested", Moment::default());
    let now = Moment::default() + LATER;
    request(&accounts, "requested", now);
    // Each of these is a reason to look for idle accounts.
    let running = [
        requests(&accounts, &["a", "b"], now),
        requests(&accounts, &["c"], now + LATER / 10),
        requests(&accounts, &["a"], now),
    ];
    let partitions = running.map(|running| running.join().expect("no panic")).concat();
    partitions.iter().chain([&requested]).for_each(|partition| assert_is_there(&accounts, partition));
    assert!(accounts.find("idle").is_none() && accounts.find_named(&name_of("idle")).is_none());
    assert_eq!(accounts.len(), 4);
}

fn bounded() {
    const CAPACITY: usize = 4;
    let accounts = Arc::new(Accounts::new(CAPACITY));
    let now = Moment::default() + LATER;
    for id in ["1", "2", "3", "4"] {
        request(&accounts, id, now);
    }
    let running = [
        requests(&accounts, &["a", "b"], now),
        requests(&accounts, &["c", "d"], now),
        requests(&accounts, &["e", "a"], now),
    ];
    drop(running.map(|running| running.join().expect("no panic")));
    // While a thread made room, the others may have created more.
    request(&accounts, "f", now);
    assert!(accounts.len() <= CAPACITY, "{}", accounts.len());
    for id in ["a", "b", "c", "d", "e", "f", "1", "2", "3", "4"] {
        let (found, named) = (accounts.find(id), accounts.find_named(&name_of(id)));
        // An evicted account may keep its name until the next search.
        assert!(found.is_none_or(|found| named.is_some_and(|named| Arc::ptr_eq(&found, &named))), "{id}");
    }
}
