//! The membership of a replica in its fleet, which follows from the answers to its beats. Pure: time is passed in.
//!
//! A beat renews two terms. The *lease* is the server's: while it lasts, the server counts this replica as one that asks it for
//! its share. *Trust* is the replica's own: while it lasts, what the replica knows from the server is current. A replica goes
//! on alone only when its lease has surely ended, so that no share is used twice.

use std::time::Duration;

use super::reckoning::Reckoning;
use crate::clock::Moment;

/// A lease lasts this long from the server's receipt of a beat.
pub const LEASE: Duration = Duration::from_millis(750);
/// Trust lasts this long from the sending of an answered beat.
pub const TRUST: Duration = Duration::from_millis(300);
/// A beat that reaches the server later than this is refused.
pub(super) const LONGEST_DELAY: Duration = Duration::from_millis(200);
/// A replica that has had no answer for this long is alone.
pub(super) const ALONE_AFTER: Duration = Duration::from_secs(1);
/// The server leaves the share of a replica whose lease has ended to it for this long.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);
/// Shortest and longest pause between two beats.
pub(super) const BEAT_MILLIS: std::ops::RangeInclusive<u64> = 80..=100;

/// The relation of a replica to the rest of its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetState {
    /// The server answers: budgets are shared by its scripts.
    Shared,
    /// The server has not answered for a moment: it is still asked, and nothing from it is current.
    Limbo,
    /// The server is away: the replica has its share in time slots.
    Alone,
    /// The server is connected, and has not yet confirmed the membership: the replica has no budget.
    Joining,
}

impl FleetState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Shared, Self::Limbo, Self::Alone, Self::Joining];

    /// The name in logs, metrics and on the status page.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Limbo => "limbo",
            Self::Alone => "alone",
            Self::Joining => "joining",
        }
    }
}

/// The knowledge of the membership until the next beat; the state at a moment follows from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// When the process started.
    started: Moment,
    /// When the last answered beat was sent.
    pub(super) last_good: Option<Moment>,
    /// When the lease of the last beat that was sent has ended, even if it was received as late as possible.
    lease_over: Moment,
    /// True from a connection until its first answered beat, unless the membership has outlasted the connection before.
    is_joining: bool,
    /// The clock of the server, as last reckoned. After it was set, from when the server was told so.
    pub(super) reckoning: Option<Reckoning>,
    /// The members at the last answered beat.
    pub(super) members: Members,
}

/// The members of the fleet at a beat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// All that are not forgotten, this replica among them. After the server has lost its state, or this replica was alone, those
    /// before count for a minute.
    pub known: u32,
    /// The members with a lease.
    pub live: u32,
    /// The place of this replica in the time slots, which it keeps while the server knows it; `None` if it has none yet.
    pub rank: Option<u32>,
}

/// The answer to a beat.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Beat {
    /// The server's clock, in microseconds.
    pub(super) server_time: f64,
    /// The membership, unless the beat came too late.
    pub(super) accepted: Option<Accepted>,
}

/// The membership in the answer to a beat.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) epoch: Vec<u8>,
    pub(super) known: u32,
    pub(super) live: u32,
    pub(super) rank: Option<u32>,
}

/// Follows the connections and beats of a replica.
#[derive(Debug)]
pub(super) struct Membership {
    standing: Standing,
    /// The clock of the server by the last readings.
    reading: Option<Reckoning>,
    /// True from a reading that tells that the server's clock was set, until the server was told so.
    clock_was_set: bool,
    /// True if the last beat that was sent tells so.
    is_told: bool,
    /// The replication id of the server of the last connection.
    server: Option<Box<str>>,
    /// The fleet's epoch at the last answered beat.
    epoch: Option<Vec<u8>>,
    /// The number of members before the server's state was lost, or before this replica was alone, and the moment until which it counts:
    /// the others may be alone.
    remembered: Option<(u32, Moment)>,
}

impl Standing {
    /// The state at `now`.
    pub(super) fn state(&self, now: Moment) -> FleetState {
        let age = now.since(self.last_good.unwrap_or(self.started));
        if self.is_joining {
            FleetState::Joining
        } else if self.last_good.is_some() && age <= TRUST {
            FleetState::Shared
        } else if age >= ALONE_AFTER && now >= self.lease_over {
            FleetState::Alone
        } else if self.last_good.is_some() {
            FleetState::Limbo
        } else {
            // A process that has just started: Redis may be connected in a moment.
            FleetState::Joining
        }
    }

    /// Time since the last answered beat was sent; `None` if there was none.
    pub(super) fn lag(&self, now: Moment) -> Option<Duration> {
        self.last_good.map(|good| now.since(good))
    }
}

impl Membership {
    /// The membership of a process that has just started.
    pub(super) fn new(now: Moment) -> Self {
        let standing = Standing {
            started: now,
            last_good: None,
            lease_over: now,
            is_joining: false,
            reckoning: None,
            members: Members::default(),
        };
        Self {
            standing,
            reading: None,
            clock_was_set: false,
            is_told: false,
            server: None,
            epoch: None,
            remembered: None,
        }
    }

    /// The present knowledge.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Records a connection to the server with this replication id, whose clock was read. Nothing from another server is
    /// current. Called before the first beat of the connection is sent.
    pub(super) fn connected(&mut self, now: Moment, server: &str, reckoning: Reckoning) {
        if self.server.as_deref() != Some(server) {
            self.server = Some(server.into());
            self.standing.last_good =
                self.standing.last_good.map(|good| good.min(now - TRUST - Duration::from_nanos(1)));
            self.epoch = None;
            self.remember(now);
            (self.reading, self.clock_was_set) = (None, false);
        }
        let is_member = matches!(self.standing.state(now), FleetState::Shared | FleetState::Limbo);
        if !is_member && self.standing.last_good.is_some() {
            // If no replica reached the server for so long that it forgets all, the others may be alone for a moment longer.
            self.remember(now);
        }
        self.standing.is_joining = !is_member;
        self.read_clock(reckoning);
    }

    /// Records that the connection is lost.
    pub(super) fn disconnected(&mut self) {
        self.standing.is_joining = false;
    }

    /// Records that a beat is sent, whose lease lasts from its receipt, also if its answer never comes.
    pub(super) fn beat_sent(&mut self, now: Moment) {
        self.standing.lease_over = now + LONGEST_DELAY + LEASE;
        self.is_told = self.clock_was_set;
    }

    /// Returns whether the server's clock was set, and the server was not told so yet. The next beat has to.
    pub(super) fn clock_was_set(&self) -> bool {
        self.clock_was_set
    }

    /// The clock of the server by the last readings.
    pub(super) fn reading(&self) -> Option<Reckoning> {
        self.reading
    }

    /// Follows the server's clock. If it was set, what is shown of it stays until the server was told so, since the budgets there
    /// count the time by which it went forward.
    fn read_clock(&mut self, read: Reckoning) {
        let updated = self.reading.map_or(Some(read), |reading| reading.updated(read));
        self.clock_was_set |= updated.is_none();
        self.reading = updated.or(Some(read));
        if !self.clock_was_set {
            self.standing.reckoning = self.reading;
        }
    }

    /// Records the answer to a beat. Returns true if the fleet's epoch is another than before: its state was lost.
    pub(super) fn beat_answered(&mut self, beat: &Beat, sent: Moment, received: Moment) -> bool {
        if std::mem::take(&mut self.is_told) {
            self.clock_was_set = false;
        }
        self.read_clock(Reckoning::new(beat.server_time, sent, received));
        let Some(accepted) = &beat.accepted else { return false };
        let is_new = self.epoch.replace(accepted.epoch.clone()).is_some_and(|before| before != accepted.epoch);
        if is_new {
            self.remember(received);
        }
        let remembered = self.remembered.filter(|(_, until)| received < *until).map_or(0, |(known, _)| known);
        let known = accepted.known.max(remembered);
        self.standing.members = Members { known, live: accepted.live, rank: accepted.rank };
        self.standing.last_good = Some(sent);
        self.standing.is_joining = false;
        is_new
    }

    /// Keeps the number of members that is known now for as long as the server would have.
    fn remember(&mut self, now: Moment) {
        self.remembered = Some((self.standing.members.known, now + FORGOTTEN_AFTER));
    }
}

#[cfg(test)]
mod tests;
