//! Random fleets: the bound on what they grant, and the rate that they reach.

use std::num::NonZeroU32;

use postern::config::Rate;
use proptest::prelude::*;

use super::simulation::Simulation;

/// One step of a generated history.
#[derive(Clone, Debug)]
enum Event {
    /// So many milliseconds pass, in which each replica gets a request with these chances of a thousand.
    Requests(u16, Vec<u16>),
    /// A replica gets so many requests at once.
    Burst(usize, u32),
    CutOff(usize),
    Connect(usize),
    Pause,
    Resume,
    Flush,
    Start,
    Stop(usize, bool),
    /// No requests for so many seconds.
    Rest(u64),
}

fn rate(per_second: u32, burst: u32) -> Rate {
    let number = |number| NonZeroU32::new(number).expect("not zero");
    Rate { per_second: number(per_second), burst: number(burst) }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let chances = prop::collection::vec(prop_oneof![Just(0_u16), 0_u16..200, Just(1000)], 8);
    let event = prop_oneof![
        8 => (1_u16..1500, chances).prop_map(|(millis, chances)| Event::Requests(millis, chances)),
        3 => (0_usize..8, 1_u32..150).prop_map(|(replica, requests)| Event::Burst(replica, requests)),
        2 => (0_usize..8).prop_map(Event::CutOff),
        2 => (0_usize..8).prop_map(Event::Connect),
        1 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => Just(Event::Flush),
        1 => Just(Event::Start),
        1 => (0_usize..8, any::<bool>()).prop_map(|(replica, leaves)| Event::Stop(replica, leaves)),
        2 => (0_u64..300).prop_map(Event::Rest),
    ];
    prop::collection::vec(event, 1..40)
}

fn play(simulation: &mut Simulation, events: &[Event], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for event in events {
        match event {
            Event::Requests(millis, chances) => {
                for _ in 0..*millis {
                    let requests: Vec<u32> =
                        chances.iter().map(|chance| u32::from(random.u16(0..1000) < *chance)).collect();
                    simulation.step(&requests);
                }
            }
            Event::Burst(replica, requests) => {
                let replica = replica % simulation.count();
                let requests: Vec<u32> = (0..=replica).map(|at| if at == replica { *requests } else { 0 }).collect();
                simulation.step(&requests);
            }
            Event::CutOff(replica) => simulation.set_cut_off(*replica, true),
            Event::Connect(replica) => simulation.set_cut_off(*replica, false),
            Event::Pause => simulation.set_paused(true),
            Event::Resume => simulation.set_paused(false),
            Event::Flush => simulation.flush(),
            Event::Start => simulation.start(),
            Event::Stop(replica, leaves) => simulation.stop(*replica, *leaves),
            Event::Rest(seconds) => simulation.rest(seconds * 1000),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_window_grants_a_fleet_more_than_burst_and_rate(
        (per_second, burst) in prop_oneof![
            Just((50, 100)), (1_u32..100, 10_u32..200), (1_u32..5, 3_u32..12), Just((200, 60)),
        ],
        (most, count) in (1_u32..9).prop_flat_map(|most| (Just(most), 1..=most)),
        longest_delay in prop_oneof![Just(0_u64), 0_u64..20, 0_u64..60],
        events in events(),
        seed in any::<u64>(),
    ) {
        let mut simulation = Simulation::new(rate(per_second, burst), (count, most), longest_delay, seed);
        play(&mut simulation, &events, seed);
        // The clock of this simulation has whole milliseconds.
        let rounding = f64::from(per_second) / 1000.0 + 1e-6;
        prop_assert!(simulation.worst_excess() <= rounding, "{}", simulation.worst_excess());
    }
}

/// Which replicas of a fleet of four get requests.
type Asked = fn(usize) -> bool;

const ALL: Asked = |_| true;
const CONNECTED: Asked = |replica| replica < 2;
const CUT_OFF: Asked = |replica| replica >= 2;
const NONE: Asked = |_| false;

/// Far more requests than the rate, for so many milliseconds.
fn rush(simulation: &mut Simulation, millis: u32, asked: Asked) {
    let requests: Vec<u32> = (0..4).map(|replica| u32::from(asked(replica))).collect();
    (0..millis).for_each(|_| simulation.step(&requests));
}

/// The largest excess of fleets of four that go through a history, with full budgets and leases at its begin.
fn excess_after(history: impl Fn(&mut Simulation)) -> f64 {
    let excess = |(per_second, burst): (u32, u32)| {
        let mut simulation = Simulation::new(rate(per_second, burst), (4, 4), 3, 1);
        rush(&mut simulation, 200, NONE);
        // Long enough for a full credit.
        simulation.rest(300_000);
        simulation.step(&[1, 1, 1, 1]);
        rush(&mut simulation, 1000 * burst / per_second, NONE);
        // Half of a lease is used, so that it is refilled, and the server knows that its bucket is full.
        simulation.step(&[burst / 32 + 1]);
        rush(&mut simulation, 1000, NONE);
        history(&mut simulation);
        simulation.worst_excess()
    };
    [(50, 100), (5, 300)].into_iter().map(excess).fold(f64::MIN, f64::max)
}

fn cut_off_half(simulation: &mut Simulation, is_cut_off: bool) {
    (2..4).for_each(|replica| simulation.set_cut_off(replica, is_cut_off));
}

#[test]
fn replicas_that_are_cut_off_leave_the_others_their_share_only() {
    let excess = excess_after(|fleet| {
        cut_off_half(fleet, true);
        rush(fleet, 6000, ALL);
        cut_off_half(fleet, false);
        rush(fleet, 3000, ALL);
    });
    assert!(excess <= 0.05, "{excess}");
}

#[test]
fn the_share_of_replicas_that_come_back_is_not_granted_again() {
    let excess = excess_after(|fleet| {
        cut_off_half(fleet, true);
        rush(fleet, 1400, CONNECTED);
        rush(fleet, 1200, CUT_OFF);
        cut_off_half(fleet, false);
        rush(fleet, 20, NONE);
        rush(fleet, 500, ALL);
    });
    assert!(excess <= 0.05, "{excess}");
}

#[test]
fn a_lease_is_not_spent_again_after_an_outage() {
    let excess = excess_after(|fleet| {
        fleet.set_paused(true);
        rush(fleet, 1400, NONE);
        rush(fleet, 100, ALL);
        fleet.set_paused(false);
        rush(fleet, 500, ALL);
    });
    assert!(excess <= 0.05, "{excess}");
}

#[test]
fn a_replica_that_is_alone_begins_with_no_more_than_it_holds() {
    let excess = excess_after(|fleet| {
        rush(fleet, 300, ALL);
        fleet.set_paused(true);
        rush(fleet, 1400, NONE);
        rush(fleet, 500, ALL);
    });
    assert!(excess <= 0.05, "{excess}");
}

#[test]
fn a_server_that_lost_its_state_grants_its_bucket_once_more() {
    let excess = excess_after(|fleet| {
        rush(fleet, 300, ALL);
        fleet.flush();
        rush(fleet, 2000, ALL);
    });
    assert!(excess <= 0.05, "{excess}");
}

#[test]
fn the_first_requests_of_a_budget_wait_for_no_server_and_are_within_the_burst() {
    let mut simulation = Simulation::new(rate(50, 100), (4, 4), 3, 1);
    rush(&mut simulation, 200, NONE);
    simulation.rest(300_000);
    simulation.step(&[3, 3, 3, 3]);
    assert_eq!(simulation.granted.len(), 12, "three each, at once");
    rush(&mut simulation, 1000, ALL);
    assert!(simulation.worst_excess() <= 0.05, "{}", simulation.worst_excess());
    assert!(simulation.worst_excess() > -30.0, "all but the leases");
}

/// Requests that a fleet of four refuses in the second after its server stands still, if it is asked for less than its rate.
fn refused_without_an_answer(per_second: u32, burst: u32) -> u64 {
    let mut simulation = Simulation::new(rate(per_second, burst), (4, 4), 3, 1);
    rush(&mut simulation, 2000, NONE);
    simulation.set_paused(true);
    let pause = 4000 / per_second + 1;
    for millis in 0..1000 {
        let asked = u32::from(millis % pause == 0);
        simulation.step(&[asked; 4]);
    }
    simulation.refused
}

#[test]
fn no_request_within_the_share_is_refused_while_the_state_is_unclear() {
    for (per_second, burst) in [(50, 100), (1, 60), (5, 3), (20, 10)] {
        assert_eq!(refused_without_an_answer(per_second, burst), 0, "{per_second} {burst}");
    }
}

#[test]
fn restarted_replicas_add_nothing_to_a_burst() {
    let excess = excess_after(|fleet| {
        rush(fleet, 300, ALL);
        for _ in 0..4 {
            fleet.stop(0, true);
            fleet.start();
        }
        rush(fleet, 1000, ALL);
    });
    assert!(excess <= 0.05, "{excess}");
}

/// Requests that a fleet of 8 grants in 20 s, and the least that is expected, 0.9 of the rate.
fn served((per_second, burst): (u32, u32), is_asked: impl Fn(usize) -> bool) -> (usize, usize) {
    let mut simulation = Simulation::new(rate(per_second, burst), (8, 8), 3, 7);
    (0..1000).for_each(|_| simulation.step(&[]));
    let mut random = fastrand::Rng::with_seed(7);
    let asked = (0..8).filter(|replica| is_asked(*replica)).count();
    // Three times the rate.
    let chance = 3.0 * f64::from(per_second) / 1000.0 / f64::from(u32::try_from(asked).expect("few"));
    for _ in 0..20_000 {
        let ask = |replica| u32::from(is_asked(replica) && random.f64() < chance);
        let requests: Vec<u32> = (0..8).map(ask).collect();
        simulation.step(&requests);
    }
    let expected = usize::try_from(per_second).expect("small") * 18;
    (simulation.granted.len(), expected)
}

#[test]
fn a_fleet_serves_its_rate_when_it_is_asked_evenly_or_on_one_replica() {
    for budget in [(50, 100), (20, 10), (5, 3), (100, 200), (2, 40)] {
        for (granted, expected) in [served(budget, |_| true), served(budget, |replica| replica == 5)] {
            assert!(granted >= expected, "{budget:?}: {granted} of {expected}");
        }
    }
}
