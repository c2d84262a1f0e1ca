//! The time slots of replicas that are alone: they take turns by the fleet's clock.

use std::num::NonZeroU32;
use std::time::Duration;

use super::membership::Members;

/// The time slots of a replica that is alone: of `count` slots, one after the other, the one with number `own` is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSlots {
    /// The number of slots.
    pub count: u32,
    /// The replica's own one.
    pub own: u32,
}

impl TimeSlots {
    /// The slots of a replica that last had these members, of at most `replicas`; without a rank it takes `random_rank`. `None`
    /// if it has no slot, since more replicas run than the configuration says.
    pub(super) fn of(members: Members, replicas: u32, random_rank: u32) -> Option<Self> {
        let count = members.known.max(replicas);
        let own = if members.known == 0 { random_rank } else { members.rank? };
        (own < replicas).then_some(Self { count, own })
    }

    /// Returns whether a slot is the replica's own.
    pub(super) fn is_own(self, slot: u64) -> bool {
        slot % u64::from(self.count.max(1)) == u64::from(self.own)
    }

    /// Time until the next slot after the present one that is the replica's own.
    pub(super) fn until_next_own(self, micros: u64, per_second: NonZeroU32) -> Duration {
        let count = u64::from(self.count.max(1));
        let slot = slot_at(micros, per_second);
        let ahead = (u64::from(self.own) + count - slot % count) % count;
        let next = slot + if ahead == 0 { count } else { ahead };
        let begins = (u128::from(next) * 1_000_000).div_ceil(u128::from(per_second.get()));
        Duration::from_micros(u64::try_from(begins).unwrap_or(u64::MAX).saturating_sub(micros))
    }
}

/// The number of the slot at `micros`, of those that follow one another `per_second`.
pub(super) fn slot_at(micros: u64, per_second: NonZeroU32) -> u64 {
    let slot = u128::from(micros) * u128::from(per_second.get()) / 1_000_000;
    u64::try_from(slot).unwrap_or(u64::MAX)
}
