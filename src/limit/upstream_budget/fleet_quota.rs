//! The budget of an org key as all replicas of a fleet share it: the scripts' calls, and the share of a replica that is alone.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{Value, from_redis_value};

use super::quota::Quota;
use crate::clock::{Clock, Moment};
use crate::fleet::{FORGET, Fleet, FleetState, GIVE_BACK, HOLD, LEASE, OwnSlots, TURN, Unavailable, own_slots};
use crate::limit::credential_queue::{Head, WaitingHead};
use crate::limit::flow::Urgency;

/// The state of an org is deleted when no replica has asked for this long.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// Pause between two looks for such orgs.
const LOOK_EVERY: Duration = Duration::from_mins(10);

/// The kinds of keys of an org.
const STATE: &str = "up";
const QUEUE: &str = "q";
const EXPECTED: &str = "seen";
const ROUNDS: &str = "rounds";
const OLDEST: &str = "oldest";
/// The key of the orgs.
const ORGS: &str = "orgs";

/// A replica without time slots looks again after this time.
const WITHOUT_SLOTS: Duration = Duration::from_mins(1);

/// The shared budget of one org key.
#[derive(Debug)]
pub(super) struct FleetQuota {
    fleet: Fleet,
    clock: Clock,
    /// The org key's name in the fleet.
    org: String,
    keys: Keys,
    memory: Mutex<Memory>,
}

/// The keys that the scripts take.
#[derive(Debug)]
struct Keys {
    state: String,
    queue: String,
    expected: String,
    rounds: String,
    oldest: String,
    members: String,
    gap: String,
    orgs: String,
}

#[derive(Debug, Default)]
struct Memory {
    /// The time slot that was used last.
    slot: Option<u64>,
}

/// The answer to a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) verdict: Verdict,
    /// Time until the theoretical arrival time of the next request.
    pub(super) arrival: Duration,
    /// The pause that an upstream 429 asked for ends after this time.
    pub(super) held_for: Duration,
    /// Thousandths of the configured rate.
    pub(super) rate_factor: u32,
}

/// The fleet's decision about the first request of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Granted, at this time of the server's clock in microseconds.
    Granted(u64),
    /// In the queue; to ask again after the wait.
    Waits { wait: Duration, place: FleetPlace },
    /// The wait is longer than is allowed. Another replica may hold a place for the flow.
    TooLong { wait: Duration },
}

/// A flow's place in the fleet's queue, by the time at which the server expects it to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FleetPlace(u64);

/// Deletes the state of orgs about which no replica has asked for a day, now and then. The keys have no TTL: an expired one would
/// lose a pause or a spent burst.
pub async fn delete_idle_orgs(fleet: &Fleet, clock: &Clock) {
    let names = fleet.names();
    let mut keys = vec![names.single(ORGS)];
    keys.extend([STATE, QUEUE, EXPECTED, ROUNDS, OLDEST].map(|kind| names.of(kind, "")));
    loop {
        clock.sleep_until(clock.now() + LOOK_EVERY).await;
        // A server that is away is asked again later; so is one with more such orgs than one call deletes.
        let _ = fleet.commands().run(&FORGET, &keys[..], &[micros(KEPT_FOR)][..]).await;
    }
}

impl FleetQuota {
    /// Shares the budget of the org key with this SHA-256 digest.
    pub(super) fn new(fleet: &Fleet, clock: Clock, key_digest: &[u8; 32]) -> Self {
        let names = fleet.names();
        let org = names.hidden("org", &[key_digest]);
        let of = |kind| names.of(kind, &org);
        let keys = Keys {
            state: of(STATE),
            queue: of(QUEUE),
            expected: of(EXPECTED),
            rounds: of(ROUNDS),
            oldest: of(OLDEST),
            members: names.single("m"),
            gap: names.single("gap"),
            orgs: names.single(ORGS),
        };
        Self { fleet: fleet.clone(), clock, org, keys, memory: Mutex::default() }
    }

    /// The replica's relation to its fleet.
    pub(super) fn state(&self, now: Moment) -> FleetState {
        self.fleet.state(now)
    }

    /// Asks for the first request of a flow, which waits for `max_wait` at most. Of the same flow's renewals, on all replicas, the one that
    /// renews the oldest entry goes first.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(super) async fn turn(
        &self,
        WaitingHead { head, renews }: WaitingHead,
        quota: Quota,
        max_wait: Duration,
    ) -> Result<Turn, Unavailable> {
        let (credential, account) = self.names_of(head);
        let arguments = [
            micros(quota.interval()),
            quota.tolerated_intervals().to_string(),
            urgency(head).to_owned(),
            credential,
            account,
            micros(max_wait),
            self.org.clone(),
            self.fleet.members().known.to_string(),
            self.fleet.config().replicas.to_string(),
            micros(LEASE),
            self.fleet.server().to_string(),
            self.fleet.latest_clock_micros(self.clock.now()).to_string(),
            self.fleet.clock_micros(renews).to_string(),
        ];
        let Keys { state, queue, expected, rounds, members, gap, orgs, oldest } = &self.keys;
        let keys = [state, queue, expected, rounds, members, gap, orgs, oldest];
        let answer = self.fleet.commands().run(&TURN, &keys[..], &arguments[..]).await?;
        Turn::parse(answer)
    }

    /// Holds the whole fleet for `pause`. Returns for how long it is held, and the rate factor.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(super) async fn hold(&self, pause: Duration, quota: Quota) -> Result<(Duration, u32), Unavailable> {
        let arguments = [micros(pause), micros(quota.tolerance()), self.org.clone()];
        let keys = [&self.keys.state, &self.keys.orgs];
        let answer = self.fleet.commands().run(&HOLD, &keys[..], &arguments[..]).await?;
        let (held, rate_factor): (u64, u32) = from_redis_value(answer).map_err(|_| Unavailable::Failed)?;
        Ok((Duration::from_micros(held), rate_factor))
    }

    /// Gives the place of a flow back, and a request that was granted at a time of the server's clock. If the server does not
    /// answer, it drops the place by itself, and the request counts as sent.
    pub(super) async fn give_back(&self, head: Head, place: Option<FleetPlace>, granted: Option<u64>, quota: Quota) {
        let Keys { state, queue, expected, rounds, oldest, .. } = &self.keys;
        let keys = [state, queue, expected, rounds, oldest];
        let (credential, account) = self.names_of(head);
        let arguments = [
            urgency(head).to_owned(),
            credential,
            account,
            place.map_or(0, |place| place.0).to_string(),
            granted.map_or_else(|| "0".to_owned(), |_| micros(quota.interval())),
            granted.unwrap_or(0).to_string(),
        ];
        let _ = self.fleet.commands().run(&GIVE_BACK, &keys[..], &arguments[..]).await;
    }

    /// Takes the present time slot, if it is this replica's and was not taken; otherwise returns the time until the next one.
    /// While the rate is lowered, only some of the replica's slots are used.
    ///
    /// # Errors
    /// If there is no slot now.
    pub(super) fn take_slot(&self, quota: Quota, stride: u64) -> Result<(), Duration> {
        let Some(slots) = self.fleet.time_slots() else { return Err(WITHOUT_SLOTS) };
        let micros = self.fleet.clock_micros(self.clock.now());
        let OwnSlots { present, next } = own_slots(micros, quota.interval(), slots, stride);
        let mut memory = self.memory();
        if present.is_none() || present == memory.slot {
            return Err(next);
        }
        memory.slot = present;
        Ok(())
    }

    /// The number of replicas between which the budget is divided while this one is alone.
    pub(super) fn shares(&self) -> u32 {
        self.fleet.time_slots().map_or(1, |slots| slots.count)
    }

    fn names_of(&self, head: Head) -> (String, String) {
        let names = self.fleet.names();
        let credential = names.hidden("credential", &[&head.flow.credential.to_be_bytes()]);
        (credential, names.hidden("account", &[&head.flow.account.to_be_bytes()]))
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        // Nothing that can panic runs under the lock.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn parse(answer: Value) -> Result<Self, Unavailable> {
        let (verdict, wait, now, held_for, rate_factor, expected, arrival): (String, u64, u64, u64, u32, u64, u64) =
            from_redis_value(answer).map_err(|_| Unavailable::Failed)?;
        let wait = Duration::from_micros(wait);
        let verdict = match verdict.as_str() {
            "go" => Verdict::Granted(now),
            "wait" => Verdict::Waits { wait, place: FleetPlace(expected) },
            // The fleet's clock was set, or the call was under way for too long.
            "late" => return Err(Unavailable::TimedOut),
            _ => Verdict::TooLong { wait },
        };
        let [held_for, arrival] = [held_for, arrival].map(Duration::from_micros);
        Ok(Self { verdict, arrival, held_for, rate_factor: rate_factor.max(1) })
    }
}

fn urgency(head: Head) -> &'static str {
    match head.urgency {
        Urgency::Foreground => "f",
        Urgency::Background => "b",
    }
}

fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}
