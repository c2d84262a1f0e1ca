//! The second level of the cache, on the fleet's server: entries that every replica finds, and one fetch at a time for each.
//!
//! A replica *takes* before it fetches: it gets the entry, the right to fetch it ([`Lead`]), or is told to wait for the replica that
//! does. An entry is stored only under the generations that its fetch began with, so one that was requested before a drop is never
//! found after it. What is stored is sealed for its place, its generations and its times.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use redis::{FromRedisValue, Value};

use super::Fleet;
use super::cipher::Cipher;
use super::commands::Unavailable;
use super::drop_script::{GENERATION_KEPT, NO_GENERATION, drop_call};
use super::landings::Landing;
use super::log::DroppedEntries;
use super::script::{EXTEND, LAND, PUT, TAKE};
use crate::digest::Hex;
use crate::offload;

/// The lease of a fetch's lock. After the death of its holder, the others wait for this long.
const LEASE: Duration = Duration::from_secs(3);
/// Interval at which a replica that fetches extends the lease.
const LEASE_EXTENSION: Duration = Duration::from_secs(1);

/// The place of an entry in the fleet.
#[derive(Clone, Debug)]
pub struct EntryPlace {
    /// The name of the tenant.
    pub tenant: Box<str>,
    /// The name of the partition.
    pub partition: Box<str>,
    /// The name of the question.
    pub question: Box<str>,
}

impl EntryPlace {
    /// The name under which the end of a fetch is told.
    fn landing(&self) -> Box<str> {
        format!("{}:{}", self.partition, self.question).into()
    }
}

/// The generations of a partition and its tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// The partition's.
    pub partition: u64,
    /// The tenant's.
    pub tenant: u64,
}

impl Generations {
    /// Returns whether one of them is earlier than among others.
    #[must_use]
    pub fn is_behind(self, other: Self) -> bool {
        self.partition < other.partition || self.tenant < other.tenant
    }
}

/// The callers that wait for a fetch, if there are any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiters {
    /// Callers.
    Callers,
    /// None: the fetch renews an entry in the background.
    None,
}

/// An entry that another replica has stored, still sealed: opening a large one is work for a thread of its own.
#[derive(Debug)]
pub struct FoundEntry {
    /// Time since the entry was asked for, by the server's clock.
    pub age: Duration,
    /// Time until it is stale.
    pub fresh_for: Duration,
    /// Time from then until it is stale.
    pub lifetime: Duration,
    asked_at: u64,
    /// `None` in tests alone.
    sealed: Option<SealedEntry>,
}

/// The text of an entry with what it takes to open it.
#[derive(Debug)]
struct SealedEntry {
    cipher: Arc<Cipher>,
    partition: Box<str>,
    /// The place and the times that it has to be sealed for.
    context: Vec<u8>,
    text: Vec<u8>,
}

/// The result of taking.
#[derive(Debug)]
pub enum Taken {
    /// A fresh entry.
    Hit(FoundEntry, Generations),
    /// The right to fetch, with the stale entry if there is one.
    Lead(Lead, Option<FoundEntry>),
    /// Another replica fetches; with the stale entry, if there is one and no caller waits for the fetch.
    Wait(ForeignFetch, Option<FoundEntry>),
}

/// A fetch of another replica.
#[derive(Debug)]
pub struct ForeignFetch {
    /// Time for which its lock lasts, unless it is extended.
    pub lease: Duration,
    /// The generations of now, not of its beginning.
    generations: Generations,
    /// The value of its lock, which no other fetch has.
    lock: String,
}

/// The right and the duty to fetch an entry for the fleet. If it is dropped, the replicas that wait take again.
#[derive(Debug)]
pub struct Lead {
    fleet: Fleet,
    place: EntryPlace,
    /// The value of the lock.
    lock: String,
    generation: String,
    generations: Generations,
    server: u64,
    has_landed: bool,
}

impl Taken {
    /// The generations that the server tells.
    #[must_use]
    pub fn generations(&self) -> Generations {
        match self {
            Self::Hit(_, generations) => *generations,
            Self::Lead(lead, _) => lead.generations,
            Self::Wait(fetch, _) => fetch.generations,
        }
    }
}

/// The end of a fetch, for the replicas that wait for it.
#[derive(Clone, Debug)]
pub enum LandedFetch {
    /// They take again: the entry is stored, or they can fetch it as well.
    TakeAgain,
    /// Each fetches for itself, since the entry may not be stored.
    NotShared,
    /// The error of the fetch.
    Failed(Vec<u8>),
}

impl Fleet {
    /// Begins to wait for the end of a fetch. Call it before [`Fleet::take`].
    #[must_use]
    pub fn expect_landing(&self, place: &EntryPlace) -> Landing {
        self.0.cache.landings.expect(place.landing())
    }

    /// Takes an entry that was asked for after a time on the fleet's clock.
    ///
    /// # Errors
    /// If the server is away, or was not told yet of entries that this replica has dropped.
    pub async fn take(&self, place: &EntryPlace, newer_than: u64, waiters: Waiters) -> Result<Taken, Unavailable> {
        let taken = self.try_take(place, newer_than, waiters).await;
        let result = match &taken {
            Ok(Taken::Hit(..)) => "hit",
            Ok(Taken::Lead(..)) => "lead",
            Ok(Taken::Wait(..)) => "wait",
            Err(_) => "unavailable",
        };
        self.0.status.metrics.takes.with_label_values(&[result]).inc();
        taken
    }

    async fn try_take(&self, place: &EntryPlace, newer_than: u64, waiters: Waiters) -> Result<Taken, Unavailable> {
        if !self.0.cache.has_told_all() {
            return Err(Unavailable::Disconnected);
        }
        let server = self.server();
        let holder = holder(waiters)?;
        let keys = self.keys(place);
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        let arguments = (&*holder, lease, newer_than, server, GENERATION_KEPT.as_secs());
        let answer = self.commands().run(&TAKE, &keys[..], arguments).await?;
        self.read_taken(place, answer, (holder, server)).ok_or(Unavailable::Failed)
    }

    fn read_taken(&self, place: &EntryPlace, answer: Value, (holder, server): (String, u64)) -> Option<Taken> {
        let Value::Array(fields) = answer else { return None };
        let [outcome, now, generation, entry, lock, lease] = <[Value; 6]>::try_from(fields).ok()?;
        let outcome = String::from_redis_value(outcome).ok()?;
        let now = String::from_redis_value(now).ok()?.parse().ok()?;
        let generation = String::from_redis_value(generation).ok()?;
        let generations = generations(&generation)?;
        let entry = Option::<Vec<u8>>::from_redis_value(entry).ok()?;
        let found = entry.and_then(|entry| self.found(place, &generation, (&entry, now)));
        match outcome.as_str() {
            "wait" => {
                let millis = i64::from_redis_value(lease).ok()?;
                let lease = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
                let lock = String::from_redis_value(lock).ok()?;
                Some(Taken::Wait(ForeignFetch { lease, generations, lock }, found))
            }
            "hit" => Some(Taken::Hit(found?, generations)),
            "lead" => {
                let (fleet, place, lock) = (self.clone(), place.clone(), format!("{holder} {generation}"));
                let lead = Lead { fleet, place, lock, generation, generations, server, has_landed: false };
                Some(Taken::Lead(lead, found))
            }
            _ => None,
        }
    }

    /// Reads an entry: its head is `generation asked-at fresh-until `, and what follows is sealed.
    fn found(&self, place: &EntryPlace, generation: &str, (entry, now): (&[u8], u64)) -> Option<FoundEntry> {
        let (_, rest) = split_word(entry)?;
        let (asked, rest) = split_word(rest)?;
        let (fresh, sealed) = split_word(rest)?;
        let (asked_at, fresh_until): (u64, u64) = (asked.parse().ok()?, fresh.parse().ok()?);
        let sealed = SealedEntry {
            cipher: Arc::clone(&self.0.cipher),
            partition: place.partition.clone(),
            context: context(place, generation, (asked_at, fresh_until)),
            text: sealed.to_vec(),
        };
        Some(FoundEntry {
            age: Duration::from_micros(now.saturating_sub(asked_at)),
            fresh_for: Duration::from_micros(fresh_until.saturating_sub(now)),
            lifetime: Duration::from_micros(fresh_until.saturating_sub(asked_at)),
            asked_at,
            sealed: Some(sealed),
        })
    }

    /// Drops the entries of a place's partition or tenant of which a later generation was seen than the server tells: the server's was
    /// set back, and with it what was dropped. The new one is later than both.
    ///
    /// # Errors
    /// If the server is away.
    pub async fn restore_generations(
        &self,
        place: &EntryPlace,
        told: Generations,
        seen: Generations,
    ) -> Result<(), Unavailable> {
        let drop_of = |partition| DroppedEntries { tenant: place.tenant.clone(), partition };
        for (dropped, told, seen) in [
            (drop_of(Some(place.partition.clone())), told.partition, seen.partition),
            (drop_of(None), told.tenant, seen.tenant),
        ] {
            if told < seen && seen < NO_GENERATION - 1 {
                let call = drop_call(&self.0.names, &dropped, seen);
                self.commands().run(call.script, &call.keys, &call.arguments).await?;
            }
        }
        Ok(())
    }

    /// Reads how another replica's fetch has ended; `None` if the outcome is that of another fetch.
    #[must_use]
    pub fn open_landed(&self, place: &EntryPlace, fetch: &ForeignFetch, outcome: &[u8]) -> Option<LandedFetch> {
        match outcome {
            b"again" => Some(LandedFetch::TakeAgain),
            b"not shared" => Some(LandedFetch::NotShared),
            sealed => {
                let context = failure_context(place, &fetch.lock);
                self.0.cipher.open(&place.partition, &context, sealed).map(LandedFetch::Failed)
            }
        }
    }

    /// The keys of a question: generations, entry, lock, flag.
    fn keys(&self, place: &EntryPlace) -> [String; 5] {
        let names = &self.0.names;
        let EntryPlace { tenant, partition, question } = place;
        let one = format!("{partition}:{question}");
        [names.of("g", partition), names.of("g", tenant), names.entry(&one), names.of("l", &one), names.of("w", &one)]
    }
}

impl FoundEntry {
    /// An entry without a text that is stale after `lifetime`.
    #[cfg(test)]
    pub(crate) fn of(age: Duration, lifetime: Duration) -> Self {
        Self { age, fresh_for: lifetime.saturating_sub(age), lifetime, asked_at: 0, sealed: None }
    }

    /// An entry with this text, sealed for no place in particular.
    #[cfg(test)]
    pub(crate) fn sealed(age: Duration, lifetime: Duration, text: Vec<u8>) -> Self {
        let cipher = Arc::new(Cipher::of_secret("a secret"));
        let text = cipher.seal("partition", b"context", text).expect("there is randomness");
        let sealed = SealedEntry { cipher, partition: "partition".into(), context: b"context".to_vec(), text };
        Self { sealed: Some(sealed), ..Self::of(age, lifetime) }
    }

    /// The text that the replica has stored; `None` unless it was sealed for this place and these times.
    #[must_use]
    pub fn open(&self) -> Option<Vec<u8>> {
        let SealedEntry { cipher, partition, context, text } = self.sealed.as_ref()?;
        cipher.open(partition, context, text)
    }

    /// The size of the text, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.text.len())
    }

    /// The time on the fleet's clock at which it was asked for.
    #[must_use]
    pub fn asked_at(&self) -> u64 {
        self.asked_at
    }
}

impl Lead {
    /// Extends the lease for as long as it is polled.
    pub async fn extend_forever(&self) {
        let [.., key, _] = self.fleet.keys(&self.place);
        let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(LEASE_EXTENSION).await;
            // If it fails, another replica may fetch too.
            let _ = self.fleet.commands().run(&EXTEND, &key, (&*self.lock, lease)).await;
        }
    }

    /// Stores the entry, which was asked for at a time on the fleet's clock and stays fresh until another, for at most `kept`.
    ///
    /// # Errors
    /// If it can't be sealed, or the server can't store it.
    pub async fn put(
        &self,
        (asked_at, fresh_until): (u64, u64),
        kept: Duration,
        text: Vec<u8>,
    ) -> Result<(), Unavailable> {
        let Self { fleet, place, generation, server, .. } = self;
        let context = context(place, generation, (asked_at, fresh_until));
        let sealed = seal_sized(&fleet.0.cipher, &place.partition, context, text).await.ok_or(Unavailable::Failed)?;
        let mut entry = format!("{generation} {asked_at} {fresh_until} ").into_bytes();
        entry.extend(sealed);
        let [partition, tenant, key, ..] = fleet.keys(place);
        let kept = u64::try_from(kept.min(GENERATION_KEPT / 2).as_millis()).unwrap_or(u64::MAX);
        let arguments = (generation, asked_at, *server, entry, kept);
        fleet.commands().run(&PUT, &[partition, tenant, key][..], arguments).await.map(drop)
    }

    /// Tells the replicas that wait how the fetch has ended.
    pub async fn land(mut self, end: LandedFetch) {
        self.has_landed = true;
        self.send_end(end).await;
    }

    async fn send_end(&self, end: LandedFetch) {
        let Self { fleet, place, lock, .. } = self;
        let outcome = match end {
            LandedFetch::TakeAgain => Some(b"again".to_vec()),
            LandedFetch::NotShared => Some(b"not shared".to_vec()),
            LandedFetch::Failed(error) => fleet.0.cipher.seal(&place.partition, &failure_context(place, lock), error),
        };
        let [.., key, flag] = fleet.keys(place);
        let keys = [key, flag, fleet.names().single("log")];
        let outcome = outcome.unwrap_or_else(|| b"again".to_vec());
        // If it fails, they wait for the end of the lease.
        let _ = fleet.commands().run(&LAND, &keys[..], (&**lock, &*place.landing(), outcome)).await;
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.has_landed {
            return;
        }
        let Self { fleet, place, lock, generation, generations, server, .. } = self;
        let lead = Self {
            fleet: fleet.clone(),
            place: place.clone(),
            lock: std::mem::take(lock),
            generation: std::mem::take(generation),
            generations: *generations,
            server: *server,
            has_landed: true,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { lead.send_end(LandedFetch::TakeAgain).await });
        }
    }
}

/// Encrypts a text, off the worker's thread if it is large.
async fn seal_sized(cipher: &Arc<Cipher>, partition: &str, context: Vec<u8>, text: Vec<u8>) -> Option<Vec<u8>> {
    let (cipher, partition) = (Arc::clone(cipher), Box::<str>::from(partition));
    offload::run_sized(text.len(), move || cipher.seal(&partition, &context, text)).await
}

/// A name for the holder of a lock that no other has.
fn holder(waiters: Waiters) -> Result<String, Unavailable> {
    let mut token = [0; 12];
    rand::fill(&mut token).map_err(|_| Unavailable::Failed)?;
    let class = match waiters {
        Waiters::Callers => 'f',
        Waiters::None => 'b',
    };
    Ok(format!("{class}:{}", Hex(&token)))
}

/// The context that an entry is bound to.
fn context(place: &EntryPlace, generation: &str, (asked_at, fresh_until): (u64, u64)) -> Vec<u8> {
    let EntryPlace { tenant, partition, question } = place;
    let mut context = String::with_capacity(256);
    // Never fails: it writes to memory.
    let _ = write!(context, "entry 1 {tenant} {partition} {question} {generation} {asked_at} {fresh_until}");
    context.into_bytes()
}

/// The context that the failure of a fetch is bound to: the fetch, so that no other one's waiters take it for theirs.
fn failure_context(place: &EntryPlace, lock: &str) -> Vec<u8> {
    format!("failure 2 {} {} {} {lock}", place.tenant, place.partition, place.question).into_bytes()
}

/// Reads `partition:tenant:server`.
fn generations(text: &str) -> Option<Generations> {
    let (partition, rest) = text.split_once(':')?;
    let (tenant, _) = rest.split_once(':')?;
    Some(Generations { partition: partition.parse().ok()?, tenant: tenant.parse().ok()? })
}

/// The text up to the first space, and what follows it.
fn split_word(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&bytes[..space]).ok()?, &bytes[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::testing::offloads;

    #[test]
    fn a_large_text_is_sealed_off_the_thread() {
        let cipher = Arc::new(Cipher::of_secret("a secret"));
        for (size, expected) in [(1, false), (64 << 10, false), ((64 << 10) + 1, true), (512 << 10, true)] {
            let sealing = seal_sized(&cipher, "partition", b"context".to_vec(), vec![b'x'; size]);
            let (offloaded, sealed) = offloads(sealing);
            assert_eq!(offloaded, expected, "{size} bytes");
            let opened = cipher.open("partition", b"context", &sealed.expect("there is randomness"));
            assert_eq!(opened.map(|text| text.len()), Some(size));
        }
    }
}
