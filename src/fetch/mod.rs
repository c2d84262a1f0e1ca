//! Behind the cache: one fetch per question, however many callers wait for it.
//!
//! The [`Fetcher`] owns the store, the fetches in progress and the [`Upstream`]. It answers a question (`run`) with an entry
//! that another fetch has stored meanwhile, by derivation from other pages (`derivation`, as far as comparisons
//! have proven it: `comparison`), or with Refold's response. It stores the result before it passes it to the callers.

mod comparison;
mod derivation;
mod entries;
mod failed_source;
mod request;
mod run;
mod shared;
mod shared_entry;

use std::sync::Arc;
use std::time::Duration;

use self::entries::Entries;
pub use self::request::{FetchPurpose, FetchRequest, FetchRole};
use self::shared::SecondLevel;
use crate::cache::{
    CacheKey, CollapseKey, CutOff, Demand, Entry, Follower, Group, Participation, RenewalClaim, Role, Store,
};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::config::Config;
use crate::error::{ClientError, Reason};
use crate::fleet::{Fleet, TRUST};
use crate::http_client::Client;
use crate::limit::Urgency;
use crate::observe::{Observer, SpanContext};
use crate::upstream::{FetchDemand, FetchError, Upstream, UpstreamCall, UpstreamTelemetry};

/// Fetches answers for all workers, and stores them.
#[derive(Debug)]
pub struct Fetcher {
    config: Arc<Config>,
    clock: Clock,
    store: Store,
    /// The fetches under way.
    group: Arc<Group<FetchStart>>,
    upstream: Upstream,
    entries: Entries,
    fleet: Option<Fleet>,
    /// The second level of the cache; `None` without a fleet, and if caching is off.
    second_level: Option<SecondLevel>,
}

/// The start of a fetch, for those who join it.
#[derive(Clone, Debug)]
struct FetchStart {
    at: Moment,
    /// Its trace context.
    span: Option<SpanContext>,
}

impl Fetcher {
    /// A fetcher with an empty store.
    #[must_use]
    pub fn new(config: Arc<Config>, clock: Clock, observer: &Arc<Observer>, fleet: Option<&Fleet>) -> Self {
        Self {
            store: empty_store(&config, observer, fleet),
            second_level: second_level(&config, &clock, fleet),
            fleet: fleet.cloned(),
            group: Arc::default(),
            upstream: Upstream::new(Arc::clone(&config), clock.clone()),
            entries: Entries::new(clock.clone()),
            config,
            clock,
        }
    }

    /// A fetcher for a changed configuration. It keeps the fetches in progress, the stored entries if the
    /// capacity is the same, and the upstream's state as far as the settings allow.
    #[must_use]
    pub fn reconfigured(&self, config: &Arc<Config>, observer: &Arc<Observer>) -> Self {
        let same_capacity = self.config.cache.capacity == config.cache.capacity;
        Self {
            store: if same_capacity { self.store.clone() } else { empty_store(config, observer, self.fleet.as_ref()) },
            second_level: second_level(config, &self.clock, self.fleet.as_ref()),
            fleet: self.fleet.clone(),
            group: Arc::clone(&self.group),
            upstream: self.upstream.reconfigured(config),
            entries: Entries::new(self.clock.clone()),
            config: Arc::clone(config),
            clock: self.clock.clone(),
        }
    }

    /// The stored entries.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The upstream, for requests that are never cached.
    #[must_use]
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Returns whether fetches ask the fleet for the answer, before they ask Refold.
    #[must_use]
    pub fn asks_fleet(&self) -> bool {
        self.second_level.is_some()
    }

    /// Joins the fetch of a question that is in progress, or starts one in a task of its own, so that the fetch goes on when
    /// callers disconnect.
    ///
    /// A renewal's follower only observes: it does not count as a caller that waits.
    pub fn join(self: &Arc<Self>, client: Client, request: FetchRequest) -> (Follower, FetchRole) {
        let participation = match request.urgency {
            Urgency::Background => Participation::Listens,
            Urgency::Foreground => Participation::Waits,
        };
        let key = CollapseKey::new(&request.caller, &request.key);
        let joined = if self.config.cache.collapse {
            let start = FetchStart { at: self.clock.now(), span: request.telemetry.context() };
            self.group.join(key, participation, start, |start, depends| self.may_follow(&request, start, depends))
        } else {
            self.group.lead_unshared(key, participation)
        };
        match joined {
            Role::Follows { follower, leader_context } => {
                if let Some(claim) = request.claim {
                    hold_until_done(claim, &follower);
                }
                (follower, FetchRole::Follows(leader_context.span))
            }
            Role::Leads { leader, follower } => {
                // Boxed, since the runtime moves a future several times before it begins and when it ends.
                tokio::spawn(Box::pin(Arc::clone(self).run(client, request, leader)));
                (follower, FetchRole::Leads)
            }
        }
    }

    /// Returns whether a request may share a fetch that began before it. One that reaches the fleet's server, but does not know what the
    /// others have dropped, may not if a drop can have been answered since: that takes as long as trust lasts.
    fn may_follow(&self, request: &FetchRequest, start: &FetchStart, depends: bool) -> bool {
        if self.fleet.is_none() {
            return true;
        }
        let now = self.clock.now();
        match self.store.cut_off(now) {
            Some(CutOff { is_connected: false, .. }) => true,
            // In this order: what is trusted has been dropped as far as is known, and that has changed the keys.
            None if request.key.is_present(&request.caller) => true,
            _ => !depends && now.since(start.at) < TRUST,
        }
    }

    /// Waits for the outcome of a fetch, for at most `longest`.
    ///
    /// # Errors
    /// The error of the fetch, or 504 if the fetch takes longer than `longest`.
    pub async fn wait(&self, follower: &mut Follower, longest: Option<Duration>) -> Result<Arc<Entry>, ClientError> {
        let Some(longest) = longest else { return follower.result().await };
        tokio::select! {
            outcome = follower.result() => outcome,
            () = self.clock.sleep_until(self.clock.now() + longest) => {
                Err(ClientError::new(Reason::UpstreamTimeout, "Refold did not answer in time"))
            }
        }
    }

    /// Fetches a response for one caller alone, and does not store it.
    ///
    /// # Errors
    /// If Refold has no answer, or answers with an error.
    pub async fn fetch_unstored(
        &self,
        client: &Client,
        caller: &Caller,
        key: &CacheKey,
        mut telemetry: UpstreamTelemetry,
    ) -> Result<Entry, ClientError> {
        telemetry.begin("fetch");
        let call = UpstreamCall { client, caller, telemetry: &telemetry };
        let demand = FetchDemand {
            urgency: Urgency::Foreground,
            demand: &Demand::constant(),
            stale: None,
            is_comparison: false,
        };
        let fetched = self.upstream.fetch(&call, key.question(), demand).await;
        let fetched = fetched.map_err(|error| match error {
            FetchError::Failed(error) => error,
            FetchError::NoDemand => ClientError::abandoned(),
        });
        telemetry.end(&fetched);
        Ok(self.entries.of_fetch(caller, key.question(), None, fetched?).await.not_stored())
    }
}

fn second_level(config: &Config, clock: &Clock, fleet: Option<&Fleet>) -> Option<SecondLevel> {
    fleet.filter(|_| config.cache.capacity.bytes() > 0).map(|fleet| SecondLevel::new(config, clock, fleet))
}

/// A store that counts its evictions.
fn empty_store(config: &Config, observer: &Arc<Observer>, fleet: Option<&Fleet>) -> Store {
    let (observer, clock) = (Arc::clone(observer), observer.clock.clone());
    let fleet = fleet.map(|fleet| (fleet.trust().clone(), fleet.config().when_cut_off));
    Store::new(config.cache.capacity.bytes(), &clock, fleet, move || observer.evicted())
}

/// Holds the claim of a renewal until the fetch that it follows, which renews the same entry, is done.
fn hold_until_done(claim: RenewalClaim, follower: &Follower) {
    let mut listener = follower.listener();
    tokio::spawn(async move {
        let _ = listener.result().await;
        drop(claim);
    });
}
