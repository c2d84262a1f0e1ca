//! Executions, each computed from the seed, the linked account and its number, so that 25,000 of them take no memory.
//!
//! Times are in milliseconds since 1970.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock::lock;

/// Linked accounts with a fixed size: id, executions at the start, and milliseconds between new ones (0: none are added).
pub(super) const PRESET_ACCOUNTS: [(&str, u32, i64); 7] = [
    ("acme-1", 137, 20_000),
    ("acme-2", 25, 0),
    ("globex", 2_480, 5_000),
    ("initech", 312, 0),
    ("umbrella@example.com", 7, 60_000),
    ("empty", 0, 0),
    ("whale", 25_000, 1_000),
];

/// Id and name.
const WORKFLOWS: [(&str, &str); 6] = [
    ("64f7258e35b72267edc02589", "Post message to a channel"),
    ("65200cfd01af0388e905ad92", "Sync contacts"),
    ("65200cfd01af0388e905ad93", "Create invoice"),
    ("65200cfd01af0388e905ad94", "Nightly export"),
    ("65200cfd01af0388e905ad95", "Enrich lead"),
    ("65200cfd01af0388e905ad96", "Close ticket"),
];
/// Name, slug and id.
const APPLICATIONS: [(&str, &str, &str); 5] = [
    ("Slack", "slack", "64f6d9f33234d3d6419cfdbc"),
    ("HubSpot", "hubspot", "64f6d9f33234d3d6419cfdbd"),
    ("Stripe", "stripe", "64f6d9f33234d3d6419cfdbe"),
    ("Google Sheets", "google_sheets", "64f6d9f33234d3d6419cfdbf"),
    ("Zendesk", "zendesk", "64f6d9f33234d3d6419cfdc0"),
];
/// Time that an execution has the status `STOPPING`, in milliseconds.
const STOPPING_TIME: i64 = 3_000;
/// Upper bound of the time from the beginning of an execution to its end, in milliseconds.
const MAX_DURATION: i64 = 95_000;
/// Number of the first rerun of a linked account; the others follow.
const FIRST_RERUN: u32 = 1 << 31;

/// The executions of all linked accounts.
#[derive(Debug)]
pub(super) struct History {
    seed: u64,
    /// Start of the simulation. Initial executions are older, new ones arrive later.
    started: i64,
    /// Stops and reruns by the key of the linked account.
    actions: Mutex<HashMap<u64, CallerActions>>,
}

/// The stops and reruns that callers requested for one linked account.
#[derive(Clone, Debug, Default)]
struct CallerActions {
    /// Time of the stop by number of the execution.
    stopped: HashMap<u32, i64>,
    /// Time at which each rerun began.
    reruns: Vec<i64>,
}

/// A linked account, with the stops and reruns up to the moment when it was looked up.
#[derive(Debug)]
pub(super) struct SimulatedAccount {
    /// Hash of the seed and the id.
    key: u64,
    /// Number of executions at the start of the simulation.
    initial: u32,
    /// Time between new executions; 0 if none are added.
    interval: i64,
    started: i64,
    actions: CallerActions,
}

/// An execution at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimulatedExecution {
    pub(super) number: u32,
    pub(super) created: i64,
    pub(super) finished: Option<i64>,
    /// Time of the last change of `status`.
    pub(super) changed: i64,
    pub(super) status: &'static str,
    pub(super) source: &'static str,
    pub(super) kind: &'static str,
    pub(super) workflow: (&'static str, &'static str),
    pub(super) application: (&'static str, &'static str, &'static str),
    hash: u64,
    account_key: u64,
}

/// Status of an execution, and the times that follow from it.
struct ExecutionState {
    status: &'static str,
    finished: Option<i64>,
    changed: i64,
}

/// Mixes two words to a pseudorandom one with the finalizer of splitmix64.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl History {
    pub(super) fn new(seed: u64, started: i64) -> Self {
        Self { seed, started, actions: Mutex::default() }
    }

    /// Returns the linked account with an id. Every id has one; those that are not preset are small.
    pub(super) fn account(&self, id: &str) -> SimulatedAccount {
        let key = id.bytes().fold(mix(self.seed, 0), |key, byte| mix(key, u64::from(byte)));
        let (initial, interval) = PRESET_ACCOUNTS.iter().find(|(name, ..)| *name == id).map_or_else(
            || (u32::try_from(3 + key % 58).unwrap_or(3), if key & 64 == 0 { 0 } else { 30_000 }),
            |(_, initial, interval)| (*initial, *interval),
        );
        let actions = lock(&self.actions).get(&key).cloned().unwrap_or_default();
        SimulatedAccount { key, initial, interval, started: self.started, actions }
    }

    /// Stops an execution.
    pub(super) fn stop(&self, account: &SimulatedAccount, number: u32, now: i64) {
        lock(&self.actions).entry(account.key).or_default().stopped.insert(number, now);
    }

    /// Adds a new execution, a rerun, to the linked account with this id, and returns the execution.
    pub(super) fn rerun(&self, id: &str, now: i64) -> Option<SimulatedExecution> {
        let account = self.account(id);
        lock(&self.actions).entry(account.key).or_default().reruns.push(now);
        let account = self.account(id);
        let number = FIRST_RERUN + u32::try_from(account.actions.reruns.len()).ok()? - 1;
        account.execution(number, now)
    }
}

impl SimulatedAccount {
    /// Number of executions, reruns included.
    pub(super) fn total(&self, now: i64) -> u32 {
        self.arrived(now) + u32::try_from(self.actions.reruns.len()).unwrap_or_default()
    }

    /// Number of executions without reruns.
    fn arrived(&self, now: i64) -> u32 {
        let added = if self.interval == 0 { 0 } else { (now - self.started).max(0) / self.interval };
        self.initial + u32::try_from(added).unwrap_or_default()
    }

    /// Returns the numbers of all executions, newest first.
    pub(super) fn numbers(&self, now: i64) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.arrived(now)).rev().collect();
        if !self.actions.reruns.is_empty() {
            let reruns = (FIRST_RERUN..).take(self.actions.reruns.len());
            numbers.extend(reruns);
            numbers.sort_by_key(|number| std::cmp::Reverse((self.created(*number), *number)));
        }
        numbers
    }

    /// Returns when an execution began. Initial ones are about half an hour apart, in the order of their numbers.
    fn created(&self, number: u32) -> i64 {
        const SPACING: i64 = 30 * 60 * 1000;
        if number >= FIRST_RERUN {
            return self.actions.reruns.get((number - FIRST_RERUN) as usize).copied().unwrap_or(self.started);
        }
        if number >= self.initial {
            return self.started + i64::from(number - self.initial + 1) * self.interval;
        }
        let jitter = (mix(self.key, u64::from(number)) >> 8) % (SPACING.unsigned_abs() / 2);
        self.started - i64::from(self.initial - number) * SPACING + jitter.cast_signed()
    }

    /// Returns the execution with a number, if it has begun.
    pub(super) fn execution(&self, number: u32, now: i64) -> Option<SimulatedExecution> {
        let exists = match number.checked_sub(FIRST_RERUN) {
            Some(rerun) => (rerun as usize) < self.actions.reruns.len(),
            None => number < self.arrived(now),
        };
        if !exists {
            return None;
        }
        let hash = mix(self.key, u64::from(number) | 1 << 40);
        let created = self.created(number);
        let ExecutionState { status, finished, changed } = match self.actions.stopped.get(&number) {
            Some(stopped) => ExecutionState { status: "STOPPED", finished: Some(*stopped), changed: *stopped },
            None => progress(hash, created, now),
        };
        Some(SimulatedExecution {
            number,
            created,
            finished,
            changed,
            status,
            source: ["Event", "Event", "Schedule", "API Call"][(hash >> 16 & 3) as usize],
            kind: ["SYNC", "ASYNC"][(hash >> 18 & 1) as usize],
            workflow: WORKFLOWS[((hash >> 20) % 6) as usize],
            application: APPLICATIONS[((hash >> 30) % 5) as usize],
            hash,
            account_key: self.key,
        })
    }

    /// Returns the executions whose status changed after `from` and until `now`.
    pub(super) fn changes(&self, from: i64, now: i64) -> Vec<SimulatedExecution> {
        // The initial executions ended before the simulation started, unless a caller stops one.
        let first = self.arrived(from - MAX_DURATION).max(self.initial);
        let arrived = first..self.arrived(now);
        let reruns = (FIRST_RERUN..).take(self.actions.reruns.len());
        let stopped = self.actions.stopped.keys().copied().filter(|number| !arrived.contains(number));
        let mut numbers: Vec<u32> = arrived.clone().chain(reruns).chain(stopped).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let executions = numbers.into_iter().filter_map(|number| self.execution(number, now));
        executions.filter(|execution| (from + 1..=now).contains(&execution.changed)).collect()
    }

    /// Returns the execution with an id, if it has begun.
    pub(super) fn find(&self, id: &str, now: i64) -> Option<SimulatedExecution> {
        let number = u32::from_str_radix(id.get(16..24)?, 16).ok()?;
        self.execution(number, now).filter(|execution| execution.id() == id)
    }
}

impl SimulatedExecution {
    /// The id: 24 hexadecimal digits, of which the last eight are the number.
    pub(super) fn id(&self) -> String {
        format!("65{:06x}{:08x}{:08x}", self.account_key & 0xff_ffff, self.hash >> 32, self.number)
    }

    /// Returns true for one execution in seven, which another one has started.
    pub(super) fn is_child(&self) -> bool {
        (self.hash >> 40).is_multiple_of(7)
    }

    /// The place in a search index.
    pub(super) fn index_order(&self) -> u64 {
        self.hash
    }

    /// The id of another object that belongs to the execution; `index` tells such objects apart.
    pub(super) fn related_id(&self, index: u64) -> String {
        format!("65{:022x}", u128::from(mix(self.hash, index)) << 16)
    }
}

/// Returns the progress of an execution that no caller stopped.
fn progress(hash: u64, created: i64, now: i64) -> ExecutionState {
    const FINAL_STATUSES: [&str; 9] =
        ["COMPLETED", "COMPLETED", "COMPLETED", "COMPLETED", "COMPLETED", "ERRORED", "ERRORED", "TIMED_OUT", "STOPPED"];
    let last = FINAL_STATUSES[(hash % 9) as usize];
    let end = created + 2_000 + ((hash >> 8) % 88_000).cast_signed();
    let stopped = end + STOPPING_TIME;
    if now < end {
        ExecutionState { status: "RUNNING", finished: None, changed: created }
    } else if last != "STOPPED" {
        ExecutionState { status: last, finished: Some(end), changed: end }
    } else if now < stopped {
        ExecutionState { status: "STOPPING", finished: None, changed: end }
    } else {
        ExecutionState { status: last, finished: Some(stopped), changed: stopped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_772_000_000_000;

    #[test]
    fn executions_depend_on_the_seed() {
        let ids = |seed| {
            let account = History::new(seed, START).account("whale");
            (0..50).filter_map(|number| account.execution(number, START)).map(|found| found.id()).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn executions_arrive_with_the_clock_newest_first_and_finish() {
        let history = History::new(1, START);
        let account = history.account("acme-1");
        let created = |now| -> Vec<i64> {
            let found = account.numbers(now).into_iter().filter_map(|number| account.execution(number, now));
            found.map(|execution| execution.created).collect()
        };
        let times = created(START);
        assert_eq!(times.len(), 137);
        assert!(times.is_sorted_by(|newer, older| newer > older));
        let later = START + 100_000;
        assert_eq!(created(later).len(), 142);
        let newest = account.execution(141, later).expect("the execution has begun");
        assert_eq!(newest.status, "RUNNING");
        let ended = account.execution(141, later + 1_000_000).expect("the execution is kept");
        assert!(ended.finished.is_some() && ended.status != "RUNNING");
        assert_eq!(account.find(&newest.id(), later).map(|found| found.number), Some(141));
    }

    #[test]
    fn every_change_is_reported_once() {
        let history = History::new(1, START);
        let account = history.account("acme-1");
        history.stop(&account, 3, START + 150_000);
        let account = history.account("acme-1");
        let mut seen = Vec::new();
        for step in 0..1200 {
            let (from, now) = (START + step * 250, START + (step + 1) * 250);
            seen.extend(account.changes(from, now).iter().map(|execution| (execution.number, execution.status)));
        }
        // Each new execution began and ended, some with `STOPPING` in between. One initial execution was stopped.
        assert_eq!(seen.iter().filter(|(_, status)| *status == "RUNNING").count(), 15);
        let changes = |number: u32| seen.iter().filter(|(found, _)| *found == number).count();
        assert!((137..146).all(|number| (2..=3).contains(&changes(number))), "{seen:?}");
        assert_eq!(seen.iter().filter(|change| **change == (3, "STOPPED")).count(), 1);
    }
}
