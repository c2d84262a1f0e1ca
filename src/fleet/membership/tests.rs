//! The states by the answers to beats, and the promise that a replica is alone only without a lease.

use proptest::prelude::*;

use super::*;

/// A moment so many milliseconds after a clock has run for a minute.
fn at(millis: u64) -> Moment {
    Moment::from_nanos((60_000 + millis) * 1_000_000)
}

fn accepted(count: u32) -> Beat {
    let accepted = Accepted { epoch: b"e".to_vec(), known: count, live: count, rank: Some(count - 1) };
    Beat { server_time: 0.0, accepted: Some(accepted) }
}

fn reckoning(now: u64) -> Reckoning {
    Reckoning::new(0.0, at(now), at(now))
}

/// A replica that connects at 10 ms, and whose first beat is answered at 12 ms.
fn member() -> Membership {
    let mut member = Membership::new(at(0));
    member.connected(at(10), "server", reckoning(10));
    member.beat_sent(at(11));
    assert!(!member.beat_answered(&accepted(3), at(11), at(12)));
    member
}

fn states(member: &Membership, millis: &[u64]) -> Vec<FleetState> {
    millis.iter().map(|now| member.standing().state(at(*now))).collect()
}

use FleetState::{Alone, Joining, Limbo, Shared};

#[test]
fn the_state_follows_from_the_time_since_the_last_answer() {
    let member = member();
    assert_eq!(member.standing().members, Members { known: 3, live: 3, rank: Some(2) });
    assert_eq!(states(&member, &[12, 311, 312, 1010, 1011]), [Shared, Shared, Limbo, Limbo, Alone]);
}

#[test]
fn a_replica_is_alone_when_the_lease_of_its_last_beat_has_ended() {
    let mut member = member();
    // The answer is lost, but the server may have renewed the lease as late as 900 + 200 ms.
    member.beat_sent(at(900));
    assert_eq!(states(&member, &[1011, 1849, 1850]), [Limbo, Limbo, Alone]);
}

#[test]
fn a_replica_that_was_alone_has_no_budget_until_its_beat_is_answered() {
    let mut member = member();
    member.disconnected();
    member.connected(at(5000), "server", reckoning(5000));
    assert_eq!(states(&member, &[5000, 9000]), [Joining, Joining]);
    member.beat_sent(at(5001));
    member.beat_answered(&accepted(1), at(5001), at(5002));
    assert_eq!(states(&member, &[5002]), [Shared]);
}

#[test]
fn a_connection_that_is_lost_while_joining_leaves_the_lease_in_doubt() {
    let mut member = member();
    member.connected(at(5000), "server", reckoning(5000));
    member.beat_sent(at(5001));
    member.disconnected();
    assert_eq!(states(&member, &[5002, 5950, 5951]), [Limbo, Limbo, Alone]);
}

#[test]
fn a_quick_reconnect_changes_nothing_and_another_server_does() {
    let mut member = member();
    member.disconnected();
    member.connected(at(100), "server", reckoning(100));
    assert_eq!(states(&member, &[100]), [Shared]);
    member.connected(at(100), "another", reckoning(100));
    assert_eq!(states(&member, &[100]), [Limbo]);
}

#[test]
fn a_process_that_never_connects_is_alone_after_a_second() {
    let member = Membership::new(at(0));
    assert_eq!(states(&member, &[0, 999, 1000]), [Joining, Joining, Alone]);
    assert_eq!(member.standing().members.rank, None);
}

#[test]
fn a_beat_that_came_too_late_is_no_answer() {
    let mut member = member();
    member.beat_sent(at(100));
    member.beat_answered(&Beat { server_time: 0.0, accepted: None }, at(100), at(340));
    assert_eq!(states(&member, &[340]), [Limbo]);
}

#[test]
fn a_new_epoch_tells_that_the_servers_state_was_lost() {
    let mut member = member();
    let mut beat = accepted(1);
    assert!(!member.beat_answered(&beat, at(100), at(101)));
    beat.accepted.as_mut().expect("it is").epoch = b"another".to_vec();
    assert!(member.beat_answered(&beat, at(200), at(201)));
    assert!(!member.beat_answered(&beat, at(300), at(301)));
}

#[test]
fn members_before_a_loss_of_state_count_for_a_minute() {
    let known = |member: &Membership| member.standing().members.known;
    for is_another_server in [true, false] {
        let mut member = member();
        let mut alone = accepted(1);
        if is_another_server {
            member.connected(at(100), "another", reckoning(100));
        } else {
            alone.accepted.as_mut().expect("it is").epoch = b"another".to_vec();
        }
        for (now, expected) in [(200, 3), (59_000, 3), (61_000, 1)] {
            member.beat_answered(&alone, at(now), at(now));
            assert_eq!(known(&member), expected, "{now}");
        }
    }
}

#[test]
fn members_before_an_outage_count_for_a_minute_after_it() {
    let mut member = member();
    member.disconnected();
    member.connected(at(90_000), "server", reckoning(90_000));
    // The first beat after the outage has made the server forget the others.
    for (now, expected) in [(90_001, 3), (149_000, 3), (151_000, 1)] {
        member.beat_answered(&accepted(1), at(now), at(now));
        assert_eq!(member.standing().members.known, expected, "{now}");
    }
}

#[test]
fn a_clock_that_was_set_is_shown_when_the_server_was_told() {
    let mut member = Membership::new(at(0));
    let reading = |server_time, now| Reckoning::new(server_time, at(now), at(now));
    member.connected(at(10), "server", reading(5e9, 10));
    let shown = |member: &Membership| member.standing().reckoning.expect("it was read").latest(at(300)).round();
    let beat = |server_time| Beat { server_time, ..accepted(1) };
    member.beat_sent(at(100));
    member.beat_answered(&beat(5e9 + 90e3 + 150e3), at(100), at(100));
    assert!(member.clock_was_set());
    assert!(shown(&member) < 5e9 + 291e3, "as before");
    member.beat_sent(at(105));
    assert!(member.clock_was_set(), "the answer is missing");
    member.beat_answered(&beat(5e9 + 95e3 + 150e3), at(105), at(105));
    assert!(!member.clock_was_set());
    assert!(shown(&member) > 5e9 + 440e3 - 1.0);
    // Also between two connections, unless it is another server.
    member.connected(at(200), "server", reading(5e9, 200));
    assert!(member.clock_was_set());
    member.connected(at(200), "another", reading(7e9, 200));
    assert!(!member.clock_was_set());
}

/// The fate of a beat.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    AnswerLost,
    NeverArrives,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![4 => Just(Fate::Answered), 2 => Just(Fate::AnswerLost), 2 => Just(Fate::NeverArrives)]
}

proptest! {
    /// The server's side of a lease: it ends `LEASE` after the receipt of a beat, which is refused if it is too late.
    #[test]
    fn a_replica_is_never_alone_while_the_server_may_count_it_as_a_member(
        beats in proptest::collection::vec((0_u64..1500, fate(), 0_u64..400, any::<bool>()), 1..40),
    ) {
        let mut member = Membership::new(at(0));
        let (mut now, mut lease_end) = (1, 0);
        for (pause, fate, delay, reconnects) in beats {
            for _ in 0..pause {
                now += 1;
                let state = member.standing().state(at(now));
                prop_assert!(state != Alone || now >= lease_end, "{now} {lease_end}");
            }
            if reconnects {
                member.disconnected();
                member.connected(at(now), "server", reckoning(now));
            }
            member.beat_sent(at(now));
            let is_in_time = delay <= u64::try_from(LONGEST_DELAY.as_millis()).expect("small");
            let arrives = !matches!(fate, Fate::NeverArrives);
            if arrives && is_in_time {
                lease_end = lease_end.max(now + delay + u64::try_from(LEASE.as_millis()).expect("small"));
            }
            if matches!(fate, Fate::Answered) {
                let beat = if is_in_time { accepted(1) } else { Beat { server_time: 0.0, accepted: None } };
                member.beat_answered(&beat, at(now), at(now + delay));
                now += delay;
            }
        }
    }
}
