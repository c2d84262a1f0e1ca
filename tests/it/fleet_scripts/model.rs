//! The scripts of the upstream budget in Rust: the state that they keep, and each call as a function of the time.

use std::collections::BTreeMap;

use super::sorted_set::SortedSet;

pub(super) const LEASE: f64 = 750e3;
pub(super) const FORGET: f64 = 60e6;
/// No beat for this long means that the server's clock, or the server, stood still or jumped.
pub(super) const SILENT: f64 = 200e3;
/// The number of the server.
pub(super) const SERVER: u8 = 7;
const POLL: f64 = 200e3;
const GONE: f64 = 400e3;
const PASS: f64 = 40e3;
const URGENCY: f64 = 4_503_599_627_370_496.0; // 2^52
const SEQUENCE: f64 = 1_048_576.0; // 2^20

/// Settings of a budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) interval: f64,
    /// In intervals.
    pub(super) tolerance: f64,
    pub(super) replicas: f64,
    pub(super) longest_wait: f64,
}

/// A flow as a turn is asked for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flow {
    pub(super) is_background: bool,
    pub(super) credential: u8,
    pub(super) account: u8,
    /// Request time of the entry that is renewed; 0 for callers.
    pub(super) renews: f64,
}

impl Flow {
    pub(super) fn urgency(self) -> &'static str {
        if self.is_background { "b" } else { "f" }
    }

    fn credential_name(self) -> String {
        format!("{}:{}", self.urgency(), self.credential)
    }

    fn name(self) -> String {
        format!("{}:{}", self.credential_name(), self.account)
    }
}

/// The state of an org's budget. All times are in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Budget {
    pub(super) arrival: f64,
    pub(super) held: f64,
    pub(super) pace: f64,
    pub(super) born: Option<f64>,
    pub(super) sequence: Option<f64>,
    pub(super) at: f64,
    /// The end of the last gap between beats, and the server.
    pub(super) gap: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Wait,
    Later,
    Late,
}

/// The answer of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Turn {
    pub(super) verdict: Verdict,
    pub(super) wait: f64,
    pub(super) now: f64,
    pub(super) held_for: f64,
    pub(super) pace: f64,
    pub(super) expected: f64,
    pub(super) arrival: f64,
}

/// All keys of a fleet with one org.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) budget: Option<Budget>,
    pub(super) queue: SortedSet,
    pub(super) expected: SortedSet,
    pub(super) rounds: SortedSet,
    /// Of each waiting flow: the request time of the oldest entry that is renewed, and until when it goes first.
    pub(super) oldest: BTreeMap<String, (f64, f64)>,
    pub(super) members: SortedSet,
    pub(super) gap: Option<f64>,
    pub(super) called: Option<f64>,
}

impl Model {
    /// A beat of a replica; returns the numbers of known and live members.
    pub(super) fn beat(&mut self, now: f64, replica: &str) -> (usize, usize) {
        let latest = self.members.scores().rfind(|end| *end <= now + LEASE);
        if latest.is_none_or(|end| now + LEASE - end > SILENT) {
            self.gap = Some(now);
        }
        self.members.add(replica, now + LEASE);
        self.members.remove_scores(f64::MIN, now - FORGET + 1.0);
        for (end, other) in self.members.entries().to_vec() {
            if end > now + LEASE {
                self.members.add(&other, now + LEASE);
            }
        }
        (self.members.len(), self.members.scores().filter(|end| *end >= now).count())
    }

    pub(super) fn turn(&mut self, now: f64, flow: Flow, last_known: f64, limits: Limits) -> Turn {
        let mut budget = self.budget_at(now, limits);
        let cost = self.cost(now, &budget, last_known, limits);
        let tolerance = limits.tolerance * limits.interval;
        budget.arrival = budget.arrival.min(now.max(budget.held) + tolerance + cost);
        self.drop_gone(now);
        let name = flow.name();
        let place = self.place(flow, budget.sequence.unwrap_or(0.0));
        let in_front = match &place {
            Place::Held(rank) => *rank,
            Place::New { score, .. } => self.queue.scores().filter(|other| other < score).count(),
        } as f64;
        let is_behind = self.is_behind(now, flow);
        let reserve = if flow.is_background { cost.min(tolerance) } else { 0.0 };
        let first = (budget.arrival + reserve - tolerance).max(budget.held);
        let slots = if first <= now { ((now - first) / cost).floor() + 1.0 } else { 0.0 };
        let pass = PASS.min(tolerance.max(limits.interval) / 2.0);
        let passes = slots > 0.0 && now - first >= pass * (in_front - slots + 1.0);
        let (verdict, wait) = if !is_behind && (in_front < slots || passes) {
            budget.arrival = budget.arrival.max(now) + cost;
            budget.pace = (budget.pace + 10.0).min(1000.0);
            self.queue.remove(&name);
            self.expected.remove(&name);
            self.oldest.remove(&name);
            if let Place::New { round, .. } = place {
                self.rounds.add(&flow.credential_name(), round);
            }
            (Verdict::Go, cost)
        } else {
            let own = first + in_front * cost - now;
            let wait = if slots > 0.0 { own.min(first + pass * (in_front - slots + 1.0) - now) } else { own };
            let wait = if is_behind { wait.max(cost) } else { wait };
            (if wait > limits.longest_wait { Verdict::Later } else { Verdict::Wait }, wait)
        };
        let keeps_place = match (verdict, &place) {
            (Verdict::Go | Verdict::Late, _) | (Verdict::Later, Place::New { .. }) => false,
            (Verdict::Wait | Verdict::Later, Place::Held(_)) => true,
            (Verdict::Wait, Place::New { score, round }) => {
                self.queue.add(&name, *score);
                self.rounds.add(&flow.credential_name(), *round);
                budget.sequence = budget.sequence.map(|sequence| sequence + 1.0);
                true
            }
        };
        let expected = if keeps_place { now + POLL.min(wait.ceil()) } else { 0.0 };
        if keeps_place {
            self.expect(now, flow, expected);
        }
        let answer = Turn {
            verdict,
            wait: wait.ceil(),
            now,
            held_for: (budget.held - now).max(0.0).ceil(),
            pace: budget.pace,
            expected,
            arrival: (budget.arrival - now).max(0.0).ceil(),
        };
        self.save(now, budget);
        answer
    }

    /// Returns how long the fleet is held, and the rate factor.
    pub(super) fn hold(&mut self, now: f64, pause: f64, limits: Limits) -> (f64, f64) {
        let mut budget = self.budget.clone().unwrap_or(Budget {
            arrival: 0.0,
            held: 0.0,
            pace: 1000.0,
            born: None,
            sequence: None,
            at: now,
            gap: None,
        });
        if budget.follow_clock_back(now) > 0.0 {
            budget.born = None;
        }
        if budget.held < now {
            budget.pace = (budget.pace / 2.0).floor().max(100.0);
        }
        budget.held = budget.held.max(now + pause);
        budget.arrival = budget.arrival.max(budget.held + limits.tolerance * limits.interval);
        let answer = ((budget.held - now).ceil(), budget.pace);
        self.save(now, budget);
        answer
    }

    /// Returns whether the place and the request were given back.
    pub(super) fn give_back(
        &mut self,
        now: f64,
        flow: Flow,
        expected: f64,
        granted: Option<f64>,
        interval: f64,
    ) -> (bool, bool) {
        let name = flow.name();
        let mut has_place = false;
        if self.expected.score(&name) == Some(expected) {
            self.expected.remove(&name);
            self.oldest.remove(&name);
            self.rounds.decrement(&flow.credential_name());
            has_place = self.queue.remove(&name);
        }
        let mut is_returned = false;
        if let (Some(granted), Some(budget)) = (granted, &mut self.budget) {
            let is_current = budget.at <= now && budget.held <= now && budget.born.is_some_and(|born| born <= granted);
            is_returned = is_current && (granted..=granted + interval).contains(&now);
            if is_returned {
                budget.arrival = (budget.arrival - interval).round_ties_even();
                budget.at = now;
            }
        }
        (has_place, is_returned)
    }

    /// Returns the number of orgs that were deleted.
    pub(super) fn forget(&mut self, now: f64, idle: f64) -> usize {
        let is_idle = self.called.is_some_and(|called| called <= now - idle);
        if is_idle {
            let (members, gap) = (std::mem::take(&mut self.members), self.gap);
            *self = Self { members, gap, ..Self::default() };
        }
        usize::from(is_idle)
    }

    /// The budget as it is now, after the clock jumped or state was lost.
    fn budget_at(&mut self, now: f64, limits: Limits) -> Budget {
        let gap = format!("{:.0}:{SERVER}", self.gap.unwrap_or(0.0));
        let mut budget = self.budget.clone();
        if let Some(budget) = &mut budget
            && budget.follow_clock_back(now) > SILENT
        {
            self.queue.clear();
            self.expected.clear();
            self.rounds.clear();
            self.oldest.clear();
            for (end, replica) in self.members.entries().to_vec() {
                if end > now + LEASE {
                    self.members.add(&replica, now);
                }
            }
        }
        let latest = self.members.scores().rfind(|end| *end <= now + LEASE);
        let is_silent = latest.is_none_or(|end| now + LEASE - end > SILENT);
        let is_lost = |budget: &Budget| budget.born.is_none() || budget.gap.as_ref() != Some(&gap) || is_silent;
        let mut budget = match budget {
            Some(budget) if !is_lost(&budget) => return budget,
            Some(budget) => budget,
            None => {
                Budget { arrival: 0.0, held: 0.0, pace: 1000.0, born: None, sequence: Some(0.0), at: now, gap: None }
            }
        };
        if budget.held > budget.at && now > budget.at {
            budget.held += now - budget.at;
        }
        let spent = now.max(budget.held) + limits.tolerance * limits.interval + limits.interval;
        Budget {
            arrival: budget.arrival.max(spent),
            born: Some(now),
            sequence: Some(budget.sequence.unwrap_or(0.0)),
            gap: Some(gap),
            ..budget
        }
    }

    /// The cost of one request: the interval, in the share of the live members.
    fn cost(&self, now: f64, budget: &Budget, last_known: f64, limits: Limits) -> f64 {
        let live = self.members.scores().filter(|end| (now..=now + LEASE).contains(end)).count() as f64;
        let recent = budget.born.is_some_and(|born| now < born + FORGET);
        let known = live.max(self.members.len() as f64).max(if recent { last_known } else { 1.0 });
        let known = known.min(live.max(limits.replicas));
        limits.interval * known / live.max(1.0) * 1000.0 / budget.pace
    }

    fn drop_gone(&mut self, now: f64) {
        let gone: Vec<String> = self
            .expected
            .entries()
            .iter()
            .map_while(|(expected, flow)| (*expected <= now - GONE).then(|| flow.clone()))
            .collect();
        for flow in gone.into_iter().take(32) {
            self.queue.remove(&flow);
            self.expected.remove(&flow);
            self.oldest.remove(&flow);
            let (credential, _) = flow.rsplit_once(':').expect("a flow has an account");
            self.rounds.decrement(credential);
        }
    }

    /// Expects that the flow asks again at a time.
    fn expect(&mut self, now: f64, flow: Flow, expected: f64) {
        self.expected.add(&flow.name(), expected);
        if flow.is_background && !self.is_behind(now, flow) {
            self.oldest.insert(flow.name(), (flow.renews, now + POLL + PASS));
        }
    }

    /// Returns whether a replica that still asks renews an older entry of the flow.
    fn is_behind(&self, now: f64, flow: Flow) -> bool {
        let is_older = |(oldest, till): &(f64, f64)| (now..=now + POLL + PASS).contains(till) && *oldest < flow.renews;
        flow.is_background && self.oldest.get(&flow.name()).is_some_and(is_older)
    }

    fn place(&mut self, flow: Flow, sequence: f64) -> Place {
        if let Some(rank) = self.queue.rank(&flow.name()) {
            return Place::Held(rank);
        }
        let base = if flow.is_background { URGENCY } else { 0.0 };
        let rounds = base / SEQUENCE;
        let head = self.queue.scores().find(|score| (base..base + URGENCY).contains(score));
        let served = head.map(|head| rounds + ((head - base) / SEQUENCE).floor());
        let last = self.rounds.score(&flow.credential_name());
        let round = served.map_or(rounds, |served| served.max(last.map_or(0.0, |last| last + 1.0)));
        self.rounds.remove_scores(rounds, served.unwrap_or(rounds + URGENCY / SEQUENCE));
        Place::New { score: base + (round - rounds) * SEQUENCE + sequence % SEQUENCE, round }
    }

    fn save(&mut self, now: f64, budget: Budget) {
        self.called = Some(now);
        self.budget = Some(Budget {
            arrival: budget.arrival.round_ties_even(),
            held: budget.held.round_ties_even(),
            at: now,
            ..budget
        });
    }
}

/// A flow's place in the queue.
enum Place {
    Held(usize),
    New { score: f64, round: f64 },
}

impl Budget {
    /// Moves all times back with the server's clock; returns by how much.
    fn follow_clock_back(&mut self, now: f64) -> f64 {
        let back = (self.at - now).max(0.0);
        self.arrival -= back;
        self.held -= back;
        self.born = self.born.map(|born| born - back);
        back
    }
}
