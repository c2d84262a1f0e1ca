//! In which order the fleet serves the flows that wait.

use super::model::{Flow, Limits, Verdict};
use super::server::Scripts;

pub(super) const LIMITS: Limits = Limits { interval: 50_500.0, tolerance: 3.0, replicas: 4.0, longest_wait: 60e6 };

/// The scripts, and the time at the server.
pub(super) struct Fleet {
    pub(super) scripts: Scripts,
    pub(super) now: f64,
    /// The replicas that beat.
    pub(super) replicas: Vec<&'static str>,
    pub(super) limits: Limits,
}

impl Fleet {
    /// A fleet whose budget has no burst left.
    pub(super) async fn start(replicas: &[&'static str]) -> Option<Self> {
        let scripts = Scripts::start().await?;
        let mut fleet = Self { scripts, now: 1.7e15, replicas: replicas.to_vec(), limits: LIMITS };
        fleet.beat();
        fleet.granted(&[caller(9, 9)], 1);
        Some(fleet)
    }

    pub(super) fn beat(&mut self) {
        for replica in &self.replicas {
            self.scripts.beat(self.now, replica);
        }
    }

    /// Passes time, in which the replicas beat.
    pub(super) fn pass(&mut self, micros: f64) {
        let end = self.now + micros;
        while self.now < end {
            self.now = (self.now + 50e3).min(end);
            self.beat();
        }
    }

    /// Asks for a request of a flow; returns whether it is granted.
    pub(super) fn ask(&mut self, flow: Flow) -> bool {
        let known = self.replicas.len() as f64;
        self.scripts.turn(self.now, flow, known, self.limits).verdict == Verdict::Go
    }

    /// Lets the flows ask every 5 ms, in this order, until so many requests are granted.
    pub(super) fn granted(&mut self, flows: &[Flow], requests: usize) -> Vec<Flow> {
        let mut granted = Vec::new();
        for _ in 0..100_000 {
            for flow in flows {
                if granted.len() == requests {
                    return granted;
                }
                if self.ask(*flow) {
                    granted.push(*flow);
                }
            }
            self.pass(5e3);
        }
        panic!("only {} requests are granted", granted.len());
    }
}

pub(super) fn caller(credential: u8, account: u8) -> Flow {
    Flow { is_background: false, credential, account, renews: 0.0 }
}

fn renewal(credential: u8, account: u8) -> Flow {
    Flow { is_background: true, credential, account, renews: 1e15 }
}

fn count(granted: &[Flow], wanted: impl Fn(&Flow) -> bool) -> usize {
    granted.iter().filter(|flow| wanted(flow)).count()
}

#[tokio::test]
async fn a_key_with_many_accounts_has_no_more_turns_than_one_with_one() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    let mut flows: Vec<_> = (0..50).map(|account| caller(1, account)).collect();
    flows.push(caller(2, 0));
    let granted = fleet.granted(&flows, 20);
    assert!((9..=11).contains(&count(&granted, |flow| flow.credential == 2)), "{granted:?}");
}

#[tokio::test]
async fn the_accounts_of_a_key_take_turns() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    // Three replicas ask for the noisy account, one for each of the others.
    let noisy = caller(1, 1);
    let granted = fleet.granted(&[noisy, noisy, noisy, caller(1, 2), caller(1, 3)], 30);
    for account in 1..=3 {
        assert_eq!(count(&granted, |flow| flow.account == account), 10, "{granted:?}");
    }
}

#[tokio::test]
async fn callers_go_before_renewals() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    let renewals = [renewal(1, 1), renewal(1, 2)];
    assert!(renewals.iter().all(|flow| !fleet.ask(*flow)), "they wait, and were here first");
    let granted = fleet.granted(&[renewals[0], renewals[1], caller(2, 1)], 10);
    assert_eq!(count(&granted, |flow| flow.is_background), 0, "{granted:?}");
    let granted = fleet.granted(&renewals, 10);
    assert_eq!(count(&granted, |flow| flow.account == 1), 5, "alone they have the whole rate and take turns");
}

#[tokio::test]
async fn of_the_renewals_of_an_account_the_oldest_goes_first_on_whatever_replica() {
    let Some(mut fleet) = Fleet::start(&["a", "b", "c"]).await else { return };
    let of_age = |age: f64| Flow { renews: 1e15 - age, ..renewal(1, 1) };
    let (young, old, other) = (of_age(1e6), of_age(3e6), renewal(1, 2));
    assert!([old, young, other].iter().all(|flow| !fleet.ask(*flow)), "they wait");
    // The replica of the young one asks before that of the old one each time.
    let granted = fleet.granted(&[young, old, other], 2);
    assert!(granted.contains(&old) && granted.contains(&other), "{granted:?}");
    // The replica of the old one is gone after it has asked: the others go on when it was silent for 240 ms.
    assert!(!fleet.ask(old));
    let before = fleet.now;
    assert_eq!(fleet.granted(&[young], 1), [young]);
    assert!((200e3..400e3).contains(&(fleet.now - before)), "{}", fleet.now - before);
}

#[tokio::test]
async fn a_flow_that_comes_late_is_passed_over_after_40_ms_and_keeps_its_place() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    let (first, second) = (caller(1, 1), caller(2, 1));
    let wait = fleet.scripts.turn(fleet.now, first, 1.0, LIMITS).wait;
    assert!(!fleet.ask(second));
    fleet.pass(wait);
    assert!(!fleet.ask(second), "the first one may still come");
    fleet.pass(39e3);
    assert!(!fleet.ask(second));
    fleet.pass(1e3);
    assert!(fleet.ask(second));
    assert!(!fleet.ask(second));
    fleet.pass(10_500.0);
    assert!(!fleet.ask(second) && fleet.ask(first), "it has the next slot");
}

#[tokio::test]
async fn replicas_that_poll_often_or_late_gain_nothing_over_each_other() {
    let Some(mut fleet) = Fleet::start(&["a", "b", "c"]).await else { return };
    let flows = [caller(1, 1), caller(2, 1), caller(3, 1)];
    let (mut due, mut granted) = ([fleet.now; 3], [0_u32; 3]);
    for _ in 0..10_000 {
        for (replica, flow) in flows.into_iter().enumerate() {
            if due[replica] <= fleet.now {
                let answer = fleet.scripts.turn(fleet.now, flow, 3.0, LIMITS);
                granted[replica] += u32::from(answer.verdict == Verdict::Go);
                // The first one asks every 7 ms, the second every 26 ms, the third 30 ms later than it is told.
                let pauses = [7e3, 26e3, if answer.verdict == Verdict::Go { 1e3 } else { answer.wait + 30e3 }];
                due[replica] = fleet.now + pauses[replica];
            }
        }
        fleet.pass(1e3);
    }
    let (least, most) = (granted.iter().min(), granted.iter().max());
    assert!(
        granted.iter().sum::<u32>() >= 195 && most.zip(least).is_some_and(|(most, least)| most - least <= 4),
        "{granted:?}"
    );
}

#[tokio::test]
async fn a_place_is_lost_400_ms_after_it_was_not_used_or_when_it_is_given_back() {
    let Some(mut fleet) = Fleet::start(&["a"]).await else { return };
    let (gone, leaving) = (caller(1, 1), caller(2, 1));
    fleet.ask(gone);
    let answer = fleet.scripts.turn(fleet.now, leaving, 1.0, LIMITS);
    assert_eq!(fleet.scripts.state().queue.len(), 2);
    assert_eq!(fleet.scripts.give_back(fleet.now, leaving, answer.expected - 1.0, None, 0.0), (false, false));
    assert_eq!(fleet.scripts.give_back(fleet.now, leaving, answer.expected, None, 0.0), (true, false));
    assert_eq!(fleet.scripts.state().queue.len(), 1, "the other replica's place stays, if it asked later");
    fleet.pass(460e3);
    assert!(fleet.ask(caller(3, 1)));
    assert_eq!(fleet.scripts.state().queue.len(), 0);
}
