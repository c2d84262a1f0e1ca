//! Client budgets of a fleet: for each linked account, session token and client key one budget, whatever the number of replicas.
//!
//! Each budget has a bucket on the server, and each replica a lease: requests that the server has granted it in advance, a small
//! part of the burst ([`Split`]). A request takes one off the lease: one compare-and-swap, no round trip. Leases that run low
//! are refilled together in the background (`Refiller`). The first requests of a budget, before the first lease, are granted off
//! a credit. A request that finds no lease later waits for one round trip and takes what the server grants it; an exhausted budget is
//! then refused here until the server has more. A budget that is too small to divide has no leases, so each of its requests waits
//! for a round trip.
//!
//! While the server does not answer, a replica spends what is left of its leases and its credit. After that it lets a few requests
//! through on loan, which it settles with the server later. A replica that is alone has its share of the rate, saves up at most
//! what a lease holds, and lets through on loan what is not on loan yet. So in every window w the fleet grants at most
//! `burst + rate * w`, and in an outage the loans: leases need no end, and nothing is granted twice when the server returns. A
//! bucket that the server has lost counts as full.

mod budget;
mod lease;
mod refill;
mod refiller;
mod split;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc;

use self::budget::Replica;
pub use self::budget::{Decision, LeasedBudget};
pub use self::lease::{AloneShare, Lease, Refill, Taken};
use self::refill::RefillCall;
pub(super) use self::refiller::Refiller;
pub use self::split::Split;
use super::commands::Commands;
use super::names::Names;
use super::status::Status;
use crate::config::Rate;

/// Requests of budgets that can wait for the refiller; more are decided without the server.
const LONGEST_QUEUE: usize = 4096;

/// Opens the client budgets that the fleet shares.
#[derive(Clone, Debug)]
pub struct ClientBudgets {
    replica: Arc<Replica>,
    names: Arc<Names>,
}

/// The owner of a client budget. The same one has the same budget on all replicas.
#[derive(Clone, Copy, Debug)]
pub enum BudgetOwner<'a> {
    /// A linked account, by its id.
    LinkedAccount(&'a str),
    /// A session token, by its digest.
    SessionToken(&'a [u8]),
    /// A client key, by its name.
    ClientKey(&'a str),
}

/// The replicas that share budgets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sharing {
    pub(super) replicas: u32,
    /// The place in the time slots of a replica without a rank.
    pub(super) random_rank: u32,
    /// Limit for the answer of the server.
    pub(super) delivery: Duration,
}

impl ClientBudgets {
    /// Makes the budgets of a replica, and their refiller.
    pub(super) fn new(
        sharing: Sharing,
        names: &Arc<Names>,
        status: &Arc<Status>,
        commands: &Commands,
    ) -> (Self, Refiller) {
        let (requests, receiver) = mpsc::channel(LONGEST_QUEUE);
        let Sharing { replicas, random_rank, delivery } = sharing;
        let replica = Arc::new(Replica {
            status: Arc::clone(status),
            requests,
            replicas,
            random_rank,
            delivery,
            started: status.clock.now(),
            credit_full_at: AtomicU64::new(0),
        });
        let keys = ["m", "ep", "ret", "gap"].map(|kind| names.single(kind));
        let call = RefillCall { replica: Arc::clone(&replica), commands: commands.clone(), keys };
        (Self { replica, names: Arc::clone(names) }, Refiller::new(receiver, call))
    }

    /// The budget of an owner of a tenant. It holds nothing yet.
    #[must_use]
    pub fn open(&self, rate: Rate, tenant: &str, owner: BudgetOwner<'_>) -> LeasedBudget {
        let (kind, id) = match owner {
            BudgetOwner::LinkedAccount(id) => ("account", id.as_bytes()),
            BudgetOwner::SessionToken(digest) => ("token", digest),
            BudgetOwner::ClientKey(name) => ("key", name.as_bytes()),
        };
        let hidden = self.names.hidden("client budget", &[tenant.as_bytes(), kind.as_bytes(), id]);
        LeasedBudget::new(&self.replica, self.names.of("c", &hidden).into(), rate, self.replica.started)
    }
}
