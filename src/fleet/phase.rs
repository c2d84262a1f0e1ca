//! The phase of a replica for the hit path, in one load: it shares with its fleet, or goes on alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::membership::FleetState;
use crate::clock::Moment;

/// Set in the word of a replica that is alone; the other bits are the time since when.
const ALONE: u64 = 1 << 63;

/// The present phase. One thread writes it.
#[derive(Debug)]
pub(super) struct CurrentPhase {
    word: AtomicU64,
    episode: AtomicU64,
}

/// A phase in the life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The replica shares with its fleet, or is about to. A new episode begins with each return to the fleet.
    Together {
        /// The number of the episode, from 1.
        episode: u32,
    },
    /// The server is away, and the replica has its share.
    Alone {
        /// The beginning.
        since: Moment,
        /// The episode before.
        episode: u32,
    },
}

impl CurrentPhase {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(1), episode: AtomicU64::new(1) }
    }

    /// The phase. Part of the hit path.
    #[inline]
    pub(super) fn get(&self) -> Phase {
        match self.word.load(Ordering::Acquire) {
            word if word & ALONE == 0 => Phase::Together { episode: number(word) },
            word => Phase::Alone {
                since: Moment::from_nanos(word & !ALONE),
                episode: number(self.episode.load(Ordering::Acquire)),
            },
        }
    }

    /// Follows the state at `now`.
    pub(super) fn follow(&self, state: FleetState, now: Moment) {
        let is_alone = state == FleetState::Alone;
        match self.get() {
            Phase::Together { .. } if is_alone => self.word.store(ALONE | now.as_nanos(), Ordering::Release),
            Phase::Alone { .. } if !is_alone => {
                let episode = self.episode.load(Ordering::Relaxed) + 1;
                self.episode.store(episode, Ordering::Release);
                self.word.store(episode, Ordering::Release);
            }
            Phase::Together { .. } | Phase::Alone { .. } => {}
        }
    }
}

/// An episode's number. There are far fewer than 2^32.
fn number(episode: u64) -> u32 {
    u32::try_from(episode).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_return_to_the_fleet_begins_a_new_episode() {
        let at = Moment::from_nanos;
        let phase = CurrentPhase::new();
        let mut seen = Vec::new();
        for (nanos, state) in [
            (1, FleetState::Joining),
            (2, FleetState::Shared),
            (3, FleetState::Limbo),
            (4, FleetState::Alone),
            (5, FleetState::Alone),
            (6, FleetState::Joining),
            (7, FleetState::Shared),
        ] {
            phase.follow(state, at(nanos));
            seen.push(phase.get());
        }
        let (first, second) = (Phase::Together { episode: 1 }, Phase::Together { episode: 2 });
        let alone = Phase::Alone { since: at(4), episode: 1 };
        assert_eq!(seen, [first, first, first, alone, alone, second, second]);
    }
}
