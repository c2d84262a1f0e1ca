//! The script `refill.lua`, and the members that `beat.lua` keeps, in Rust. Times are in microseconds.

use std::collections::BTreeMap;

/// The length of a replica's lease as a member.
pub(super) const MEMBER: f64 = 750e3;
/// The time after which a member whose lease has ended is forgotten.
pub(super) const FORGOTTEN: f64 = 60e6;

/// No beat for this long means that the server's clock, or the server, stood still or jumped.
const SILENT: f64 = 200e3;

/// The server.
#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// The ends of the members' leases.
    pub(super) members: BTreeMap<String, f64>,
    /// The begin of the epoch.
    pub(super) born: Option<f64>,
    /// When a replica last came back.
    pub(super) returned: f64,
    /// The end of the last gap between beats.
    pub(super) gap: f64,
    /// The requests left in each bucket, and when.
    pub(super) buckets: BTreeMap<String, (f64, f64)>,
}

/// A question about one budget.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) key: String,
    pub(super) interval: f64,
    pub(super) burst: f64,
    pub(super) asked: u32,
}

/// The answer: granted, left, and the microseconds until one more is left.
pub(super) type Answer = (u32, u32, u64);

impl Server {
    /// A member's beat.
    pub(super) fn beat(&mut self, now: f64, replica: &str) {
        if self.members.is_empty() {
            self.born = Some(now);
        }
        self.born.get_or_insert(now);
        let latest = self.members.values().copied().filter(|end| *end <= now + MEMBER).fold(f64::MIN, f64::max);
        if now + MEMBER - latest > SILENT {
            self.gap = now;
        }
        if self.members.get(replica).is_none_or(|end| *end < now) {
            self.returned = now;
        }
        self.members.insert(replica.to_owned(), now + MEMBER);
        self.members.retain(|_, end| *end > now - FORGOTTEN);
        self.members.values_mut().for_each(|end| *end = end.min(now + MEMBER));
    }

    /// Refills one budget.
    pub(super) fn refill(&mut self, now: f64, (replicas, last_known): (u32, u32), question: &Question) -> Answer {
        let Question { key, interval, burst, asked } = question;
        let known = u32::try_from(self.members.len()).expect("few");
        let live = self.members.values().filter(|end| **end > now).count();
        let most = usize::try_from(replicas).expect("few").max(live);
        let replicas = f64::from(u32::try_from(most).expect("few"));
        let born = self.born.unwrap_or(now);
        let born = if born > now { 0.0 } else { born };
        let mut leases: Vec<f64> = self.members.values().copied().filter(|end| *end <= now).collect();
        leases.sort_by(f64::total_cmp);
        let mut ended: Vec<f64> = (known..last_known).map(|_| born).chain(leases).collect();
        ended.truncate(most - live);
        let share = 1.0 - f64::from(u32::try_from(ended.len()).expect("few")) / replicas;
        self.returned = self.returned.min(now);
        let counted_from = self.returned.max(self.gap.min(now));
        let (level, from) = match self.buckets.get(key) {
            Some((level, at)) => (*level, at.min(now).max(counted_from)),
            None => (*burst, now),
        };
        let time = ended.iter().fold(now - from, |time, end| time - (now - from.max(*end)) / replicas);
        let level = burst.min(level + time.max(0.0) / interval);
        let granted = whole(level).min(*asked);
        let level = level - f64::from(granted);
        // The script keeps six digits.
        let kept = format!("{level:.6}").parse().expect("a number");
        self.buckets.insert(key.clone(), (kept, now));
        let wait = if level < 1.0 { ((1.0 - level) * interval / share.max(0.01)).min(3600e6).ceil() } else { 0.0 };
        (granted, whole(level), u64::from(whole(wait)))
    }
}

/// The whole part of a number that is not negative and below 2^32.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the caller's promise")]
fn whole(number: f64) -> u32 {
    number.floor() as u32
}
