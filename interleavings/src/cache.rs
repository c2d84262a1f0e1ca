//! Models of request collapsing, `../src/cache/collapse.rs`.

#[path = "../../src/cache/collapse.rs"]
#[allow(dead_code, reason = "the models need a part of it")]
mod collapse;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use collapse::{CollapseKey, Follower, Group, Leader, Participation, Role};
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::Model;
use crate::caller::Caller;

/// Replaces `../src/cache/entry.rs`.
mod entry {
    #[derive(Debug)]
    pub(crate) struct Entry;
}

/// Replaces `../src/cache/key.rs`.
mod key {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct CacheKey;
}

pub(crate) const MODELS: &[Model] = &[
    ("a key never has two leaders", one_leader),
    ("every follower is answered when its leader goes", answers),
    ("a fetch is not cancelled once a request waits for it", no_cancelled_wait),
    ("no change of the demand is missed", demand),
];

fn key() -> CollapseKey {
    CollapseKey::new(&Caller, &key::CacheKey)
}

fn join(group: &Arc<Group<()>>, participation: Participation) -> (Option<Leader<()>>, Follower) {
    match group.join(key(), participation, (), |(), _| true) {
        Role::Leads { leader, follower } => (Some(leader), follower),
        Role::Follows { follower, .. } => (None, follower),
    }
}

/// Runs threads to their end.
fn run_all<const N: usize>(threads: [Box<dyn FnOnce() + Send>; N]) {
    for running in threads.map(thread::spawn) {
        running.join().expect("no panic");
    }
}

/// Leaders that end in each way, and one whose fetch no other request may join.
fn one_leader() {
    let group: Arc<Group<()>> = Arc::default();
    let leaders = Arc::new(AtomicUsize::new(0));
    let lead = |participation, end: fn(Leader<()>) -> Option<Leader<()>>| -> Box<dyn FnOnce() + Send> {
        let (group, leaders) = (Arc::clone(&group), Arc::clone(&leaders));
        Box::new(move || {
            for _ in 0..2 {
                let (mut leader, _follower) = join(&group, participation);
                while let Some(leading) = leader.take() {
                    assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "two leaders");
                    thread::sleep(std::time::Duration::ZERO);
                    leaders.fetch_sub(1, Ordering::SeqCst);
                    leader = end(leading);
                }
            }
        })
    };
    let unshared = Arc::clone(&group);
    let complete = |leader: Leader<()>| -> Option<Leader<()>> {
        leader.complete(Ok(Arc::new(entry::Entry)));
        None
    };
    run_all([
        lead(Participation::Waits, complete),
        lead(Participation::Listens, |leader| {
            let joined = leader.cancel_without_demand().err();
            thread::yield_now();
            joined
        }),
        lead(Participation::Waits, |leader| {
            drop(leader);
            None
        }),
        Box::new(move || drop(unshared.lead_unshared(key(), Participation::Waits))),
    ]);
}

/// Leaders that end with an answer, or without one as after a panic.
fn answers() {
    let group: Arc<Group<()>> = Arc::default();
    let ask = |has_answer: bool| -> Box<dyn FnOnce() + Send> {
        let group = Arc::clone(&group);
        Box::new(move || {
            let (leader, mut follower) = join(&group, Participation::Waits);
            let leading = leader.map(|leader| {
                thread::spawn(
                    move || if has_answer { leader.complete(Ok(Arc::new(entry::Entry))) } else { drop(leader) },
                )
            });
            let answered = block_on(follower.result());
            if let Some(leading) = leading {
                assert_eq!(answered.is_ok(), has_answer);
                leading.join().expect("no panic");
            }
        })
    };
    run_all([ask(true), ask(false), ask(true)]);
}

/// Fetches that are cancelled when the last request disconnects, while others join.
fn no_cancelled_wait() {
    let group: Arc<Group<()>> = Arc::default();
    let ask = |waits: bool| -> Box<dyn FnOnce() + Send> {
        let group = Arc::clone(&group);
        Box::new(move || {
            let (leader, mut follower) = join(&group, Participation::Waits);
            let leading = leader.map(|leader| thread::spawn(move || fetch(leader)));
            if waits {
                block_on(follower.result()).expect("the fetch goes on for this request");
            }
            drop(follower);
            if let Some(leading) = leading {
                leading.join().expect("no panic");
            }
        })
    };
    run_all([ask(false), ask(true), ask(false)]);
}

/// As `Fetcher::run` does: cancels the fetch without demand, and goes on with it if a request has joined.
fn fetch(mut leader: Leader<()>) {
    while let Err(joined) = leader.cancel_without_demand() {
        leader = joined;
        // The answer comes, or the request that has joined disconnects too.
        if thread_rng().r#gen() {
            leader.complete(Ok(Arc::new(entry::Entry)));
            return;
        }
        thread::yield_now();
    }
}

/// A fetch that waits for its demand to be lost, gained and lost again, while another follower comes and goes.
fn demand() {
    let group: Arc<Group<()>> = Arc::default();
    let (leader, mut first) = join(&group, Participation::Waits);
    let leader = leader.expect("no other fetch");
    let (_, mut second) = join(&group, Participation::Listens);
    let (_, mut third) = join(&group, Participation::Listens);
    let passing = Box::new(move || {
        third.start_waiting();
        third.stop_waiting();
    });
    let lost = leader.demand();
    run_all([Box::new(move || block_on(lost.lost())), Box::new(move || first.stop_waiting()), passing]);
    let gained = leader.demand();
    let starting = thread::spawn(move || {
        second.start_waiting();
        second
    });
    block_on(gained.gained());
    let second = starting.join().expect("no panic");
    run_all([Box::new(move || drop(second)), Box::new(move || block_on(leader.demand().lost()))]);
}
