//! Time slots: the share of a replica that is alone. Pure.
//!
//! The fleet's clock is divided into slots of one interval. The slots belong to the replicas in turn, and each lets one request
//! pass. So replicas that can't see each other together keep to the rate.

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

/// The slots of a replica, by the fleet's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSlots {
    /// The number of the present slot, if it is the replica's own one.
    pub present: Option<u64>,
    /// Time until the next own slot begins.
    pub next: Duration,
}

impl TimeSlots {
    /// The slots of a replica that last had these members, of at most `replicas`; without a rank it takes `random_rank`, which
    /// another replica may have too. `None` if it has no slot, since more replicas run than the configuration says.
    pub(super) fn of(members: Members, replicas: u32, random_rank: u32) -> Option<Self> {
        let count = members.known.max(replicas);
        let own = members.rank.unwrap_or(random_rank);
        (own < replicas).then_some(Self { count, own })
    }
}

/// Returns the slots of a replica at `micros` on the fleet's clock. With a stride of `n` it uses every `n`th of its slots.
#[must_use]
pub fn own_slots(micros: u64, interval: Duration, slots: TimeSlots, stride: u64) -> OwnSlots {
    let interval = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX).max(1);
    let round = u64::from(slots.count.max(1)).saturating_mul(stride.max(1));
    let (slot, own) = (micros / interval, u64::from(slots.own));
    let ahead = (own + round - slot % round) % round;
    let next = slot + if ahead == 0 { round } else { ahead };
    let next = Duration::from_micros(next.saturating_mul(interval).saturating_sub(micros));
    OwnSlots { present: (ahead == 0).then_some(slot), next }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_micros(50_500);

    #[test]
    fn each_slot_belongs_to_one_replica() {
        for slot in 0..40 {
            let owners = (0..8).filter(|own| {
                let slots = TimeSlots { count: 8, own: *own };
                own_slots(slot * 50_500 + 17, INTERVAL, slots, 1).present == Some(slot)
            });
            assert_eq!(owners.count(), 1, "{slot}");
        }
    }

    #[test]
    fn the_next_own_slot_begins_after_the_wait() {
        for (own, stride) in [(0, 1), (2, 1), (2, 10)] {
            let slots = TimeSlots { count: 3, own };
            for micros in [0, 1, 50_499, 50_500, 1_700_000_000_000_123] {
                let next = own_slots(micros, INTERVAL, slots, stride).next.as_micros();
                let begin = micros + u64::try_from(next).expect("small");
                let reached = own_slots(begin, INTERVAL, slots, stride);
                assert_eq!(reached.present, Some(begin / 50_500));
                assert_eq!(reached.next.as_micros(), 3 * 50_500 * u128::from(stride));
            }
        }
    }
}
