//! The rate of a fleet with members that may be alone, after a 429, and after the clock was set.

use super::fairness::{Fleet, caller};
use super::model::Verdict;

/// Asks for a second's worth of requests; returns the number that is granted.
fn granted_in_a_second(fleet: &mut Fleet) -> usize {
    let mut granted = 0;
    for _ in 0..200 {
        granted += usize::from(fleet.ask(caller(1, 1)));
        fleet.pass(5e3);
    }
    granted
}

#[tokio::test]
async fn a_member_without_a_lease_keeps_its_share_for_a_minute() {
    let Some(mut fleet) = Fleet::start(&["a", "b"]).await else { return };
    assert!((19..=21).contains(&granted_in_a_second(&mut fleet)));
    fleet.replicas.pop();
    fleet.pass(1e6);
    for _ in 0..3 {
        let granted = granted_in_a_second(&mut fleet);
        assert!((9..=13).contains(&granted), "{granted}");
        fleet.pass(15e6);
    }
    fleet.pass(15e6);
    let granted = granted_in_a_second(&mut fleet);
    assert!(granted >= 19, "{granted}");
}

#[tokio::test]
async fn a_429_holds_all_flows_also_before_the_first_request_and_halves_the_rate() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    fleet.scripts.flush();
    fleet.beat();
    assert_eq!(fleet.scripts.hold(fleet.now, 2e6, fleet.limits), (2e6, 500.0));
    assert_eq!(fleet.scripts.hold(fleet.now, 1e6, fleet.limits), (2e6, 500.0), "once per hold");
    assert_eq!(granted_in_a_second(&mut fleet) + granted_in_a_second(&mut fleet), 0);
    let granted = granted_in_a_second(&mut fleet);
    assert!((8..=13).contains(&granted), "no burst, and half the rate at first: {granted}");
}

#[tokio::test]
async fn a_clock_that_is_set_never_stops_the_fleet_nor_gives_it_a_burst() {
    let hour = 3600e6;
    let Some(mut fleet) = Fleet::start(&["a", "b"]).await else { return };
    for jump in [-hour, hour, 24.0 * hour, -24.0 * hour] {
        granted_in_a_second(&mut fleet);
        fleet.now += jump;
        let granted = granted_in_a_second(&mut fleet);
        assert!((17..=20).contains(&granted), "{granted} after a jump of {jump}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_forward_by_a_moment_gives_no_request_more() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    fleet.pass(1e6);
    while fleet.ask(caller(1, 1)) {}
    // Less than the script notices by itself.
    let before = fleet.now;
    fleet.now += 150e3;
    let known = 1.0;
    let answer = fleet.scripts.turn_sent_at((fleet.now, before), caller(1, 1), known, fleet.limits);
    assert_eq!(answer.verdict, Verdict::Late, "the caller does not know the new time yet");
    fleet.scripts.tell_of_a_set_clock(fleet.now, "a");
    assert!(!fleet.ask(caller(1, 1)));
    let granted = granted_in_a_second(&mut fleet);
    assert!((15..=20).contains(&granted), "{granted}");
}

#[tokio::test]
async fn the_state_of_an_org_is_deleted_after_a_day_without_a_call() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    let day = 24.0 * 3600e6;
    fleet.ask(caller(1, 1));
    fleet.now += day - 1.0;
    assert_eq!(fleet.scripts.forget(fleet.now, day), 0);
    fleet.now += 1.0;
    assert_eq!(fleet.scripts.forget(fleet.now, day), 1);
    let state = fleet.scripts.state();
    assert!(state.budget.is_none() && state.called.is_none() && state.members.len() == 1);
}
