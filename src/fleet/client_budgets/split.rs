//! The parts of a client budget in a fleet: what the server grants from, and what each replica may hold.

use std::time::Duration;

use crate::config::Rate;

/// The part of the burst that all replicas' leases together have: a quarter. More of it would mean fewer round trips, less of it
/// that one replica alone can grant more of the burst at once.
const LEASED_PART: f64 = 4.0;
/// The part of the burst that all replicas' credits together have: an eighth.
const CREDIT_PART: f64 = 8.0;
/// The part of the rate at which all credits together come back.
const CREDIT_RATE: f64 = 0.03;
/// The server's interval is this much longer than the rate says, since clocks differ.
const CLOCK_MARGIN: f64 = 1.001;

/// The division of a budget.
///
/// `common + replicas * (lease + credit) + in flight <= burst`, and the server's rate and that of the credits together are at most
/// the rate. So the fleet stays within burst + rate * w in every window w: what is consumed in a window was granted by the server
/// in it, or a moment before (it was in flight), was held by a replica when the window began, or is a credit; and a replica's
/// credits are a budget of their own. Not counted are requests on loan ([`Split::most_owed`]), and one request around an outage
/// of a budget without leases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// The rate that the budget grants.
    pub rate: Rate,
    /// The replicas among which it is divided.
    pub replicas: u32,
    /// The burst of the server's bucket, at least 1.
    pub common: f64,
    /// Most requests that a replica holds in advance; 0 if the burst is too small to divide.
    pub lease: u32,
    /// Most requests that a replica grants without having asked, while it knows nothing of the server's bucket; 0 if the burst is
    /// too small.
    pub credit: u32,
}

impl Split {
    /// Divides a budget among `replicas`; what the server grants is used within `delivery`, or not at all.
    #[must_use]
    pub fn new(rate: Rate, replicas: u32, delivery: Duration) -> Self {
        let (burst, replicas) = (rate.burst.get(), replicas.max(1));
        let in_flight = f64::from(rate.per_second.get()) * delivery.as_secs_f64();
        let part = |part: f64| whole((f64::from(burst) - in_flight) / part / f64::from(replicas));
        let (lease, credit) = (part(LEASED_PART), part(CREDIT_PART));
        // Without leases, replicas that are alone have time slots. One more request than the rate is reserved for them, and two
        // are possible: at the end of a slot and at the beginning of the next.
        let reserved = if lease == 0 { 1.0 } else { f64::from(lease + credit) * f64::from(replicas) };
        // A budget always grants something: one whose whole burst is in flight may grant one request more.
        Self { rate, replicas, common: (f64::from(burst) - in_flight - reserved).max(1.0), lease, credit }
    }

    /// The interval between two requests at the rate.
    #[must_use]
    pub fn interval(&self) -> Duration {
        // In whole microseconds, as time slots are.
        Duration::from_micros(1_000_000_u64.div_ceil(self.rate.per_second.get().into()))
    }

    /// The interval on the server, in microseconds.
    #[must_use]
    pub fn server_interval(&self) -> f64 {
        let part = if self.credit == 0 { 1.0 } else { 1.0 - CREDIT_RATE };
        1e6 / f64::from(self.rate.per_second.get()) / part * CLOCK_MARGIN
    }

    /// The time after which a replica has one more credit.
    #[must_use]
    pub fn credit_interval(&self) -> Duration {
        (self.interval() * self.replicas).div_f64(CREDIT_RATE)
    }

    /// The time after which a replica's credit is full.
    #[must_use]
    pub fn credit_time(&self) -> Duration {
        self.credit_interval() * self.credit
    }

    /// The interval between two requests of one replica's share of the rate.
    #[must_use]
    pub fn share_interval(&self) -> Duration {
        self.interval() * self.replicas
    }

    /// Most requests that a replica lets through on loan, when it has nothing left and the server does not answer: its share of a
    /// second, which is about the time until it is alone, and one until it has saved up the first of its share then.
    #[must_use]
    pub fn most_owed(&self) -> u32 {
        self.rate.per_second.get().div_ceil(self.replicas).saturating_add(1)
    }

    /// Most requests that one replica can grant at once.
    #[must_use]
    pub fn most_at_once(&self) -> u32 {
        self.most_on_server().saturating_add(self.lease)
    }

    /// Most requests that the server grants at once.
    #[must_use]
    pub fn most_on_server(&self) -> u32 {
        whole(self.common)
    }
}

/// The whole part of a number; 0 for a negative one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn split(per_second: u32, burst: u32, replicas: u32) -> (f64, u32, u32) {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        let rate = Rate { per_second: number(per_second), burst: number(burst) };
        let split = Split::new(rate, replicas, Duration::from_millis(50));
        (split.common, split.lease, split.credit)
    }

    #[test]
    fn a_budget_is_divided_into_leases_credits_and_what_the_server_keeps() {
        assert_eq!(split(50, 100, 2), (61.5, 12, 6));
        assert_eq!(split(50, 100, 4), (61.5, 6, 3));
        assert_eq!(split(50, 100, 8), (65.5, 3, 1));
        assert_eq!(split(50, 100, 64), (96.5, 0, 0), "too small to divide");
        assert_eq!(split(1, 5, 4), (3.95, 0, 0));
        assert_eq!(split(1, 1, 4), (1.0, 0, 0));
        assert_eq!(split(1000, 1, 4), (1.0, 0, 0));
    }
}
