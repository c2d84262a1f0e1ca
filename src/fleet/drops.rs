//! Drops of cache entries in the whole fleet.

use std::time::Duration;

use redis::FromRedisValue;

use super::Fleet;
use super::commands::Call;
use super::drop_script::{drop_call, position};
use super::log::{DroppedEntries, LogPosition};
use super::membership::TRUST;
use super::reckoning::as_micros;
use super::script::UNAWARE;

/// Pause between two questions whether every replica knows of a drop.
const PAUSE: Duration = Duration::from_millis(3);
/// The replicas' clocks run at slightly different rates.
const DRIFT: Duration = Duration::from_millis(5);

/// The replicas that a drop has reached when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReach {
    /// All that are connected. There may be no others.
    Everywhere,
    /// This one alone: the server is away. It is told later.
    ThisReplica,
}

impl DropReach {
    /// The reach of two drops together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::Everywhere { other } else { self }
    }
}

impl Fleet {
    /// Drops entries on all replicas, this one included, and returns when no connected replica serves them any more.
    pub async fn drop_entries(&self, dropped: &[DroppedEntries]) -> DropReach {
        let cache = &self.0.cache;
        for one in dropped {
            cache.drop_locally(one, 0);
        }
        let mut last = LogPosition::default();
        for (index, one) in dropped.iter().enumerate() {
            let Call { script, keys, arguments } = drop_call(&self.0.names, one, 0);
            let answer = self.commands().run(script, keys, arguments).await;
            let Some(position) = answer.ok().and_then(position) else {
                for one in &dropped[index..] {
                    cache.keep_unsent(one);
                    // Once more: meanwhile this process may have taken an entry from the server that is dropped by now.
                    cache.drop_locally(one, 0);
                }
                self.count_drop("this_replica");
                return DropReach::ThisReplica;
            };
            // Once more: meanwhile this process may have taken an entry from the server that is dropped by now.
            cache.drop_locally(one, 0);
            last = position;
        }
        let is_confirmed = self.until_known(last).await;
        self.count_drop(if is_confirmed { "confirmed" } else { "trust_over" });
        DropReach::Everywhere
    }

    fn count_drop(&self, reach: &str) {
        self.0.status.metrics.drops.with_label_values(&[reach]).inc();
    }

    /// Waits until every replica with a lease has read the log up to a position, or trusts nothing that it holds. Returns true if they
    /// have read it. Whether the server knows all that have a lease is judged by those that this replica knows.
    async fn until_known(&self, position: LogPosition) -> bool {
        let clock = &self.0.status.clock;
        let names = &self.0.names;
        let untrusted = clock.now() + TRUST + DRIFT;
        let keys = ["read", "m", "log", "gap"].map(|kind| names.single(kind));
        let (millis, sequence) = position.parts();
        let arguments = (millis, sequence, self.members().live, as_micros(TRUST + DRIFT));
        while clock.now() < untrusted {
            let unaware = self.commands().run(&UNAWARE, &keys[..], arguments).await;
            match unaware.map(i64::from_redis_value) {
                Ok(Ok(0)) => return true,
                Ok(Ok(1..)) => clock.sleep_until(clock.now() + PAUSE).await,
                Ok(_) | Err(_) => break,
            }
        }
        clock.sleep_until(untrusted).await;
        false
    }
}
