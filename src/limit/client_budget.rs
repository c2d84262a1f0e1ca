//! Limits the requests of a caller: a quota per linked account, session token or client key.
//!
//! Every request counts, cache hits too. So a check costs one compare-and-swap, and no lock. A replica of a fleet shares the
//! budget with the others (`fleet::client_budgets`); otherwise it is a GCRA in memory.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::policy::BudgetState;
use crate::clock::Moment;
use crate::config::Rate;
use crate::fleet::client_budgets::{Decision, LeasedBudget};

/// A budget of `burst` requests at once and `per_second` after that.
#[derive(Debug)]
pub struct ClientBudget(Kind);

#[derive(Debug)]
enum Kind {
    /// This process alone counts.
    Own(OwnBudget),
    /// All replicas of the fleet count together.
    Shared(Arc<LeasedBudget>),
}

/// A budget in memory.
#[derive(Debug)]
struct OwnBudget {
    limiter: RateLimiter<NotKeyed, InMemoryState, SuppliedClock, StateInformationMiddleware>,
    rate: Rate,
}

/// The result of taking a request off a budget.
#[derive(Debug)]
pub enum Spending {
    /// Granted or refused.
    Decided(BudgetUse),
    /// The fleet's server has to be asked.
    Ask(BudgetQuestion),
}

/// A request that waits for the decision of the fleet's server.
#[derive(Debug)]
pub struct BudgetQuestion(Arc<LeasedBudget>);

/// The state of a budget after one request, and whether the request exceeded the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetUse {
    /// The state.
    pub state: BudgetState,
    /// Time until a request is granted again, if this one exceeded the budget.
    pub refused: Option<Duration>,
}

impl ClientBudget {
    /// Creates a full budget of this process.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self(Kind::Own(OwnBudget::new(rate)))
    }

    /// A budget that the replicas of a fleet share.
    #[must_use]
    pub fn shared(budget: LeasedBudget) -> Self {
        Self(Kind::Shared(Arc::new(budget)))
    }

    /// The budget with another rate: a full one, if it is this process's own.
    #[must_use]
    pub fn with_rate(&self, rate: Rate) -> Self {
        match &self.0 {
            Kind::Own(_) => Self::new(rate),
            Kind::Shared(budget) => Self::shared(budget.with_rate(rate)),
        }
    }

    /// The rate that the budget grants.
    #[must_use]
    pub fn rate(&self) -> Rate {
        match &self.0 {
            Kind::Own(budget) => budget.rate,
            Kind::Shared(budget) => budget.rate(),
        }
    }

    /// Takes one request off the budget, if it has one left. Part of the hit path.
    #[must_use]
    pub fn spend(&self, now: Moment) -> Spending {
        match &self.0 {
            Kind::Own(budget) => Spending::Decided(budget.spend(now)),
            Kind::Shared(budget) => match budget.spend(now) {
                Some(decision) => Spending::Decided(decision.into()),
                None => Spending::Ask(BudgetQuestion(Arc::clone(budget))),
            },
        }
    }
}

impl BudgetQuestion {
    /// Asks for the request: one round trip.
    pub async fn ask(self) -> BudgetUse {
        self.0.ask().await.into()
    }
}

impl From<Decision> for BudgetUse {
    fn from(Decision { remaining, reset, refused }: Decision) -> Self {
        Self { state: BudgetState { remaining, reset }, refused }
    }
}

impl OwnBudget {
    fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self { limiter: RateLimiter::direct_with_clock(quota, SuppliedClock::default()).with_middleware(), rate }
    }

    fn spend(&self, now: Moment) -> BudgetUse {
        self.limiter.clock().0.store(now.as_nanos(), Ordering::Relaxed);
        let (remaining, refused) = match self.limiter.check() {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(not_until) => (0, Some(not_until.wait_time_from(now))),
        };
        let missing = self.rate.burst.get().saturating_sub(remaining);
        let reset = missing.div_ceil(self.rate.per_second.get());
        BudgetUse { state: BudgetState { remaining, reset }, refused }
    }
}

/// A clock with the time that [`OwnBudget::spend`] was last called with, so that a request reads the system clock only once.
/// Two concurrent calls may both use the time of either one; they differ by microseconds.
#[derive(Debug, Default)]
struct SuppliedClock(AtomicU64);

impl Clock for SuppliedClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Clone for SuppliedClock {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.since(earlier).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        *self - Duration::from(duration)
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        self + Duration::from(duration)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |n| NonZeroU32::new(n).expect("not zero");
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    const START: Moment = Moment::from_nanos(0);

    fn granted(remaining: u32, reset: u32) -> BudgetUse {
        BudgetUse { state: BudgetState { remaining, reset }, refused: None }
    }

    #[test]
    fn the_burst_is_granted_at_once_then_the_rate() {
        let budget = OwnBudget::new(rate(10, 3));
        assert_eq!(budget.spend(START), granted(2, 1));
        assert_eq!(budget.spend(START).state.remaining, 1);
        assert_eq!(budget.spend(START), granted(0, 1));
        assert_eq!(budget.spend(START).refused, Some(Duration::from_millis(100)));
        let later = START + Duration::from_millis(100);
        assert_eq!(budget.spend(later).refused, None);
        assert!(budget.spend(later).refused.is_some());
    }

    #[test]
    fn reset_is_in_whole_seconds_until_the_full_burst() {
        let budget = OwnBudget::new(rate(1, 100));
        for _ in 0..30 {
            assert_eq!(budget.spend(START).refused, None);
        }
        assert_eq!(budget.spend(START), granted(69, 31));
    }

    proptest::proptest! {
        #[test]
        fn no_window_grants_more_than_burst_and_rate(
            per_second in 1u32..60, burst in 1u32..40, pauses in proptest::collection::vec(0u64..400, 1..200)
        ) {
            let budget = OwnBudget::new(rate(per_second, burst));
            let mut granted: Vec<u64> = Vec::new();
            let mut now = 0;
            for pause in pauses {
                now += pause;
                if budget.spend(START + Duration::from_millis(now)).refused.is_none() {
                    granted.push(now);
                }
            }
            for (first, from) in granted.iter().enumerate() {
                for (last, to) in granted.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (to - from) * u64::from(per_second) / 1000;
                    proptest::prop_assert!((last - first + 1) as u64 <= allowed);
                }
            }
        }
    }
}
