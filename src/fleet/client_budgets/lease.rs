//! The part of a client budget that one replica holds. Pure: time is passed in.
//!
//! While the replica shares with its fleet, it spends what the server has granted in advance: one compare-and-swap. While it is
//! alone, the same amount fills up with time instead, at the replica's share of the rate. In neither case does the replica ever
//! hold more than [`Split::lease`], and a replica that has just come holds nothing; so restarts and returns add nothing to a burst.
//!
//! Until the server has answered a first time, and when it does not answer, the replica spends its credit: a small budget of
//! its own, which is reserved from the burst and the rate. After that it lets a few requests through on loan, and asks the server
//! for them later.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::split::Split;
use crate::clock::Moment;
use crate::fleet::time_slots::{OwnSlots, TimeSlots, own_slots};

/// The part of one budget that a replica holds.
#[derive(Debug)]
pub struct Lease {
    split: Split,
    /// Requests that were granted in advance, with the episode that they belong to in the upper half.
    hand: AtomicU64,
    /// Alone, with a lease: the time at which what is held is full, in nanoseconds; without one: the number of the last slot used, + 1.
    alone: AtomicU64,
    /// When the credit is full, in nanoseconds; and what that was at the beginning.
    credit_full_at: AtomicU64,
    credit_full_at_first: Moment,
    /// Requests on loan.
    owed: AtomicU32,
    /// The server grants nothing before this time, in nanoseconds.
    empty_until: AtomicU64,
    /// When the server's bucket is full, in nanoseconds, by its last answer.
    full_at: AtomicU64,
}

/// The outcome of taking one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Granted; the replica holds this many more.
    Granted {
        /// Requests that are left.
        left: u32,
    },
    /// The budget is exhausted for this time.
    Refused(Duration),
    /// Nothing is held here; the server may grant it.
    Empty,
}

/// The surroundings of a replica that is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AloneShare {
    /// The beginning.
    pub since: Moment,
    /// The episode before, whose leases go on.
    pub episode: u32,
    /// The number of shares.
    pub replicas: u32,
    /// The time slots; `None` if the replica has none.
    pub slots: Option<TimeSlots>,
    /// The fleet's clock, in microseconds.
    pub micros: u64,
}

/// The server's answer about one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refill {
    /// Requests that it grants.
    pub granted: u32,
    /// Requests that are left in its bucket.
    pub left: u32,
    /// Time until it has one more, if none is left.
    pub wait: Duration,
}

impl Lease {
    /// A lease of nothing yet, whose credit is full at a moment.
    #[must_use]
    pub fn new(split: Split, credit_full_at: Moment) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            split,
            hand: zero(),
            alone: zero(),
            credit_full_at: AtomicU64::new(credit_full_at.as_nanos()),
            credit_full_at_first: credit_full_at,
            owed: AtomicU32::new(0),
            empty_until: zero(),
            full_at: zero(),
        }
    }

    /// The division of the budget.
    #[must_use]
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// Takes one request off what the replica holds. Part of the hit path.
    #[inline]
    pub fn take(&self, episode: u32, now: Moment) -> Taken {
        let mut word = self.hand.load(Ordering::Relaxed);
        while let Some(left) = tokens(word, episode).checked_sub(1) {
            match self.hand.compare_exchange_weak(word, word - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Taken::Granted { left },
                Err(changed) => word = changed,
            }
        }
        let until = Moment::from_nanos(self.empty_until.load(Ordering::Relaxed));
        if now < until {
            Taken::Refused(until.since(now))
        } else if word >> 32 == u64::from(episode) {
            Taken::Empty
        } else {
            // The server has not answered in this episode.
            self.take_credit(now)
        }
    }

    /// Takes one request off the credit.
    #[cold]
    fn take_credit(&self, now: Moment) -> Taken {
        let (interval, most) = (nanos(self.split.credit_interval()), nanos(self.split.credit_time()));
        let now = now.as_nanos();
        let taken = self.credit_full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(interval);
            (full_at - now <= most).then_some(full_at)
        });
        taken.map_or(Taken::Empty, |_| Taken::Granted { left: 0 })
    }

    /// Decides about a request that the server did not answer in time: off what is held by now, off the credit, or on loan.
    #[cold]
    pub fn take_unanswered(&self, episode: u32, now: Moment) -> Taken {
        let taken = match self.take(episode, now) {
            Taken::Empty => self.take_credit(now),
            taken => taken,
        };
        if taken == Taken::Empty { self.lend(self.split.share_interval()) } else { taken }
    }

    /// Lets a request through on loan, or refuses it for a time if too many are.
    fn lend(&self, wait: Duration) -> Taken {
        let most = self.split.most_owed();
        let lent = |owed| (owed < most).then_some(owed + 1);
        let lent = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lent);
        lent.map_or(Taken::Refused(wait), |_| Taken::Granted { left: 0 })
    }

    /// The requests on loan.
    pub fn owed(&self) -> u32 {
        self.owed.load(Ordering::Relaxed)
    }

    /// Pays for the requests on loan that the server was asked for with what it has granted; returns the rest of it. What was lent
    /// since stays on loan.
    #[must_use]
    pub fn pay(&self, granted: u32, asked_for: u32) -> u32 {
        let payment = granted.min(asked_for);
        let pay = |owed: u32| Some(owed.saturating_sub(payment));
        let owed = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).unwrap_or_else(|owed| owed);
        granted - payment.min(owed)
    }

    /// When the credit is full, if some of it was spent.
    #[must_use]
    pub fn spent_credit_until(&self) -> Option<Moment> {
        let full_at = Moment::from_nanos(self.credit_full_at.load(Ordering::Relaxed));
        (full_at > self.credit_full_at_first).then_some(full_at)
    }

    /// Takes one request off the share of a replica that is alone, or lets it through on loan: at the beginning little or nothing
    /// of the share has been saved up, and a request within it is not to be refused for that.
    pub fn take_alone(&self, alone: &AloneShare, now: Moment) -> Taken {
        let taken = if self.split.lease == 0 { self.take_slot(alone) } else { self.take_share(alone, now) };
        match taken {
            Taken::Refused(wait) => self.lend(wait),
            taken => taken,
        }
    }

    /// The share of the rate, and what is left of the lease.
    fn take_share(&self, alone: &AloneShare, now: Moment) -> Taken {
        let interval = nanos(self.split.interval()).saturating_mul(alone.replicas.into());
        let most = interval.saturating_mul(self.split.lease.into());
        let held = tokens(self.hand.load(Ordering::Relaxed), alone.episode);
        let missing = interval.saturating_mul(self.split.lease.saturating_sub(held).into());
        let full_at_first = alone.since.as_nanos().saturating_add(missing);
        let now = now.as_nanos();
        let after = |full_at: u64| full_at.max(full_at_first).max(now).saturating_add(interval);
        let taken = self.alone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = after(full_at);
            (full_at - now <= most).then_some(full_at)
        });
        let left = |full_at: u64| most.saturating_sub(full_at - now) / interval;
        match taken {
            Ok(before) => Taken::Granted { left: u32::try_from(left(after(before))).unwrap_or(u32::MAX) },
            Err(before) => Taken::Refused(Duration::from_nanos(after(before) - now - most)),
        }
    }

    /// One request in each time slot of the replica's own.
    fn take_slot(&self, alone: &AloneShare) -> Taken {
        let Some(slots) = alone.slots else { return Taken::Refused(Duration::from_secs(1)) };
        let OwnSlots { present, next } = own_slots(alone.micros, self.split.interval(), slots, 1);
        let use_up = |slot: u64| self.alone.fetch_max(slot + 1, Ordering::Relaxed) <= slot;
        if present.is_some_and(use_up) { Taken::Granted { left: 0 } } else { Taken::Refused(next) }
    }

    /// The number of requests that the replica could hold more.
    pub fn missing(&self, episode: u32) -> u32 {
        self.split.lease.saturating_sub(tokens(self.hand.load(Ordering::Relaxed), episode))
    }

    /// Adds requests that the server has granted to a question of this episode.
    pub fn add(&self, episode: u32, granted: u32) {
        // An error means that a newer episode has begun.
        let _ = self.hand.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let held = tokens(word, episode).saturating_add(granted).min(self.split.lease);
            (word >> 32 <= u64::from(episode)).then_some(u64::from(episode) << 32 | u64::from(held))
        });
    }

    /// Remembers the server's answer, for refusals and estimates.
    pub fn learn(&self, answer: &Refill, now: Moment) {
        let until = if answer.left == 0 { (now + answer.wait).as_nanos() } else { 0 };
        self.empty_until.store(until, Ordering::Relaxed);
        let missing = self.split.interval() * self.split.most_on_server().saturating_sub(answer.left);
        self.full_at.store((now + missing).as_nanos(), Ordering::Relaxed);
    }

    /// An estimate of the requests that the server would grant at once: what was left at its last answer, and what the rate has
    /// added since. Other replicas may have taken some of it.
    #[inline]
    pub fn left_on_server(&self, now: Moment) -> u32 {
        let missing = self.full_at.load(Ordering::Relaxed).saturating_sub(now.as_nanos());
        let missing = missing.div_ceil(nanos(self.split.interval()).max(1));
        self.split.most_on_server().saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }
}

/// The requests in a word of `hand`, if they belong to this episode.
#[inline]
fn tokens(word: u64, episode: u32) -> u32 {
    let held = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
    if word >> 32 == u64::from(episode) { held } else { 0 }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::Rate;

    const NOW: Moment = Moment::from_nanos(10_000_000_000);

    fn lease(per_second: u32, burst: u32, replicas: u32) -> Lease {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        let rate = Rate { per_second: number(per_second), burst: number(burst) };
        let split = Split::new(rate, replicas, Duration::from_millis(50));
        Lease::new(split, NOW + split.credit_time())
    }

    fn alone(episode: u32, micros: u64) -> AloneShare {
        AloneShare { since: NOW, episode, replicas: 4, slots: Some(TimeSlots { count: 4, own: 1 }), micros }
    }

    fn granted(lease: &Lease, take: impl Fn(&Lease) -> Taken) -> usize {
        (0..1000).take_while(|_| matches!(take(lease), Taken::Granted { .. })).count()
    }

    #[test]
    fn a_replica_holds_nothing_before_the_server_grants_it() {
        let lease = lease(50, 100, 4);
        assert_eq!((lease.take(1, NOW), lease.missing(1)), (Taken::Empty, 6));
        lease.add(1, 3);
        assert_eq!((lease.take(1, NOW), lease.missing(1)), (Taken::Granted { left: 2 }, 4));
        lease.add(1, 100);
        assert_eq!(granted(&lease, |lease| lease.take(1, NOW)), 6, "no more than the lease");
    }

    #[test]
    fn what_was_held_before_an_outage_is_void_after_it() {
        let lease = lease(50, 100, 4);
        lease.add(1, 8);
        assert_eq!(lease.take(2, NOW), Taken::Empty);
        lease.add(2, 1);
        lease.add(1, 8);
        assert_eq!(granted(&lease, |lease| lease.take(2, NOW)), 1, "an answer of before is void too");
    }

    #[test]
    fn the_first_requests_of_a_budget_are_granted_off_the_credit() {
        let lease = lease(50, 100, 4);
        let interval = lease.split().credit_interval();
        assert_eq!(granted(&lease, |lease| lease.take(1, NOW)), 0, "a replica that has just started has no credit");
        assert_eq!(granted(&lease, |lease| lease.take(1, NOW + interval)), 1);
        let later = NOW + Duration::from_hours(1);
        assert_eq!(granted(&lease, |lease| lease.take(1, later)), 3);
        lease.add(1, 0);
        assert_eq!(lease.take(1, later + Duration::from_hours(1)), Taken::Empty, "the server knows more");
        assert_eq!(granted(&lease, |lease| lease.take(2, later + Duration::from_hours(1))), 3, "a new episode");
    }

    #[test]
    fn without_an_answer_a_request_is_granted_off_the_credit_and_then_on_loan() {
        let lease = lease(50, 100, 4);
        lease.add(1, 1);
        let later = NOW + Duration::from_hours(1);
        assert_eq!(
            granted(&lease, |lease| lease.take_unanswered(1, later)),
            1 + 3 + 14,
            "14 are the share of a second and one"
        );
        assert_eq!(lease.take_unanswered(1, later), Taken::Refused(Duration::from_millis(80)));
        assert_eq!((lease.owed(), lease.pay(10, 14), lease.pay(10, 14), lease.owed()), (14, 0, 6, 0));
        lease.learn(&Refill { granted: 0, left: 0, wait: Duration::from_millis(20) }, later);
        assert_eq!(
            lease.take_unanswered(1, later),
            Taken::Refused(Duration::from_millis(20)),
            "the server had answered"
        );
    }

    #[test]
    fn a_replica_that_is_alone_lets_requests_through_on_loan_that_are_not_on_loan_yet() {
        let lease = lease(50, 100, 4);
        for _ in 0..10 {
            assert_eq!(lease.take_unanswered(1, NOW), Taken::Granted { left: 0 });
        }
        let alone = alone(1, 0);
        assert_eq!(granted(&lease, |lease| lease.take_alone(&alone, NOW)), 4);
        assert_eq!(lease.take_alone(&alone, NOW), Taken::Refused(Duration::from_millis(80)));
        let later = NOW + Duration::from_millis(80);
        assert_eq!(granted(&lease, |lease| lease.take_alone(&alone, later)), 1, "its share");
        assert_eq!(lease.owed(), 14, "the server is asked for them");
    }

    #[test]
    fn no_request_within_the_share_is_refused_as_a_replica_becomes_alone() {
        for (per_second, burst, replicas) in [(50, 100, 4), (50, 100, 8), (10, 20, 4), (100, 100, 2)] {
            for millis in (0..=1000).step_by(50) {
                let lease = lease(per_second, burst, replicas);
                // The server falls silent now, and the replica is alone a second later.
                let interval = lease.split().share_interval();
                let since = NOW + Duration::from_secs(1);
                let share =
                    AloneShare { since, replicas, slots: Some(TimeSlots { count: replicas, own: 0 }), ..alone(1, 0) };
                let mut at = NOW + Duration::from_millis(millis);
                for request in 0..100 {
                    let taken = if at < since { lease.take_unanswered(1, at) } else { lease.take_alone(&share, at) };
                    assert!(
                        matches!(taken, Taken::Granted { .. }),
                        "{per_second}/s, {replicas}, {millis} ms: {request}"
                    );
                    at = at + interval;
                }
            }
        }
    }

    #[test]
    fn an_exhausted_budget_is_refused_here_until_the_server_has_more() {
        let lease = lease(50, 100, 4);
        lease.learn(&Refill { granted: 0, left: 0, wait: Duration::from_millis(20) }, NOW);
        let later = NOW + Duration::from_millis(15);
        assert_eq!(lease.take(1, later), Taken::Refused(Duration::from_millis(5)));
        assert_eq!(lease.take(1, NOW + Duration::from_millis(20)), Taken::Empty);
        assert_eq!((lease.left_on_server(NOW), lease.left_on_server(NOW + Duration::from_secs(1))), (0, 50));
    }

    #[test]
    fn a_replica_that_is_alone_uses_up_its_lease_and_has_its_share_of_the_rate() {
        let lease = lease(50, 100, 4);
        lease.add(1, 3);
        lease.owed.store(lease.split().most_owed(), Ordering::Relaxed);
        let alone = alone(1, 0);
        assert_eq!(granted(&lease, |lease| lease.take_alone(&alone, NOW)), 3);
        assert_eq!(lease.take_alone(&alone, NOW), Taken::Refused(Duration::from_millis(80)));
        let later = NOW + Duration::from_millis(160);
        assert_eq!(granted(&lease, |lease| lease.take_alone(&alone, later)), 2);
        assert_eq!(granted(&lease, |lease| lease.take_alone(&alone, later + Duration::from_hours(1))), 6);
    }

    #[test]
    fn a_budget_that_is_too_small_to_divide_has_time_slots_alone() {
        let lease = lease(2, 3, 4);
        lease.owed.store(lease.split().most_owed(), Ordering::Relaxed);
        // Slots last half a second, and the second of every four is this replica's.
        let take = |micros| lease.take_alone(&alone(1, micros), NOW);
        assert_eq!(take(4_400_000), Taken::Refused(Duration::from_millis(100)));
        assert_eq!(take(4_500_000), Taken::Granted { left: 0 });
        assert_eq!(take(4_999_999), Taken::Refused(Duration::from_micros(1_500_001)));
        assert_eq!(take(5_000_000), Taken::Refused(Duration::from_millis(1500)));
        assert_eq!(take(6_500_000), Taken::Granted { left: 0 });
        let surplus = AloneShare { slots: None, ..alone(1, 6_500_000) };
        assert_eq!(lease.take_alone(&surplus, NOW), Taken::Refused(Duration::from_secs(1)));
    }
}
