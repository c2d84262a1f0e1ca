//! Queue of upstream requests that wait for a permit, fair first across credentials, then across a credential's linked accounts.
//!
//! Each credential has a [`FairQueue`] of its own, and the credentials take turns by the same rules as the flows in it: so a
//! client key that names ever new linked accounts has no more turns than one that names a single one.

use std::collections::HashMap;

use super::fair_queue::{FairQueue, QueueDepth, QueuedRequest};
use super::flow::{Flow, Urgency};
use super::rounds::{Rounds, rounds_ahead, turn};
use crate::clock::Moment;

/// Maximum number of credentials whose empty queue is kept, for the rounds of its linked accounts.
const MAX_EMPTY: usize = 1024;

/// Maximum number of a credential's flows that wait in the fleet's queue at once.
const MAX_HEADS: usize = 16;

/// The requests of a flow with one urgency, of which the first one waits in the fleet's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Head {
    pub(super) flow: Flow,
    pub(super) urgency: Urgency,
}

/// A flow that waits, and the request time of the oldest entry that its requests renew.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingHead {
    pub(super) head: Head,
    pub(super) renews: Moment,
}

/// Waiting requests by credential, and the order in which credentials receive permits.
#[derive(Debug, Default)]
pub(super) struct CredentialQueue {
    rounds: Rounds,
    credentials: HashMap<u64, FairQueue, foldhash::fast::RandomState>,
}

impl CredentialQueue {
    /// Number of queued requests. Cancelled ones count until they are removed.
    pub(super) fn length(&self) -> usize {
        self.credentials.values().map(FairQueue::length).sum()
    }

    /// Number of queued requests of one urgency. Cancelled ones count until they are removed.
    pub(super) fn length_of(&self, urgency: Urgency) -> usize {
        self.credentials.values().map(|queue| queue.length_of(urgency)).sum()
    }

    /// Counts the requests that are not cancelled.
    pub(super) fn depth(&self) -> QueueDepth {
        self.credentials.values().map(FairQueue::depth).fold(QueueDepth::default(), |sum, depth| QueueDepth {
            foreground: sum.foreground + depth.foreground,
            background: sum.background + depth.background,
        })
    }

    /// Adds a request at the end of its flow.
    pub(super) fn push(&mut self, flow: Flow, urgency: Urgency, request: QueuedRequest) {
        if self.credentials.len() > MAX_EMPTY {
            self.credentials.retain(|_, queue| queue.length() > 0);
        }
        self.credentials.entry(flow.credential).or_default().push(flow.account, urgency, request);
    }

    /// Makes room for one more request of `flow` by dropping the last request of the longest flow of the credential with the most
    /// requests. Returns `false`, and drops nothing, if no flow is longer than `flow` would become.
    pub(super) fn make_room(&mut self, flow: Flow, urgency: Urgency) -> bool {
        let own = self.credentials.get(&flow.credential).map_or(0, |queue| queue.length_of(urgency));
        let longest = self.credentials.iter_mut().max_by_key(|(id, queue)| (queue.length_of(urgency), **id));
        if let Some((_, queue)) = longest.filter(|(_, queue)| queue.length_of(urgency) > own + 1) {
            return queue.drop_last_of_longest(urgency);
        }
        self.credentials.get_mut(&flow.credential).is_some_and(|queue| queue.make_room(flow.account, urgency))
    }

    /// Estimates how many requests would be served before one more request of `flow`: those of its own credential that come
    /// before it, and of each other credential as many.
    pub(super) fn position(&self, flow: Flow, urgency: Urgency) -> usize {
        let own = self.credentials.get(&flow.credential).map_or(0, |queue| queue.position(flow.account, urgency));
        let others = || self.credentials.iter().filter(|(id, queue)| **id != flow.credential && queue.length() > 0);
        let before = |queue: &FairQueue| match urgency {
            Urgency::Foreground => queue.length_of(urgency).min(own + 1),
            Urgency::Background => queue.length_of(Urgency::Foreground) + queue.length_of(urgency).min(own + 1),
        };
        let by_rounds = own + others().map(|(_, queue)| before(queue)).sum::<usize>();
        let due = self.rounds.of(flow.credential) + u64::try_from(own).unwrap_or(u64::MAX);
        by_rounds.max(rounds_ahead(due, self.least_round()).saturating_mul(others().count()))
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        self.credentials.values().flat_map(FairQueue::deadlines)
    }

    /// Removes and returns the next request that is not cancelled.
    pub(super) fn pop(&mut self) -> Option<QueuedRequest> {
        loop {
            let least = self.least_round()?;
            self.rounds.serve(least);
            let rounds = &self.rounds;
            let candidates = self.credentials.iter_mut().filter_map(|(id, queue)| {
                let round = rounds.of(*id);
                let (urgency, oldest) = queue.peek().filter(|_| rounds.is_in_leeway(round))?;
                Some((turn(urgency, round, oldest), *id, queue))
            });
            let (_, id, queue) = candidates.min_by_key(|(turn, id, _)| (*turn, *id))?;
            // Without a result all requests of this credential were cancelled, which costs it nothing.
            if let Some(request) = queue.pop() {
                self.rounds.set(id, self.rounds.of(id) + 1);
                return Some(request);
            }
        }
    }

    /// Removes and returns the next request of a flow that is not cancelled. The fleet decides on the order of flows.
    pub(super) fn pop_of(&mut self, head: Head) -> Option<QueuedRequest> {
        let least = self.least_round()?;
        self.rounds.serve(least);
        let Head { flow: Flow { credential, account }, urgency } = head;
        let request = self.credentials.get_mut(&credential)?.pop_of(account, urgency)?;
        self.rounds.set(credential, self.rounds.of(credential) + 1);
        Some(request)
    }

    /// Drops the requests of a flow, which refuses them.
    pub(super) fn refuse(&mut self, head: Head) {
        if let Some(queue) = self.credentials.get_mut(&head.flow.credential) {
            queue.refuse(head.flow.account, head.urgency);
        }
    }

    /// Returns the flows and urgencies that wait; of each credential those that would be served next.
    pub(super) fn heads(&self) -> Vec<WaitingHead> {
        let of_credential = |(credential, queue): (&u64, &FairQueue)| {
            let credential = *credential;
            let heads = queue.heads(MAX_HEADS).into_iter();
            heads.map(move |(account, urgency, renews)| {
                let head = Head { flow: Flow { credential, account }, urgency };
                WaitingHead { head, renews }
            })
        };
        self.credentials.iter().flat_map(of_credential).collect()
    }

    /// Gives a flow back the turn in which it was served last: it did not use it.
    pub(super) fn give_turn_back(&mut self, flow: Flow) {
        self.rounds.give_back(flow.credential);
        if let Some(queue) = self.credentials.get_mut(&flow.credential) {
            queue.give_turn_back(flow.account);
        }
    }

    /// Removes the requests that are cancelled or past their deadline. Dropping `permit` refuses them.
    pub(super) fn remove_expired(&mut self, now: Moment) {
        self.credentials.values_mut().for_each(|queue| queue.remove_expired(now));
    }

    /// Returns the round of the least served credential that has requests.
    fn least_round(&self) -> Option<u64> {
        let waiting = self.credentials.iter().filter(|(_, queue)| queue.length() > 0);
        waiting.map(|(id, _)| self.rounds.of(*id)).min()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::grant::Grant;
    use super::*;

    /// Pushes a request; returns the receiver of its permit.
    fn push(queue: &mut CredentialQueue, credential: u64, account: u64, urgency: Urgency) -> oneshot::Receiver<Grant> {
        let (permit, receiver) = oneshot::channel();
        let deadline = Moment::from_nanos(u64::MAX);
        queue.push(
            Flow { credential, account },
            urgency,
            QueuedRequest { permit, deadline, renews: Moment::default() },
        );
        receiver
    }

    /// Serves `permits` requests; returns how many of the receivers got one.
    fn served(queue: &mut CredentialQueue, permits: usize, receivers: &mut [oneshot::Receiver<Grant>]) -> usize {
        for _ in 0..permits {
            queue.pop().expect("a request waits").permit.send(Grant::Local).expect("it is not cancelled");
        }
        receivers.iter_mut().filter_map(|receiver| receiver.try_recv().ok()).count()
    }

    #[test]
    fn a_credential_with_many_accounts_has_no_more_turns_than_one_with_one() {
        for (greedy, urgency) in [(100, Urgency::Foreground), (20, Urgency::Foreground), (100, Urgency::Background)] {
            let mut queue = CredentialQueue::default();
            let _greedy: Vec<_> = (0..greedy).map(|account| push(&mut queue, 1, account, urgency)).collect();
            let mut modest: Vec<_> = (0..10).map(|_| push(&mut queue, 2, 1, urgency)).collect();
            let served = served(&mut queue, 20, &mut modest);
            assert!(served >= 6, "{served} of 20 turns, beside {greedy} accounts, {urgency:?}");
        }
    }

    #[test]
    fn within_a_credential_accounts_take_turns() {
        let mut queue = CredentialQueue::default();
        let _greedy: Vec<_> = (0..100).map(|_| push(&mut queue, 1, 1, Urgency::Foreground)).collect();
        let mut modest: Vec<_> = (0..5).map(|_| push(&mut queue, 1, 2, Urgency::Foreground)).collect();
        assert_eq!(served(&mut queue, 11, &mut modest), 5);
    }

    #[test]
    fn a_full_queue_drops_from_the_credential_with_the_most_requests() {
        let mut queue = CredentialQueue::default();
        let mut greedy: Vec<_> = (0..50).map(|account| push(&mut queue, 1, account, Urgency::Foreground)).collect();
        assert!(queue.make_room(Flow { credential: 2, account: 7 }, Urgency::Foreground));
        assert_eq!(queue.length(), 49);
        let dropped =
            |receiver: &mut oneshot::Receiver<Grant>| receiver.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(greedy.iter_mut().map(dropped).filter(|dropped| *dropped).count(), 1);
        assert!(!queue.make_room(Flow { credential: 1, account: 99 }, Urgency::Foreground), "its own are as short");
    }

    #[test]
    fn cancelled_requests_cost_a_credential_nothing() {
        let mut queue = CredentialQueue::default();
        drop((0..30).map(|account| push(&mut queue, 1, account, Urgency::Foreground)).collect::<Vec<_>>());
        let mut live = [push(&mut queue, 2, 1, Urgency::Background)];
        assert_eq!((queue.depth().total(), served(&mut queue, 1, &mut live)), (1, 1));
        assert!(queue.pop().is_none());
    }
}
