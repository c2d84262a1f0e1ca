//! The order of turns on one level of fairness: self-clocked fair queueing, as `fair_queue` explains it.

use std::collections::HashMap;

use super::flow::Urgency;
use crate::clock::Moment;

/// Rounds by which a flow may be ahead of the least served one.
pub(super) const LEEWAY: u64 = 8;
/// Maximum number of idle flows whose round is remembered.
const MAX_REMEMBERED: usize = 8192;

/// The rounds in which the flows of one level are due, by the number that stands for the flow.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The round being served; a flow without a round of its own is due in it.
    present: u64,
    /// The rounds in which flows that are ahead are due next.
    next: HashMap<u64, u64, foldhash::fast::RandomState>,
}

/// Rank of a flow among those that may be served now; the least is next. Foreground requests go round by round, background
/// requests by the age of the response that they renew.
pub(super) type Turn = (u8, u64, Moment, u64);

/// Returns the rank of a flow that is due in a round, by its most urgent request.
pub(super) fn turn(urgency: Urgency, round: u64, oldest: Moment) -> Turn {
    match urgency {
        Urgency::Foreground => (0, round, oldest, round),
        Urgency::Background => (1, 0, oldest, round),
    }
}

/// Returns the rounds by which a flow that is due in a round has used up its leeway. `least` is the round of the least served
/// flow.
pub(super) fn rounds_ahead(due: u64, least: Option<u64>) -> usize {
    let ahead = due.saturating_sub(least.unwrap_or(due).saturating_add(LEEWAY));
    usize::try_from(ahead).unwrap_or(usize::MAX)
}

impl Rounds {
    /// Returns the round in which a flow is due.
    pub(super) fn of(&self, flow: u64) -> u64 {
        self.next.get(&flow).map_or(self.present, |round| self.present.max(*round))
    }

    /// Begins to serve a round, that of the least served flow.
    pub(super) fn serve(&mut self, round: u64) {
        self.present = round;
    }

    /// Returns whether a flow that is due in `round` may be served in the present one.
    pub(super) fn is_in_leeway(&self, round: u64) -> bool {
        round <= self.present + LEEWAY
    }

    /// Makes a flow due one round earlier: it did not use its turn.
    pub(super) fn give_back(&mut self, flow: u64) {
        if let Some(next) = self.next.get_mut(&flow) {
            *next = next.saturating_sub(1);
        }
    }

    /// Sets the round in which a flow is due next.
    pub(super) fn set(&mut self, flow: u64, round: u64) {
        self.next.insert(flow, round);
        if self.next.len() > MAX_REMEMBERED {
            let present = self.present;
            self.next.retain(|_, next| *next > present);
            if self.next.len() > MAX_REMEMBERED {
                // With so many flows ahead, none can be far ahead.
                self.next.clear();
            }
        }
    }
}
