//! Queue of upstream requests that wait for a permit, fair across flows.
//!
//! Self-clocked fair queueing (Golestani, 1994) in which every request costs one permit: a flow that receives a permit in one
//! round is due again one round later. A flow may be at most 8 rounds ahead of the least served one. Among the flows
//! that are not further ahead, foreground requests go before background requests, round by round. Of background requests the
//! one whose cached response is oldest goes first, which minimises the age of the oldest response. So a flow that sends more
//! than its share soon exhausts its leeway and then delays only itself, however urgent its requests are.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use super::flow::{FlowId, Urgency};
use super::grant::Grant;
use super::rounds::{Rounds, rounds_ahead, turn};
use crate::clock::Moment;

/// Waiting requests in one queue per flow, and the order in which they receive permits.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    rounds: Rounds,
    flows: HashMap<FlowId, FlowQueue, foldhash::fast::RandomState>,
    /// Length of all queues, cancelled requests included.
    length: QueueDepth,
}

/// The waiting requests of one flow.
#[derive(Debug, Default)]
struct FlowQueue {
    foreground: VecDeque<QueuedRequest>,
    background: VecDeque<QueuedRequest>,
}

/// A request that waits for a permit. It is cancelled if the receiver of `permit` is dropped.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) permit: oneshot::Sender<Grant>,
    /// The request is refused at this moment.
    pub(super) deadline: Moment,
    /// Request time of the cached response that this request renews. Within a flow and an urgency the oldest goes first.
    pub(super) renews: Moment,
}

/// Number of upstream requests that wait for a permit, by urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Requests for whose response a caller waits.
    pub foreground: usize,
    /// Requests that renew a cached response.
    pub background: usize,
}

impl QueueDepth {
    /// Returns the number of requests of both urgencies.
    #[must_use]
    pub fn total(self) -> usize {
        self.foreground + self.background
    }

    fn of(self, urgency: Urgency) -> usize {
        match urgency {
            Urgency::Foreground => self.foreground,
            Urgency::Background => self.background,
        }
    }

    fn of_mut(&mut self, urgency: Urgency) -> &mut usize {
        match urgency {
            Urgency::Foreground => &mut self.foreground,
            Urgency::Background => &mut self.background,
        }
    }
}

impl FlowQueue {
    fn of(&self, urgency: Urgency) -> &VecDeque<QueuedRequest> {
        match urgency {
            Urgency::Foreground => &self.foreground,
            Urgency::Background => &self.background,
        }
    }

    fn of_mut(&mut self, urgency: Urgency) -> &mut VecDeque<QueuedRequest> {
        match urgency {
            Urgency::Foreground => &mut self.foreground,
            Urgency::Background => &mut self.background,
        }
    }

    fn is_empty(&self) -> bool {
        self.foreground.is_empty() && self.background.is_empty()
    }

    /// Returns the urgency of the flow's next request and the oldest `renews` of that urgency.
    fn head(&self) -> Option<(Urgency, Moment)> {
        Urgency::ALL.into_iter().find_map(|urgency| {
            let oldest = self.of(urgency).iter().map(|request| request.renews).min()?;
            Some((urgency, oldest))
        })
    }

    fn take_oldest(&mut self, urgency: Urgency) -> Option<QueuedRequest> {
        let requests = self.of_mut(urgency);
        let oldest = requests.iter().enumerate().min_by_key(|(_, request)| request.renews)?.0;
        requests.remove(oldest)
    }
}

impl FairQueue {
    /// Number of queued requests. Cancelled ones count until they are removed.
    pub(super) fn length(&self) -> usize {
        self.length.total()
    }

    /// Number of queued requests of one urgency. Cancelled ones count until they are removed.
    pub(super) fn length_of(&self, urgency: Urgency) -> usize {
        self.length.of(urgency)
    }

    /// Counts the requests that are not cancelled.
    pub(super) fn depth(&self) -> QueueDepth {
        let open = |urgency| {
            let requests = self.flows.values().flat_map(|flow| flow.of(urgency));
            requests.filter(|request| !request.permit.is_closed()).count()
        };
        QueueDepth { foreground: open(Urgency::Foreground), background: open(Urgency::Background) }
    }

    /// Adds a request at the end of its flow.
    pub(super) fn push(&mut self, flow: FlowId, urgency: Urgency, request: QueuedRequest) {
        self.flows.entry(flow).or_default().of_mut(urgency).push_back(request);
        *self.length.of_mut(urgency) += 1;
    }

    /// Drops the last request of the longest flow; returns `false` if there is none.
    pub(super) fn drop_last_of_longest(&mut self, urgency: Urgency) -> bool {
        let queues = self.flows.iter_mut().map(|(id, flow)| (*id, flow.of_mut(urgency)));
        let longest = queues.max_by_key(|(id, requests)| (requests.len(), *id));
        let is_dropped = longest.is_some_and(|(_, requests)| requests.pop_back().is_some());
        *self.length.of_mut(urgency) -= usize::from(is_dropped);
        is_dropped
    }

    /// Makes room for one more request of `flow` by dropping the last request of the longest flow. Returns `false`, and
    /// drops nothing, if no flow is longer than `flow` would become.
    pub(super) fn make_room(&mut self, flow: FlowId, urgency: Urgency) -> bool {
        let own = self.flows.get(&flow).map_or(0, |flow| flow.of(urgency).len());
        let longest = self.flows.values().map(|flow| flow.of(urgency).len()).max();
        longest.is_some_and(|longest| longest > own + 1) && self.drop_last_of_longest(urgency)
    }

    /// Estimates how many requests would be served before one more request of `flow`. Flows are served round by round, so
    /// of each other flow at most as many requests count as `flow` would have. A flow that is ahead first lets the other
    /// flows catch up.
    pub(super) fn position(&self, flow: FlowId, urgency: Urgency) -> usize {
        let own_flow = self.flows.get(&flow);
        let own = own_flow.map_or(0, |flow| flow.of(urgency).len());
        let before = |(id, other): (&FlowId, &FlowQueue)| {
            let requests = other.of(urgency).len();
            if *id == flow { own } else { requests.min(own + 1) }
        };
        let foreground = if urgency == Urgency::Background { self.length.foreground } else { 0 };
        let by_rounds = foreground + self.flows.iter().map(before).sum::<usize>();
        let due = self.rounds.of(flow) + u64::try_from(own).unwrap_or(u64::MAX);
        let others = self.flows.len() - usize::from(own_flow.is_some());
        by_rounds.max(rounds_ahead(due, self.least_round()).saturating_mul(others))
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        let requests = self.flows.values().flat_map(|flow| flow.foreground.iter().chain(&flow.background));
        requests.map(|request| request.deadline)
    }

    /// Removes and returns the next request that is not cancelled.
    pub(super) fn pop(&mut self) -> Option<QueuedRequest> {
        while let Some((id, urgency)) = self.next_flow() {
            let next_round = self.rounds.of(id) + 1;
            let flow = self.flows.get_mut(&id)?;
            let request = flow.take_oldest(urgency);
            if flow.is_empty() {
                self.flows.remove(&id);
            }
            *self.length.of_mut(urgency) -= usize::from(request.is_some());
            match request {
                Some(request) if !request.permit.is_closed() => {
                    self.rounds.set(id, next_round);
                    return Some(request);
                }
                // A cancelled request costs its flow nothing.
                _ => {}
            }
        }
        None
    }

    /// Removes and returns the next request of a flow that is not cancelled. The fleet decides on the order of flows.
    pub(super) fn pop_of(&mut self, flow: FlowId, urgency: Urgency) -> Option<QueuedRequest> {
        let least = self.least_round()?;
        self.rounds.serve(least);
        let next_round = self.rounds.of(flow) + 1;
        let queue = self.flows.get_mut(&flow)?;
        let mut next = None;
        while next.is_none()
            && let Some(request) = queue.take_oldest(urgency)
        {
            *self.length.of_mut(urgency) -= 1;
            next = Some(request).filter(|request| !request.permit.is_closed());
        }
        if queue.is_empty() {
            self.flows.remove(&flow);
        }
        if next.is_some() {
            self.rounds.set(flow, next_round);
        }
        next
    }

    /// Drops the requests of a flow, which refuses them.
    pub(super) fn refuse(&mut self, flow: FlowId, urgency: Urgency) {
        if let Some(queue) = self.flows.get_mut(&flow) {
            *self.length.of_mut(urgency) -= std::mem::take(queue.of_mut(urgency)).len();
            if queue.is_empty() {
                self.flows.remove(&flow);
            }
        }
    }

    /// Returns the flows and urgencies that wait, each with its oldest `renews`, in the order in which they would be served, up to a
    /// number.
    pub(super) fn heads(&self, most: usize) -> Vec<(FlowId, Urgency, Moment)> {
        let heads = self.flows.iter().flat_map(|(id, flow)| Urgency::ALL.map(|urgency| (*id, flow, urgency)));
        let ranked = heads.filter_map(|(id, flow, urgency)| {
            let open = flow.of(urgency).iter().filter(|request| !request.permit.is_closed());
            let oldest = open.map(|request| request.renews).min()?;
            Some((turn(urgency, self.rounds.of(id), oldest), id, urgency, oldest))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable_by_key(|(turn, id, ..)| (*turn, *id));
        ranked.into_iter().take(most).map(|(_, id, urgency, oldest)| (id, urgency, oldest)).collect()
    }

    /// Gives a flow back the turn in which it was served last: it did not use it.
    pub(super) fn give_turn_back(&mut self, flow: FlowId) {
        self.rounds.give_back(flow);
    }

    /// Removes the requests that are cancelled or past their deadline. Dropping `permit` refuses them.
    pub(super) fn remove_expired(&mut self, now: Moment) {
        let stays = |request: &QueuedRequest| !request.permit.is_closed() && request.deadline > now;
        self.length = QueueDepth::default();
        self.flows.retain(|_, flow| {
            flow.foreground.retain(stays);
            flow.background.retain(stays);
            self.length.foreground += flow.foreground.len();
            self.length.background += flow.background.len();
            !flow.is_empty()
        });
    }

    /// Returns the urgency of the next request, and the oldest request time of a response that its flow renews.
    pub(super) fn peek(&mut self) -> Option<(Urgency, Moment)> {
        let (id, _) = self.next_flow()?;
        self.flows.get(&id)?.head()
    }

    /// Returns the round of the least served flow that has requests.
    fn least_round(&self) -> Option<u64> {
        self.flows.keys().map(|id| self.rounds.of(*id)).min()
    }

    /// Returns the flow that is served next and the urgency of its next request.
    fn next_flow(&mut self) -> Option<(FlowId, Urgency)> {
        let least = self.least_round()?;
        self.rounds.serve(least);
        let candidates = self.flows.iter().filter_map(|(id, flow)| {
            let round = self.rounds.of(*id);
            let (urgency, oldest) = flow.head().filter(|_| self.rounds.is_in_leeway(round))?;
            Some((turn(urgency, round, oldest), *id, urgency))
        });
        candidates.min_by_key(|(turn, id, _)| (*turn, *id)).map(|(_, id, urgency)| (id, urgency))
    }
}

#[cfg(test)]
mod tests;
