//! Random calls in any order, with lost keys and a clock that jumps: the scripts do what the model does, and the bound holds.

use proptest::prelude::*;

use super::model::{Flow, Limits, Model, Verdict};
use super::server::Scripts;

/// One step of a generated history.
#[derive(Clone, Debug)]
enum Event {
    /// The first replicas beat, and again every 90 ms, while this many milliseconds pass.
    Beating(usize, u16),
    /// The flows ask, and again every 10 ms, while this many milliseconds pass; the first replicas beat.
    Asking(usize, Vec<Flow>, u16),
    /// Time passes without a beat, in milliseconds.
    Silence(u32),
    Turn(Flow, u8),
    /// The upstream answers 429 and asks for a pause, in milliseconds.
    Hold(u32),
    /// The request that was granted last is not sent, and the flow gives its place back.
    GiveBack(Flow, bool),
    /// The clock is set forward or back, in milliseconds.
    Jump(i64),
    /// Keys are lost.
    Lose(&'static [&'static str]),
    Forget,
}

fn flow() -> impl Strategy<Value = Flow> {
    let flow = |(is_background, credential, account, renews)| {
        let renews = if is_background { f64::from(renews) } else { 0.0 };
        Flow { is_background, credential, account, renews }
    };
    (prop::bool::weighted(0.3), 0_u8..3, 0_u8..3, 0_u8..4).prop_map(flow)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    const LOST: [&[&str]; 8] = [
        &["up:org"],
        &["q:org"],
        &["seen:org", "rounds:org"],
        &["oldest:org"],
        &["m"],
        &["gap"],
        &["m", "gap"],
        &["up:org", "q:org", "seen:org", "rounds:org", "oldest:org", "m", "gap", "orgs"],
    ];
    let event = prop_oneof![
        4 => (1_usize..4, 0_u16..500).prop_map(|(replicas, millis)| Event::Beating(replicas, millis)),
        6 => (1_usize..4, prop::collection::vec(flow(), 1..6), 0_u16..700)
            .prop_map(|(replicas, flows, millis)| Event::Asking(replicas, flows, millis)),
        1 => prop_oneof![0_u32..100, 100_u32..3000, Just(70_000)].prop_map(Event::Silence),
        4 => (flow(), 1_u8..5).prop_map(|(flow, known)| Event::Turn(flow, known)),
        1 => prop_oneof![0_u32..1000, Just(10_000)].prop_map(Event::Hold),
        3 => (flow(), any::<bool>()).prop_map(|(flow, is_unsent)| Event::GiveBack(flow, is_unsent)),
        1 => prop_oneof![Just(3_600_000), Just(-3_600_000), Just(100_000_000), -2000_i64..0, 400_i64..2000]
            .prop_map(Event::Jump),
        1 => prop::sample::select(&LOST[..]).prop_map(Event::Lose),
        1 => Just(Event::Forget),
    ];
    prop::collection::vec(event, 1..40)
}

fn limits() -> impl Strategy<Value = (f64, f64, Limits)> {
    (prop::sample::select(&[1.0, 5.0, 20.0, 100.0][..]), 1_u8..8).prop_map(|(rate, burst)| {
        let limits = Limits {
            interval: (1.01e6_f64 / rate).round(),
            tolerance: (f64::from(burst) - 2.0).max(0.0),
            replicas: 4.0,
            longest_wait: 2e6,
        };
        (rate, f64::from(burst), limits)
    })
}

/// The scripts and the model in lockstep.
struct Run<'a> {
    scripts: &'a mut Scripts,
    model: Model,
    limits: Limits,
    /// Time that has really passed, and what the server's clock shows.
    elapsed: f64,
    clock: f64,
    /// When requests were sent, by the time that has passed.
    sent: Vec<f64>,
    /// The last grant by the server's clock, until it is given back.
    last_grant: Option<f64>,
    held_until: f64,
    beaten: f64,
}

impl Run<'_> {
    fn pass(&mut self, micros: f64) {
        self.elapsed += micros;
        self.clock += micros;
    }

    fn beat(&mut self, replicas: usize) -> Result<(), TestCaseError> {
        if self.elapsed - self.beaten >= 90e3 {
            self.beaten = self.elapsed;
            for replica in ["a", "b", "c"].iter().take(replicas) {
                prop_assert_eq!(self.scripts.beat(self.clock, replica), self.model.beat(self.clock, replica));
            }
        }
        Ok(())
    }

    fn turn(&mut self, flow: Flow, last_known: f64) -> Result<(), TestCaseError> {
        let answer = self.scripts.turn(self.clock, flow, last_known, self.limits);
        prop_assert_eq!(answer, self.model.turn(self.clock, flow, last_known, self.limits));
        if answer.verdict == Verdict::Go {
            prop_assert!(self.elapsed >= self.held_until, "a request is granted while the fleet is held");
            self.sent.push(self.elapsed);
            self.last_grant = Some(answer.now);
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Beating(replicas, millis) => {
                for _ in 0..=millis / 90 {
                    self.beat(replicas)?;
                    self.pass(90e3);
                }
            }
            Event::Asking(replicas, flows, millis) => {
                for _ in 0..=millis / 10 {
                    self.beat(replicas)?;
                    for flow in &flows {
                        self.turn(*flow, 3.0)?;
                    }
                    self.pass(10_013.0);
                }
            }
            Event::Silence(millis) => self.pass(f64::from(millis) * 1e3),
            Event::Turn(flow, known) => self.turn(flow, f64::from(known))?,
            Event::Hold(millis) => {
                let held = self.scripts.hold(self.clock, f64::from(millis) * 1e3, self.limits);
                prop_assert_eq!(held, self.model.hold(self.clock, f64::from(millis) * 1e3, self.limits));
                self.held_until = self.elapsed + held.0;
            }
            Event::GiveBack(flow, is_unsent) => self.give_back(flow, is_unsent)?,
            Event::Jump(millis) => self.clock += millis as f64 * 1e3,
            Event::Lose(keys) => self.lose(keys),
            Event::Forget => {
                let day = 86_400e6;
                prop_assert_eq!(self.scripts.forget(self.clock, day), self.model.forget(self.clock, day));
            }
        }
        if self.model.budget.is_none() {
            self.held_until = 0.0;
        }
        prop_assert_eq!(&self.scripts.state(), &self.model);
        Ok(())
    }

    fn give_back(&mut self, flow: Flow, is_unsent: bool) -> Result<(), TestCaseError> {
        let expected = self.model.expected.entries().iter().find(|(_, name)| name.starts_with(flow.urgency()));
        let expected = expected.map_or(0.0, |(expected, _)| *expected);
        let granted = self.last_grant.filter(|_| is_unsent);
        let interval = self.limits.interval;
        let given = self.scripts.give_back(self.clock, flow, expected, granted, interval);
        prop_assert_eq!(given, self.model.give_back(self.clock, flow, expected, granted, interval));
        if given.1 {
            self.sent.pop();
        }
        if is_unsent {
            self.last_grant = None;
        }
        Ok(())
    }

    fn lose(&mut self, keys: &[&str]) {
        for key in keys {
            self.scripts.delete(key);
            match *key {
                "up:org" => self.model.budget = None,
                "q:org" => self.model.queue.clear(),
                "seen:org" => self.model.expected.clear(),
                "rounds:org" => self.model.rounds.clear(),
                "oldest:org" => self.model.oldest.clear(),
                "m" => self.model.members.clear(),
                "gap" => self.model.gap = None,
                _ => self.model.called = None,
            }
        }
    }

    fn check_bound(&self, rate: f64, burst: f64) -> Result<(), TestCaseError> {
        for (index, first) in self.sent.iter().enumerate() {
            for (further, last) in self.sent[index..].iter().enumerate() {
                let allowed = burst + rate * (last - first) / 1e6;
                let sent = further as f64 + 1.0;
                prop_assert!(sent <= allowed, "{} requests in {} us, of {}", sent, last - first, allowed);
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn the_scripts_do_what_the_model_does_and_never_exceed_the_budget() {
    let Some(mut scripts) = Scripts::start().await else { return };
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let scripts = std::cell::RefCell::new(&mut scripts);
    let result = runner.run(&(limits(), events()), |((rate, burst, limits), events)| {
        let mut scripts = scripts.borrow_mut();
        scripts.flush();
        let mut run = Run {
            scripts: &mut scripts,
            model: Model::default(),
            limits,
            elapsed: 1e6,
            clock: 1.7e15,
            sent: Vec::new(),
            last_grant: None,
            held_until: 0.0,
            beaten: 0.0,
        };
        for event in events {
            run.step(event)?;
        }
        run.check_bound(rate, burst)
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
