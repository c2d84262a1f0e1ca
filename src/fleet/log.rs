//! The fleet's log of dropped entries and ended fetches, as one replica reads it. Pure: time is passed in.
//!
//! What a replica holds is current as long as it has read the log up to its end, and lately. Each entry of the log names the one
//! before it, so a gap is noticed. Each beat tells the end of the log, so an entry that does not arrive is noticed too, and with
//! it a log that was lost. After either, the replica forgets what it holds.

use std::collections::VecDeque;

use super::membership::TRUST;
use crate::clock::Moment;

/// Beats that can wait for the log to be read up to their end. More are of no use: trust in the first has ended by then.
const MOST_BEATS: usize = 8;

/// The place of an entry in the log: Redis' id of a stream's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogPosition {
    millis: u64,
    sequence: u64,
}

impl LogPosition {
    /// Reads `1700000000000-0`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (millis, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }

    /// Milliseconds and number.
    pub(super) fn parts(self) -> (u64, u64) {
        (self.millis, self.sequence)
    }
}

impl std::fmt::Display for LogPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// Entries that no replica may serve any more. The names are those of [`super::Names::hidden`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DroppedEntries {
    /// The tenant.
    pub tenant: Box<str>,
    /// The partition; `None` for all of the tenant's.
    pub partition: Option<Box<str>>,
}

/// A drop, as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LoggedDrop {
    pub(super) dropped: DroppedEntries,
    /// The generation that the partition or the tenant has since then.
    pub(super) generation: u64,
}

/// The content of an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogEvent {
    Dropped(LoggedDrop),
    /// The fetch of a question has ended.
    Landed {
        question: Box<str>,
        outcome: Box<[u8]>,
    },
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) position: LogPosition,
    /// The entry before it; `None` if the entry does not tell.
    pub(super) after: Option<LogPosition>,
    /// `None` for an event that this version does not know, or that is malformed.
    pub(super) event: Option<LogEvent>,
}

/// The relation of an entry to those that were read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// The next entry.
    Follows,
    /// At least one is missing before it.
    Gap,
    /// An entry that was read before.
    Known,
}

/// Follows the log and the beats.
#[derive(Debug, Default)]
pub(super) struct LogFollower {
    /// The last entry that was read; `None` before the first beat is answered.
    position: Option<LogPosition>,
    /// The fleet's epoch, by the last beat.
    epoch: Option<Vec<u8>>,
    /// The ends of the log that beats have told and that are not reached yet, with the moments at which these beats were sent.
    beats: VecDeque<(LogPosition, Moment)>,
    trusted_until: Moment,
}

impl LogFollower {
    /// The last entry that was read; `None` before the first beat is answered.
    pub(super) fn position(&self) -> Option<LogPosition> {
        self.position
    }

    /// The moment until which what the replica holds is current.
    pub(super) fn trusted_until(&self) -> Moment {
        self.trusted_until
    }

    /// Records a connection to another server than before: what its log lacks is not known.
    pub(super) fn another_server(&mut self) {
        self.epoch = None;
        self.beats.clear();
        self.trusted_until = Moment::default();
    }

    /// Records an answered beat, which was sent at `sent`, when the replica had read up to `read`. Returns true if the replica has
    /// to forget what it holds, and only then goes on with [`LogFollower::settle`].
    #[must_use]
    pub(super) fn beat(&mut self, epoch: &[u8], end: LogPosition, (sent, read): (Moment, Option<LogPosition>)) -> bool {
        let is_lost = self.epoch.as_deref() != Some(epoch) || read.is_none_or(|read| end < read);
        if is_lost {
            self.epoch = Some(epoch.to_vec());
            self.position = Some(end);
            self.beats.clear();
        }
        if self.beats.len() >= MOST_BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back((end, sent));
        is_lost
    }

    /// Records an entry. The replica forgets what it holds at a gap, and applies the entry, before it goes on with
    /// [`LogFollower::settle`].
    #[must_use]
    pub(super) fn entry(&mut self, position: LogPosition, after: Option<LogPosition>) -> Continuity {
        let before = self.position.unwrap_or_default();
        if position <= before {
            return Continuity::Known;
        }
        self.position = Some(position);
        if after == Some(before) { Continuity::Follows } else { Continuity::Gap }
    }

    /// Extends trust by the beats whose end of the log is reached.
    pub(super) fn settle(&mut self) {
        let Some(position) = self.position else { return };
        while let Some((_, sent)) = self.beats.pop_front_if(|(end, _)| *end <= position) {
            self.trusted_until = self.trusted_until.max(sent + TRUST);
        }
    }
}

#[cfg(test)]
mod tests;
