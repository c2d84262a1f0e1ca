//! A client budget that the replicas of a fleet share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::lease::{AloneShare, Lease, Taken};
use super::split::Split;
use crate::clock::Moment;
use crate::config::Rate;
use crate::fleet::phase::Phase;
use crate::fleet::status::Status;
use crate::fleet::time_slots::TimeSlots;

/// Wait of a request that can't be decided now.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);

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
    pub(super) fn new(replica: &Arc<Replica>, key: Box<str>, rate: Rate) -> Self {
        let lease = Lease::new(Split::new(rate, replica.replicas, replica.delivery));
        Self { lease, key, is_topping_up: AtomicBool::new(false), replica: Arc::clone(replica) }
    }

    /// The same budget with another rate. It holds nothing yet.
    #[must_use]
    pub fn with_rate(&self, rate: Rate) -> Self {
        Self::new(&self.replica, self.key.clone(), rate)
    }

    /// The rate that the budget grants.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.lease.split().rate
    }

    /// Takes one request off what this replica holds; `None` if it holds nothing, and the server has to be asked. Part of the
    /// hit path.
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

    /// Asks the server for one request. It waits for one round trip; while the server does not answer, for at most a second and a half.
    pub async fn ask(self: Arc<Self>) -> Decision {
        let (reply, decision) = oneshot::channel();
        let refused = self.refused(TRY_AGAIN);
        let replica = Arc::clone(&self.replica);
        if replica.requests.try_send(Request::Ask(self, reply)).is_err() {
            return refused;
        }
        // An error means that the replica has left the fleet.
        decision.await.unwrap_or(refused)
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
