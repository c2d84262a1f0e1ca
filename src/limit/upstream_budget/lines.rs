//! Waiters in their lines, one for each linked account, and whose turn it is.
//!
//! Self-clocked fair queueing with turns for cost: a line that was served has its next turn one round later. Callers are
//! served strictly round by round. Renewals have some leeway: a line may be ahead of its share by [`LEEWAY`] turns if what it
//! renews is the oldest of all, since that is what keeps the oldest answer young; a line that asks for more than its share
//! has used its leeway up soon and then waits for itself.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use super::{Line, Urgency};
use crate::clock::Moment;

/// Turns by which a line of renewals may be ahead of the one that is served least.
const LEEWAY: u64 = 8;
/// Idle lines of which it is remembered that they are ahead.
const REMEMBERED: usize = 8192;

/// Lines of waiters of one urgency.
#[derive(Debug)]
pub(super) struct Lines {
    leeway: u64,
    /// The round that is served: lines without a round of their own take part in it.
    round: u64,
    /// The round of the next turn of lines that are ahead.
    rounds: HashMap<Line, u64, foldhash::fast::RandomState>,
    waiters: HashMap<Line, VecDeque<Waiter>, foldhash::fast::RandomState>,
    waiting: usize,
}

/// Somebody who waits for a slot.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) slot: oneshot::Sender<()>,
    /// It goes away then.
    pub(super) deadline: Moment,
    /// When what it renews was asked for; within a line the oldest goes first.
    pub(super) renews: Moment,
}

impl Lines {
    pub(super) fn new(urgency: Urgency) -> Self {
        Self {
            leeway: match urgency {
                Urgency::Foreground => 0,
                Urgency::Background => LEEWAY,
            },
            round: 0,
            rounds: HashMap::default(),
            waiters: HashMap::default(),
            waiting: 0,
        }
    }

    /// All that stand in line; some may have left without a word.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Those among them who have not left.
    pub(super) fn still_there(&self) -> usize {
        self.waiters.values().flatten().filter(|waiter| !waiter.slot.is_closed()).count()
    }

    /// Puts a waiter into its line.
    pub(super) fn join(&mut self, line: Line, waiter: Waiter) {
        self.waiters.entry(line).or_default().push_back(waiter);
        self.waiting += 1;
    }

    /// Makes room for one more in a line by sending away the last of the longest line; `false` if that is this one.
    pub(super) fn make_room(&mut self, line: Line) -> bool {
        let own = self.waiters.get(&line).map_or(0, VecDeque::len);
        let longest = self.waiters.iter_mut().max_by_key(|(line, waiters)| (waiters.len(), **line));
        match longest {
            Some((_, waiters)) if waiters.len() > own + 1 => {
                self.waiting -= usize::from(waiters.pop_back().is_some());
                true
            }
            _ => false,
        }
    }

    /// How many would be served before one more in a line: the lines go round, so those behind the same number in other
    /// lines do not count.
    pub(super) fn before(&self, line: Line) -> usize {
        let own = self.waiters.get(&line).map_or(0, VecDeque::len);
        let before = |(other, waiters): (&Line, &VecDeque<Waiter>)| {
            if *other == line { own } else { waiters.len().min(own + 1) }
        };
        self.waiters.iter().map(before).sum()
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        self.waiters.values().flatten().map(|waiter| waiter.deadline)
    }

    /// The next waiter in turn who is still there.
    pub(super) fn next(&mut self) -> Option<Waiter> {
        while let Some(line) = self.turn() {
            let next_round = self.round_of(line) + 1;
            let Some(waiters) = self.waiters.get_mut(&line) else { continue };
            let oldest = waiters.iter().enumerate().min_by_key(|(_, waiter)| waiter.renews).map(|(index, _)| index);
            let next = oldest.and_then(|oldest| waiters.remove(oldest));
            self.waiting -= usize::from(next.is_some());
            if waiters.is_empty() {
                self.waiters.remove(&line);
            }
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
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.slot.is_closed() && waiter.deadline > now);
            !waiters.is_empty()
        });
        self.waiting = self.waiters.values().map(VecDeque::len).sum();
    }

    fn round_of(&self, line: Line) -> u64 {
        self.rounds.get(&line).map_or(self.round, |round| self.round.max(*round))
    }

    /// The line that is served next.
    fn turn(&mut self) -> Option<Line> {
        let least = self.waiters.keys().map(|line| self.round_of(*line)).min()?;
        self.round = least;
        let oldest = |waiters: &VecDeque<Waiter>| waiters.iter().map(|waiter| waiter.renews).min();
        let in_turn = self.waiters.iter().filter_map(|(line, waiters)| {
            let round = self.round_of(*line);
            (round <= least + self.leeway).then(|| (oldest(waiters), round, *line))
        });
        in_turn.min().map(|(.., line)| line)
    }

    fn served(&mut self, line: Line, next_round: u64) {
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
