//! Waiters in their lines, one for each linked account, and whose turn it is.
//!
//! Self-clocked fair queueing with turns for cost: a line that was served has its next turn one round later. A line may be
//! ahead of the one that was served least by [`LEEWAY`] turns and no more. Among those that are not, callers go before
//! renewals, round by round; and of renewals the oldest of all goes first, since that is what keeps the oldest answer young.
//! So a line that asks for more than its share has used its leeway up soon and then waits for itself, however urgent it is.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use super::{FlowId, Urgency, Waiting};
use crate::clock::Moment;

/// PermitQueue by which a line may be ahead of the one that was served least.
const LEEWAY: u64 = 8;
/// Idle lines of which it is remembered that they are ahead.
const REMEMBERED: usize = 8192;

/// FairQueue of waiters.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// The round that is served: lines without a round of their own take part in it.
    round: u64,
    /// The round of the next turn of lines that are ahead.
    rounds: HashMap<FlowId, u64, foldhash::fast::RandomState>,
    queues: HashMap<FlowId, Queue, foldhash::fast::RandomState>,
    waiting: Waiting,
}

/// Who waits in one line.
#[derive(Debug, Default)]
struct Queue {
    callers: VecDeque<QueuedRequest>,
    renewals: VecDeque<QueuedRequest>,
}

/// Somebody who waits for a slot.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) slot: oneshot::Sender<()>,
    /// It goes away then.
    pub(super) deadline: Moment,
    /// When what it renews was asked for; of each kind in a line the oldest goes first.
    pub(super) renews: Moment,
}

impl Queue {
    fn of(&self, urgency: Urgency) -> &VecDeque<QueuedRequest> {
        match urgency {
            Urgency::Foreground => &self.callers,
            Urgency::Background => &self.renewals,
        }
    }

    fn of_mut(&mut self, urgency: Urgency) -> &mut VecDeque<QueuedRequest> {
        match urgency {
            Urgency::Foreground => &mut self.callers,
            Urgency::Background => &mut self.renewals,
        }
    }

    fn is_empty(&self) -> bool {
        self.callers.is_empty() && self.renewals.is_empty()
    }

    /// The kind of waiter that goes next, and what the oldest of that kind renews.
    fn head(&self) -> Option<(Urgency, Moment)> {
        [Urgency::Foreground, Urgency::Background].into_iter().find_map(|urgency| {
            let oldest = self.of(urgency).iter().map(|waiter| waiter.renews).min()?;
            Some((urgency, oldest))
        })
    }

    fn take(&mut self, urgency: Urgency) -> Option<QueuedRequest> {
        let waiters = self.of_mut(urgency);
        let oldest = waiters.iter().enumerate().min_by_key(|(_, waiter)| waiter.renews)?.0;
        waiters.remove(oldest)
    }
}

impl FairQueue {
    /// All that stand in line; some may have left without a word.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.callers + self.waiting.renewals
    }

    /// How many of one kind stand in line; some may have left without a word.
    pub(super) fn waiting_for(&self, urgency: Urgency) -> usize {
        match urgency {
            Urgency::Foreground => self.waiting.callers,
            Urgency::Background => self.waiting.renewals,
        }
    }

    /// Those who have not left.
    pub(super) fn still_there(&self) -> Waiting {
        let there = |urgency| {
            let waiters = self.queues.values().flat_map(|queue| queue.of(urgency));
            waiters.filter(|waiter| !waiter.slot.is_closed()).count()
        };
        Waiting { callers: there(Urgency::Foreground), renewals: there(Urgency::Background) }
    }

    /// Puts a waiter into its line.
    pub(super) fn join(&mut self, line: FlowId, urgency: Urgency, waiter: QueuedRequest) {
        self.queues.entry(line).or_default().of_mut(urgency).push_back(waiter);
        *self.count(urgency) += 1;
    }

    /// Makes room for one more in a line by sending away the last of its kind in the longest line; `false` if that is this
    /// one.
    pub(super) fn make_room(&mut self, line: FlowId, urgency: Urgency) -> bool {
        let own = self.queues.get(&line).map_or(0, |queue| queue.of(urgency).len());
        let lengths = self.queues.iter_mut().map(|(line, queue)| (*line, queue.of_mut(urgency)));
        match lengths.max_by_key(|(line, waiters)| (waiters.len(), *line)) {
            Some((_, waiters)) if waiters.len() > own + 1 => {
                waiters.pop_back();
                *self.count(urgency) -= 1;
                true
            }
            _ => false,
        }
    }

    /// How many would be served before one more in a line: the lines go round, so those behind the same number in other
    /// lines do not count; unless this line is ahead, and has to let the others come along.
    pub(super) fn before(&self, line: FlowId, urgency: Urgency) -> usize {
        let own_queue = self.queues.get(&line);
        let own = own_queue.map_or(0, |queue| queue.of(urgency).len());
        let before = |(other, queue): (&FlowId, &Queue)| {
            let waiters = queue.of(urgency).len();
            if *other == line { own } else { waiters.min(own + 1) }
        };
        let callers = if urgency == Urgency::Background { self.waiting.callers } else { 0 };
        let in_turn = callers + self.queues.iter().map(before).sum::<usize>();
        let turn = self.round_of(line) + u64::try_from(own).unwrap_or(u64::MAX);
        let ahead = turn.saturating_sub(self.least().unwrap_or(turn).saturating_add(LEEWAY));
        let others = self.queues.len() - usize::from(own_queue.is_some());
        in_turn.max(usize::try_from(ahead).unwrap_or(usize::MAX).saturating_mul(others))
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        let waiters = self.queues.values().flat_map(|queue| queue.callers.iter().chain(&queue.renewals));
        waiters.map(|waiter| waiter.deadline)
    }

    /// The next waiter in turn who is still there.
    pub(super) fn next(&mut self) -> Option<QueuedRequest> {
        while let Some((line, urgency)) = self.turn() {
            let next_round = self.round_of(line) + 1;
            let queue = self.queues.get_mut(&line)?;
            let next = queue.take(urgency);
            if queue.is_empty() {
                self.queues.remove(&line);
            }
            *self.count(urgency) -= usize::from(next.is_some());
            match next {
                Some(waiter) if !waiter.slot.is_closed() => {
                    self.served(line, next_round);
                    return Some(waiter);
                }
                // It has left: its line has lost nothing.
                _ => {}
            }
        }
        None
    }

    /// Sends away those who have left or whose time is over.
    pub(super) fn tidy(&mut self, now: Moment) {
        let stays = |waiter: &QueuedRequest| !waiter.slot.is_closed() && waiter.deadline > now;
        self.waiting = Waiting::default();
        self.queues.retain(|_, queue| {
            queue.callers.retain(stays);
            queue.renewals.retain(stays);
            self.waiting.callers += queue.callers.len();
            self.waiting.renewals += queue.renewals.len();
            !queue.is_empty()
        });
    }

    fn count(&mut self, urgency: Urgency) -> &mut usize {
        match urgency {
            Urgency::Foreground => &mut self.waiting.callers,
            Urgency::Background => &mut self.waiting.renewals,
        }
    }

    fn round_of(&self, line: FlowId) -> u64 {
        self.rounds.get(&line).map_or(self.round, |round| self.round.max(*round))
    }

    /// The round of the line that was served least.
    fn least(&self) -> Option<u64> {
        self.queues.keys().map(|line| self.round_of(*line)).min()
    }

    /// The line that is served next, and which kind of waiter in it.
    fn turn(&mut self) -> Option<(FlowId, Urgency)> {
        let least = self.least()?;
        self.round = least;
        let in_turn = self.queues.iter().filter_map(|(line, queue)| {
            let round = self.round_of(*line);
            let (urgency, oldest) = queue.head().filter(|_| round <= least + LEEWAY)?;
            let order = match urgency {
                Urgency::Foreground => (0, round, oldest, round),
                Urgency::Background => (1, 0, oldest, round),
            };
            Some((order, *line, urgency))
        });
        in_turn.min_by_key(|(order, line, _)| (*order, *line)).map(|(_, line, urgency)| (line, urgency))
    }

    fn served(&mut self, line: FlowId, next_round: u64) {
        self.rounds.insert(line, next_round);
        if self.rounds.len() > REMEMBERED {
            let round = self.round;
            self.rounds.retain(|_, next| *next > round);
            if self.rounds.len() > REMEMBERED {
                // So many that none of them can be far ahead.
                self.rounds.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
