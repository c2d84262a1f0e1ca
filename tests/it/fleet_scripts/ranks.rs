//! The ranks of replicas, which are their places in the time slots while they are alone: no two replicas that may be alone have the
//! same one, also right after one joined or left.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::model::FORGET;
use super::server::Scripts;

/// One step of a generated history.
#[derive(Clone, Debug)]
enum Event {
    /// A replica beats, and joins with its first beat.
    Beat(u8),
    Leave(u8),
    /// Time passes, in milliseconds.
    Wait(u32),
    /// The server loses its state. A replica joins, and those that were connected beat, in this order.
    Flush(Vec<u8>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        10 => (0_u8..12).prop_map(Event::Beat),
        2 => (0_u8..12).prop_map(Event::Leave),
        4 => prop_oneof![0_u32..200, Just(1000), Just(30_000), Just(70_000)].prop_map(Event::Wait),
        1 => Just((0_u8..12).collect::<Vec<u8>>()).prop_shuffle().prop_map(Event::Flush),
    ];
    prop::collection::vec(event, 1..60)
}

/// The belief of each replica: when its last beat was answered, and its rank.
type Beliefs = BTreeMap<u8, (f64, Option<u32>)>;

fn beat(scripts: &mut Scripts, believed: &mut Beliefs, now: f64, replica: u8) {
    let before = believed.get(&replica).and_then(|(_, rank)| *rank);
    let rank = scripts.rank(now, &format!("replica-{replica}"), before);
    believed.insert(replica, (now, rank));
}

fn play(scripts: &mut Scripts, events: &[Event]) -> Result<(), TestCaseError> {
    scripts.flush();
    let (mut now, mut believed) = (1.7e15, Beliefs::new());
    for event in events {
        match event {
            Event::Beat(replica) => beat(scripts, &mut believed, now, *replica),
            Event::Leave(replica) => {
                scripts.leave(&format!("replica-{replica}"));
                believed.remove(replica);
            }
            Event::Wait(millis) => now += f64::from(*millis) * 1e3,
            Event::Flush(order) => {
                scripts.flush();
                let newcomer = order.iter().find(|replica| !believed.contains_key(replica)).copied();
                for replica in order {
                    if believed.contains_key(replica) || newcomer == Some(*replica) {
                        beat(scripts, &mut believed, now, *replica);
                    }
                }
            }
        }
        // The server forgets the others, and they their share.
        believed.retain(|_, (at, _)| now - *at < FORGET);
        let mut ranks: Vec<u32> = believed.values().filter_map(|(_, rank)| *rank).collect();
        let count = ranks.len();
        ranks.sort_unstable();
        ranks.dedup();
        prop_assert_eq!(ranks.len(), count, "{:?}", believed);
    }
    Ok(())
}

#[tokio::test]
async fn no_two_replicas_that_may_be_alone_have_the_same_rank() {
    let Some(scripts) = Scripts::start().await else { return };
    let scripts = std::cell::RefCell::new(scripts);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&events(), |events| play(&mut scripts.borrow_mut(), &events));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn ranks_are_the_smallest_that_are_free() {
    let Some(mut scripts) = Scripts::start().await else { return };
    let now = 1.7e15;
    let rank = |scripts: &mut Scripts, replica: &str, after: f64| scripts.rank(now + after, replica, None);
    assert_eq!(rank(&mut scripts, "b", 0.0), None, "the others may not have told theirs yet");
    let replicas = ["b", "a", "c"].map(|replica| rank(&mut scripts, replica, 1e6));
    assert_eq!(replicas, [Some(0), Some(1), Some(2)]);
    scripts.leave("a");
    let replicas = ["d", "c", "b", "e"].map(|replica| rank(&mut scripts, replica, 2e6));
    assert_eq!(replicas, [Some(1), Some(2), Some(0), Some(3)]);
}

#[tokio::test]
async fn the_rank_of_a_replica_that_was_forgotten_is_free_again() {
    let Some(mut scripts) = Scripts::start().await else { return };
    let now = 1.7e15;
    let rank = |scripts: &mut Scripts, replica: &str, seconds: f64| scripts.rank(now + seconds * 1e6, replica, None);
    rank(&mut scripts, "a", 0.0);
    assert_eq!(rank(&mut scripts, "a", 1.0), Some(0));
    // As an earlier version forgets a member.
    scripts.give_rank("gone", 1);
    assert_eq!(rank(&mut scripts, "b", 2.0), Some(2), "its member may have been lost a moment ago");
    assert_eq!((rank(&mut scripts, "a", 40.0), rank(&mut scripts, "b", 40.0)), (Some(0), Some(2)));
    assert_eq!(rank(&mut scripts, "c", 61.0), Some(1));
}
