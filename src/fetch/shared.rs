//! One fetch for the whole fleet: a fetch of a linked account's page first asks for the second level of the cache, which the
//! replicas share.
//!
//! Pages of session tokens are not shared: a replica serves them only for a token that Refold has accepted from this very replica.
//! Nor are fetches that a caller demands in spite of a fresh page, and comparisons of derived answers.

use std::sync::Arc;
use std::time::Duration;

use super::request::{FetchPurpose, FetchRequest};
use super::shared_entry;
use crate::cache::{CacheKey, Demand, Entry, Store};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::error::{ClientError, SharedError};
use crate::fleet::{
    EntryPlace, Fleet, ForeignFetch, FoundEntry, Generations, LandedFetch, Landing, Lead, Taken, Waiters,
};
use crate::limit::Urgency;
use crate::offload;
use crate::upstream::FetchError;

/// Bounds of a wait for another replica's fetch, after which a replica takes again: the server may have gone away meanwhile.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Size of the largest entry that is shared, in bytes, compressed: a larger one would hold up the connection's other commands.
const LARGEST_SHARED: usize = 512 << 10;

/// The second level of the cache.
#[derive(Debug)]
pub(super) struct SecondLevel {
    fleet: Fleet,
    clock: Clock,
    /// The settings that the answer to a question depends on, besides the question and the org.
    meaning: String,
}

/// The part of a replica in a fetch.
pub(super) enum Turn {
    /// Another replica has fetched the entry.
    Answered(Arc<Entry>),
    /// Another replica's fetch has failed.
    Failed(ClientError),
    /// Fetch; for the fleet, if there is a lead.
    Fetch(Option<SharedFetch>),
}

/// A fetch for the whole fleet.
pub(super) struct SharedFetch {
    lead: Lead,
    fleet: Fleet,
}

/// The end of a wait for another replica.
enum WaitEnd {
    TakeAgain,
    NotShared,
    Failed(ClientError),
}

impl SecondLevel {
    pub(super) fn new(config: &Config, clock: &Clock, fleet: &Fleet) -> Self {
        let (base_url, dialect, query) = (&config.upstream.base_url, config.upstream.dialect, &config.query);
        let honour_no_store = config.cache.honour_no_store;
        let meaning = format!("{base_url:?} {dialect:?} {query:?} {honour_no_store}");
        Self { fleet: fleet.clone(), clock: clock.clone(), meaning }
    }

    /// Takes the turn of a request. If the fleet has a stale entry that is newer than the request's, the request gets it, for its
    /// validator; it is put into the store before the request begins to wait.
    pub(super) async fn turn(
        &self,
        request: &mut FetchRequest,
        demand: &Demand,
        store: &Store,
    ) -> Result<Turn, FetchError> {
        let Some(place) = self.place(request) else { return Ok(Turn::Fetch(None)) };
        let mut urgency = request.urgency;
        // What this replica has served is not replaced by something older.
        let mut newer_than = request.stale.as_ref().map_or(0, |stale| self.fleet.clock_micros(stale.request_time));
        loop {
            let landing = self.fleet.expect_landing(&place);
            let Some((taken, times)) = self.take(request, &place, newer_than, urgency).await else {
                return Ok(Turn::Fetch(None));
            };
            match taken {
                Taken::Hit(found, _) => {
                    newer_than = found.asked_at();
                    if let Some(entry) = shared_entry::open(found, times).await {
                        return Ok(Turn::Answered(Arc::new(entry)));
                    }
                    // Not sealed for this place: it is fetched in its stead.
                }
                Taken::Lead(lead, found) => {
                    self.adopt(request, found, times, store).await;
                    return Ok(Turn::Fetch(Some(SharedFetch { lead, fleet: self.fleet.clone() })));
                }
                Taken::Wait(fetch, found) => {
                    if let Some(found) = &found {
                        newer_than = found.asked_at();
                    }
                    self.adopt(request, found, times, store).await;
                    request.begin_wait();
                    match self.wait(landing, (&place, fetch), (&mut urgency, demand)).await? {
                        WaitEnd::TakeAgain => {}
                        WaitEnd::NotShared => return Ok(Turn::Fetch(None)),
                        WaitEnd::Failed(error) => return Ok(Turn::Failed(error)),
                    }
                }
            }
        }
    }

    /// Gives a request the fleet's stale entry, which is newer than its own. If its own was stored, the newer one is, too, since readers
    /// get it until the fetch ends.
    async fn adopt(
        &self,
        request: &mut FetchRequest,
        found: Option<FoundEntry>,
        times: (Moment, Moment),
        store: &Store,
    ) {
        let Some(found) = found else { return };
        let Some(entry) = shared_entry::open(found, times).await.map(Arc::new) else { return };
        if request.stale.is_some() {
            store.put_if_newer(request.key.clone(), Arc::clone(&entry), self.clock.now());
        }
        request.stale = Some(entry);
    }

    /// Takes under generations that are not behind those that this replica has seen. Returns the moments before and after it too; `None`
    /// if this replica has to go on by itself, since the server is away.
    async fn take(
        &self,
        request: &FetchRequest,
        place: &EntryPlace,
        newer_than: u64,
        urgency: Urgency,
    ) -> Option<(Taken, (Moment, Moment))> {
        let (tenant, partition) = (request.caller.tenant(), request.caller.partition());
        let waiters = if urgency == Urgency::Foreground { Waiters::Callers } else { Waiters::None };
        let mut has_restored = false;
        loop {
            let before = tenant.latest_generations(partition, Generations::default());
            let sent = self.clock.now();
            let taken = self.fleet.take(place, newer_than, waiters).await.ok()?;
            let times = (sent, self.clock.now());
            let told = taken.generations();
            if told.is_behind(before) {
                // Someone has set them back, and with them what was dropped.
                if std::mem::replace(&mut has_restored, true) {
                    return None;
                }
                drop(taken);
                self.fleet.restore_generations(place, told, before).await.ok()?;
            } else if !told.is_behind(tenant.latest_generations(partition, told)) {
                return Some((taken, times));
            }
            // Else a drop has come meanwhile.
        }
    }

    /// Waits for another replica's fetch, for as long as its lease lasts or a part of that. Once callers wait for what began in the background, they do
    /// not wait for a fetch in the background.
    async fn wait(
        &self,
        mut landing: Landing,
        (place, fetch): (&EntryPlace, ForeignFetch),
        (urgency, demand): (&mut Urgency, &Demand),
    ) -> Result<WaitEnd, FetchError> {
        let wait_over = self.clock.now() + fetch.lease.clamp(SHORTEST_WAIT, LONGEST_WAIT);
        let outcome = match *urgency {
            Urgency::Foreground => tokio::select! {
                outcome = landing.outcome() => outcome,
                () = self.clock.sleep_until(wait_over) => return Ok(WaitEnd::TakeAgain),
                () = demand.lost() => return Err(FetchError::NoDemand),
            },
            Urgency::Background => tokio::select! {
                outcome = landing.outcome() => outcome,
                () = self.clock.sleep_until(wait_over) => return Ok(WaitEnd::TakeAgain),
                () = demand.gained() => {
                    *urgency = Urgency::Foreground;
                    return Ok(WaitEnd::TakeAgain);
                }
            },
        };
        Ok(match self.fleet.open_landed(place, &fetch, &outcome) {
            Some(LandedFetch::NotShared) => WaitEnd::NotShared,
            Some(LandedFetch::Failed(error)) => {
                let error = serde_json::from_slice::<SharedError>(&error).ok().and_then(SharedError::into_error);
                error.map_or(WaitEnd::TakeAgain, WaitEnd::Failed)
            }
            Some(LandedFetch::TakeAgain) | None => WaitEnd::TakeAgain,
        })
    }

    /// The place of a request's answer; `None` if it is not shared.
    fn place(&self, request: &FetchRequest) -> Option<EntryPlace> {
        let FetchRequest { caller, key, bypass_cache, purpose, .. } = request;
        if *bypass_cache || *purpose == FetchPurpose::Comparison {
            return None;
        }
        let tenant = caller.tenant().fleet_name()?.into();
        let partition = caller.partition().fleet_name()?.into();
        Some(EntryPlace { tenant, partition, question: self.question(caller, key).into() })
    }

    /// The name of a question. It includes the org key, since a tenant with another one may be another org, and the lifetimes of
    /// answers: during a rolling change of the configuration, replicas with different ones share nothing.
    fn question(&self, caller: &Caller, key: &CacheKey) -> String {
        let mut canonical = String::with_capacity(128);
        key.question().write_canonical(&mut canonical);
        let config = &caller.tenant().config;
        let lifetimes = format!("{:?} {:?}", config.freshness, config.stale);
        let org_key = config.org_key.expose().as_bytes();
        let parts = [canonical.as_bytes(), self.meaning.as_bytes(), lifetimes.as_bytes(), org_key];
        self.fleet.names().hidden("question", &parts)
    }
}

impl SharedFetch {
    /// Runs the fetch, and keeps its place in the fleet meanwhile.
    pub(super) async fn run<T>(&self, fetch: impl Future<Output = T>) -> T {
        let extending = self.lead.extend_forever();
        tokio::select! {
            result = fetch => result,
            () = extending => unreachable!("it never ends"),
        }
    }

    /// Stores the result for the fleet and tells the replicas that wait, in the background.
    pub(super) fn finish(self, result: &Result<Arc<Entry>, FetchError>) {
        let end = match result {
            Ok(entry) if entry.no_store => LandedFetch::NotShared,
            Ok(entry) => {
                tokio::spawn(self.put(Arc::clone(entry)));
                return;
            }
            Err(FetchError::Failed(error)) => {
                let shared = SharedError::of(error).and_then(|error| serde_json::to_vec(&error).ok());
                shared.map_or(LandedFetch::TakeAgain, LandedFetch::Failed)
            }
            Err(FetchError::NoDemand) => LandedFetch::TakeAgain,
        };
        tokio::spawn(self.lead.land(end));
    }

    async fn put(self, entry: Arc<Entry>) {
        let asked_at = self.fleet.clock_micros(entry.request_time);
        let lifetime = u64::try_from(entry.lifetime.as_micros()).unwrap_or(u64::MAX);
        let kept = entry.retention();
        let content = offload::run_sized(entry.body.len(), move || shared_entry::encode(&entry)).await;
        let is_stored = match content.filter(|content| content.len() <= LARGEST_SHARED) {
            Some(content) => self.lead.put((asked_at, asked_at.saturating_add(lifetime)), kept, content).await.is_ok(),
            None => false,
        };
        // Without it in the second level, each replica fetches for itself, and none waits for the others in turn.
        self.lead.land(if is_stored { LandedFetch::TakeAgain } else { LandedFetch::NotShared }).await;
    }
}
