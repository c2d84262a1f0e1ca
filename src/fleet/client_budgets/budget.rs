//! A client budget that the replicas of a fleet share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::lease::{AloneShare, Lease, Taken};
use super::split::Split;
use crate::clock::Moment;
use crate::config::Rate;
use crate::fleet::phase::Phase;
use crate::fleet::status::Status;
use crate::fleet::time_slots::TimeSlots;

/// One client budget of the fleet, on this replica.
#[derive(Debug)]
pub struct LeasedBudget {
    lease: Lease,
    /// The key of its bucket on the server.
    key: Box<str>,
    /// True while the refiller knows that the lease runs low.
    is_topping_up: AtomicBool,
    replica: Arc<Replica>,
}

/// The state of a budget after one request, and whether the request exceeded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// An estimate of the requests that this replica would grant at once.
    pub remaining: u32,
    /// Seconds until that is as much as it can be, rounded up.
    pub reset: u32,
    /// Time until a request is granted again, if this one exceeded the budget.
    pub refused: Option<Duration>,
}

/// The replica, as all its budgets know it.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) status: Arc<Status>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) replicas: u32,
    pub(super) random_rank: u32,
    /// Time within which a grant of the server is used, or not at all.
    pub(super) delivery: Duration,
    /// When the replica started.
    pub(super) started: Moment,
    /// When the credit of all budgets that were closed is full, in nanoseconds. One that is opened again has no more of it before.
    pub(super) credit_full_at: AtomicU64,
}

/// A request to the refiller.
#[derive(Debug)]
pub(super) enum Request {
    /// A lease runs low.
    TopUp(Arc<LeasedBudget>),
    /// A caller waits for the server's decision.
    Ask(Arc<LeasedBudget>, oneshot::Sender<Decision>),
}

impl LeasedBudget {
    /// Opens a budget, whose credit was empty at `empty_at`.
    pub(super) fn new(replica: &Arc<Replica>, key: Box<str>, rate: Rate, empty_at: Moment) -> Self {
        let split = Split::new(rate, replica.replicas, replica.delivery);
        let closed = Moment::from_nanos(replica.credit_full_at.load(Ordering::Relaxed));
        let lease = Lease::new(split, closed.max(empty_at + split.credit_time()));
        Self { lease, key, is_topping_up: AtomicBool::new(false), replica: Arc::clone(replica) }
    }

    /// The same budget with another rate. It holds nothing yet.
    #[must_use]
    pub fn with_rate(&self, rate: Rate) -> Self {
        Self::new(&self.replica, self.key.clone(), rate, self.replica.status.clock.now())
    }

    /// The rate that the budget grants.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.lease.split().rate
    }

    /// Takes one request off what this replica holds, or off its credit; `None` if it has neither, and the server has to be asked.
    /// Part of the hit path.
    #[must_use]
    pub fn spend(self: &Arc<Self>, now: Moment) -> Option<Decision> {
        let Phase::Together { episode } = self.replica.status.phase() else { return self.spend_alone(now) };
        match self.lease.take(episode, now) {
            Taken::Granted { left } => {
                if left <= self.lease.split().lease / 2 && !self.is_topping_up.load(Ordering::Relaxed) {
                    self.ask_for_top_up();
                }
                Some(self.granted(left, now))
            }
            Taken::Refused(wait) => Some(self.refused(wait)),
            Taken::Empty => None,
        }
    }

    /// Asks the server for one request. It waits for one round trip, and no longer than `[fleet] command_timeout`; without an
    /// answer the replica decides.
    pub async fn ask(self: Arc<Self>) -> Decision {
        let (reply, answer) = oneshot::channel();
        let clock = &self.replica.status.clock;
        let time_limit = clock.now() + self.replica.delivery;
        if self.replica.requests.try_send(Request::Ask(Arc::clone(&self), reply)).is_ok() {
            let decision = tokio::select! {
                biased;
                // An error means that the replica has left the fleet.
                decision = answer => decision.ok(),
                () = clock.sleep_until(time_limit) => None,
            };
            if let Some(decision) = decision {
                return decision;
            }
        }
        self.decide_unanswered(clock.now())
    }

    /// Decides about a request without the server: no request is refused only because it does not answer.
    #[cold]
    fn decide_unanswered(self: &Arc<Self>, now: Moment) -> Decision {
        self.replica.status.metrics.client_unanswered.inc();
        if let Some(decision) = self.spend_alone(now) {
            return decision;
        }
        // A replica that has just gone on alone has no leases of an episode.
        let episode = if let Phase::Together { episode } = self.replica.status.phase() { episode } else { 0 };
        match self.lease.take_unanswered(episode, now) {
            Taken::Granted { left } => {
                self.ask_for_top_up();
                self.granted(left, now)
            }
            Taken::Refused(wait) => self.refused(wait),
            Taken::Empty => self.refused(self.lease.split().share_interval()),
        }
    }

    /// Takes one request off the share of a replica that is alone; `None` if the server has just come back.
    #[cold]
    pub(super) fn spend_alone(&self, now: Moment) -> Option<Decision> {
        match self.lease.take_alone(&self.replica.alone_share(now)?, now) {
            Taken::Granted { left } => Some(Decision { remaining: left, reset: self.reset(left), refused: None }),
            Taken::Refused(wait) => Some(self.refused(wait)),
            Taken::Empty => None,
        }
    }

    /// Once per top-up: the queue takes no lock, and its memory is reused.
    #[cold]
    fn ask_for_top_up(self: &Arc<Self>) {
        if self.begin_top_up() && self.replica.requests.try_send(Request::TopUp(Arc::clone(self))).is_err() {
            self.end_top_up();
        }
    }

    /// Returns true for the one that tops up.
    pub(super) fn begin_top_up(&self) -> bool {
        !self.is_topping_up.swap(true, Ordering::Relaxed)
    }

    pub(super) fn end_top_up(&self) {
        self.is_topping_up.store(false, Ordering::Relaxed);
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The decision for a granted request after which so many are held.
    pub(super) fn granted(&self, held: u32, now: Moment) -> Decision {
        let remaining = held.saturating_add(self.lease.left_on_server(now));
        Decision { remaining, reset: self.reset(remaining), refused: None }
    }

    /// The decision for a request that exceeds the budget.
    pub(super) fn refused(&self, wait: Duration) -> Decision {
        Decision { remaining: 0, reset: self.reset(0), refused: Some(wait) }
    }

    fn reset(&self, remaining: u32) -> u32 {
        let split = self.lease.split();
        split.most_at_once().saturating_sub(remaining).div_ceil(split.rate.per_second.get())
    }
}

impl Drop for LeasedBudget {
    fn drop(&mut self) {
        if let Some(full_at) = self.lease.spent_credit_until() {
            self.replica.credit_full_at.fetch_max(full_at.as_nanos(), Ordering::Relaxed);
        }
    }
}

impl Replica {
    /// The share of this replica, if it is alone.
    fn alone_share(&self, now: Moment) -> Option<AloneShare> {
        let Phase::Alone { since, episode } = self.status.phase() else { return None };
        let members = self.status.members();
        Some(AloneShare {
            since,
            episode,
            replicas: members.known.max(self.replicas),
            slots: TimeSlots::of(members, self.replicas, self.random_rank),
            micros: self.status.fleet_micros(now),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroU32;

    use jiff::Timestamp;

    use super::*;
    use crate::clock::Clock;
    use crate::fleet::event_sink::EventSink;
    use crate::fleet::membership::Membership;
    use crate::fleet::metrics::FleetMetrics;

    /// A budget of 1 request a second with a burst of 3, and the end of the queue to the refiller, which holds one request.
    pub(in super::super) fn budget(clock: &Clock) -> (Arc<LeasedBudget>, mpsc::Receiver<Request>) {
        let standing = Membership::new(clock.now()).standing();
        let (metrics, events) = (FleetMetrics::unregistered(), EventSink::none());
        let status = Arc::new(Status::new(clock.clone(), standing, metrics, events));
        let (requests, receiver) = mpsc::channel(1);
        let replica = Replica {
            status,
            requests,
            replicas: 4,
            random_rank: 0,
            delivery: Duration::from_millis(50),
            started: clock.now(),
            credit_full_at: AtomicU64::new(0),
        };
        let number = |number| NonZeroU32::new(number).expect("not zero");
        let rate = Rate { per_second: number(1), burst: number(3) };
        (Arc::new(LeasedBudget::new(&Arc::new(replica), "c".into(), rate, clock.now())), receiver)
    }

    #[tokio::test]
    async fn a_full_queue_to_the_server_makes_no_request_fail() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let (budget, _receiver) = budget(&clock);
        budget.replica.requests.try_send(Request::TopUp(Arc::clone(&budget))).expect("there is room for one");
        assert_eq!(budget.ask().await.refused, None);
    }

    #[tokio::test]
    async fn a_question_is_decided_here_when_no_answer_comes_in_time() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let (budget, mut receiver) = budget(&clock);
        let asked = tokio::spawn(Arc::clone(&budget).ask());
        let _unanswered = receiver.recv().await.expect("it is asked");
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(50));
        assert_eq!(asked.await.expect("it ends").refused, None);
    }

    #[test]
    fn a_budget_that_is_opened_again_has_no_more_credit_than_before() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let (small, mut receiver) = budget(&clock);
        let number = |number| NonZeroU32::new(number).expect("not zero");
        let rate = Rate { per_second: number(50), burst: number(100) };
        let open = || Arc::new(LeasedBudget::new(&small.replica, "c".into(), rate, small.replica.started));
        clock.advance(Duration::from_hours(1));
        let mut granted = || {
            let budget = open();
            let granted = (0..9).filter(|_| budget.spend(clock.now()).is_some()).count();
            // The refiller is done with it.
            while receiver.try_recv().is_ok() {}
            granted
        };
        assert_eq!((granted(), granted()), (3, 0));
        clock.advance(Duration::from_hours(1));
        assert_eq!(granted(), 3);
    }
}
