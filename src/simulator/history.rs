//! Executions, each computed from the seed, the linked account and its number, so that 25,000 of them take no memory.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock;

/// Linked accounts worth a look: id, executions at the start, and milliseconds between new ones (0: none come).
pub(super) const NAMED: [(&str, u32, i64); 7] = [
    ("acme-1", 137, 20_000),
    ("acme-2", 25, 0),
    ("globex", 2_480, 5_000),
    ("initech", 312, 0),
    ("umbrella@example.com", 7, 60_000),
    ("empty", 0, 0),
    ("whale", 25_000, 1_000),
];

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
const STOPPING_FOR: i64 = 3_000;
/// From the beginning of an execution to its end.
const LONGEST: i64 = 95_000;

/// Everything that has happened, and what callers have done to it.
#[derive(Debug)]
pub(super) struct History {
    seed: u64,
    /// The end of what had happened when the simulation began, in milliseconds since 1970.
    anchor: i64,
    deeds: Mutex<HashMap<u64, Deeds>>,
}

/// What callers have done to a linked account.
#[derive(Clone, Debug, Default)]
struct Deeds {
    /// Number of the execution, and when it was stopped.
    stopped: HashMap<u32, i64>,
    /// When each rerun began.
    reruns: Vec<i64>,
}

/// A linked account at one moment.
#[derive(Debug)]
pub(super) struct Account {
    key: u64,
    base: u32,
    arrival: i64,
    anchor: i64,
    deeds: Deeds,
}

/// What of an execution can be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Execution {
    pub(super) number: u32,
    pub(super) created: i64,
    pub(super) finished: Option<i64>,
    /// When it last became something else.
    pub(super) changed: i64,
    pub(super) status: &'static str,
    pub(super) source: &'static str,
    pub(super) kind: &'static str,
    pub(super) workflow: (&'static str, &'static str),
    pub(super) application: (&'static str, &'static str, &'static str),
    hash: u64,
    key: u64,
}

/// Numbers of reruns begin here.
const FIRST_RERUN: u32 = 1 << 31;

/// splitmix64's finaliser over two words.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl History {
    pub(super) fn new(seed: u64, anchor: i64) -> Self {
        Self { seed, anchor, deeds: Mutex::default() }
    }

    /// A linked account. Any id has one: those without a name are small.
    pub(super) fn account(&self, id: &str) -> Account {
        let key = id.bytes().fold(mix(self.seed, 0), |key, byte| mix(key, u64::from(byte)));
        let (base, arrival) = NAMED.iter().find(|(name, ..)| *name == id).map_or_else(
            || (u32::try_from(3 + key % 58).unwrap_or(3), if key & 64 == 0 { 0 } else { 30_000 }),
            |(_, base, arrival)| (*base, *arrival),
        );
        let deeds = lock(&self.deeds).get(&key).cloned().unwrap_or_default();
        Account { key, base, arrival, anchor: self.anchor, deeds }
    }

    pub(super) fn stop(&self, account: &Account, number: u32, now: i64) {
        lock(&self.deeds).entry(account.key).or_default().stopped.insert(number, now);
    }

    /// Begins an execution anew; the new one.
    pub(super) fn rerun(&self, id: &str, now: i64) -> Option<Execution> {
        let account = self.account(id);
        lock(&self.deeds).entry(account.key).or_default().reruns.push(now);
        let account = self.account(id);
        let number = FIRST_RERUN + u32::try_from(account.deeds.reruns.len()).ok()? - 1;
        account.execution(number, now)
    }
}

impl Account {
    /// How many executions there are.
    pub(super) fn total(&self, now: i64) -> u32 {
        self.arrived(now) + u32::try_from(self.deeds.reruns.len()).unwrap_or_default()
    }

    fn arrived(&self, now: i64) -> u32 {
        let since = if self.arrival == 0 { 0 } else { (now - self.anchor).max(0) / self.arrival };
        self.base + u32::try_from(since).unwrap_or_default()
    }

    /// Numbers of all executions, newest first.
    pub(super) fn numbers(&self, now: i64) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.arrived(now)).rev().collect();
        if !self.deeds.reruns.is_empty() {
            let reruns = (FIRST_RERUN..).take(self.deeds.reruns.len());
            numbers.extend(reruns);
            numbers.sort_by_key(|number| std::cmp::Reverse((self.created(*number), *number)));
        }
        numbers
    }

    /// Past ones lie about half an hour apart, in a fixed order.
    fn created(&self, number: u32) -> i64 {
        const SPACING: i64 = 30 * 60 * 1000;
        if number >= FIRST_RERUN {
            return self.deeds.reruns.get((number - FIRST_RERUN) as usize).copied().unwrap_or(self.anchor);
        }
        if number >= self.base {
            return self.anchor + i64::from(number - self.base + 1) * self.arrival;
        }
        let jitter = (mix(self.key, u64::from(number)) >> 8) % (SPACING.unsigned_abs() / 2);
        self.anchor - i64::from(self.base - number) * SPACING + jitter.cast_signed()
    }

    pub(super) fn execution(&self, number: u32, now: i64) -> Option<Execution> {
        let exists = match number.checked_sub(FIRST_RERUN) {
            Some(rerun) => (rerun as usize) < self.deeds.reruns.len(),
            None => number < self.arrived(now),
        };
        if !exists {
            return None;
        }
        let hash = mix(self.key, u64::from(number) | 1 << 40);
        let created = self.created(number);
        let end = [
            "COMPLETED",
            "COMPLETED",
            "COMPLETED",
            "COMPLETED",
            "COMPLETED",
            "ERRORED",
            "ERRORED",
            "TIMED_OUT",
            "STOPPED",
        ][(hash % 9) as usize];
        let duration = 2_000 + ((hash >> 8) % 88_000).cast_signed();
        let stopped = created + duration + STOPPING_FOR;
        let (status, finished, changed) = match self.deeds.stopped.get(&number) {
            Some(stopped) => ("STOPPED", Some(*stopped), *stopped),
            None if now < created + duration => ("RUNNING", None, created),
            None if end == "STOPPED" && now < stopped => ("STOPPING", None, created + duration),
            None if end == "STOPPED" => (end, Some(stopped), stopped),
            None => (end, Some(created + duration), created + duration),
        };
        Some(Execution {
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
            key: self.key,
        })
    }

    /// Executions that have become something else after `from`; at most what has happened in the last few minutes.
    pub(super) fn changes(&self, from: i64, now: i64) -> Vec<Execution> {
        // Those of the past had ended long before the simulation began.
        let first = self.arrived(from - LONGEST).max(self.base);
        let arrived = first..self.arrived(now);
        let reruns = (FIRST_RERUN..).take(self.deeds.reruns.len());
        let stopped = self.deeds.stopped.keys().copied().filter(|number| !arrived.contains(number));
        let mut numbers: Vec<u32> = arrived.clone().chain(reruns).chain(stopped).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let executions = numbers.into_iter().filter_map(|number| self.execution(number, now));
        executions.filter(|execution| (from + 1..=now).contains(&execution.changed)).collect()
    }

    /// The execution with an id.
    pub(super) fn find(&self, id: &str, now: i64) -> Option<Execution> {
        let number = u32::from_str_radix(id.get(16..24)?, 16).ok()?;
        self.execution(number, now).filter(|execution| execution.id() == id)
    }
}

impl Execution {
    /// 24 hexadecimal digits, the last eight of them its number.
    pub(super) fn id(&self) -> String {
        format!("65{:06x}{:08x}{:08x}", self.key & 0xff_ffff, self.hash >> 32, self.number)
    }

    /// Some more digits that stay the same.
    pub(super) fn related_id(&self, what: u64) -> String {
        format!("65{:022x}", u128::from(mix(self.hash, what)) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_772_000_000_000;

    #[test]
    fn equal_seeds_give_equal_histories_and_others_differ() {
        let ids = |seed| {
            let account = History::new(seed, START).account("whale");
            (0..50).filter_map(|number| account.execution(number, START)).map(|found| found.id()).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
    }

    #[test]
    fn executions_are_newest_first_arrive_with_the_clock_and_finish() {
        let history = History::new(1, START);
        let account = history.account("acme-1");
        let created = |now| -> Vec<i64> {
            let found = account.numbers(now).into_iter().filter_map(|number| account.execution(number, now));
            found.map(|execution| execution.created).collect()
        };
        let now = created(START);
        assert_eq!(now.len(), 137);
        assert!(now.is_sorted_by(|newer, older| newer > older));
        let later = START + 100_000;
        assert_eq!(created(later).len(), 142);
        let newest = account.execution(141, later).expect("it has arrived");
        assert_eq!(newest.status, "RUNNING");
        let settled = account.execution(141, later + 1_000_000).expect("it is still there");
        assert!(settled.finished.is_some() && settled.status != "RUNNING");
        assert_eq!(account.find(&newest.id(), later).map(|found| found.number), Some(141));
    }

    #[test]
    fn every_change_is_told_once_whatever_the_steps() {
        let history = History::new(1, START);
        let account = history.account("acme-1");
        history.stop(&account, 3, START + 150_000);
        let account = history.account("acme-1");
        let mut seen = Vec::new();
        for step in 0..1200 {
            let (from, now) = (START + step * 250, START + (step + 1) * 250);
            seen.extend(account.changes(from, now).iter().map(|execution| (execution.number, execution.status)));
        }
        // Each that has come began and ended; some were stopping between. One of the past was stopped.
        assert_eq!(seen.iter().filter(|(_, status)| *status == "RUNNING").count(), 15);
        let ended = |number: u32| seen.iter().filter(|(found, _)| *found == number).count();
        assert!((137..146).all(|number| (2..=3).contains(&ended(number))), "{seen:?}");
        assert_eq!(seen.iter().filter(|change| **change == (3, "STOPPED")).count(), 1);
    }
}
