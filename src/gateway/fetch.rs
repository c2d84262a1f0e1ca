//! Fetches that callers share: each in a task of its own, so that it goes on when its callers leave, and none at all where the
//! answer follows from what is in the cache.

use std::sync::Arc;
use std::time::Duration;

use super::Gateway;
use crate::cache::{CacheKey, CollapseKey, Demand, Entry, Follower, Joined, Leader};
use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::http_client::Client;
use crate::limit::Urgency;
use crate::observe::SpanContext;
use crate::upstream::UpstreamTelemetry;
use crate::upstream::{FetchError, Wanted};

/// Why Refold does not answer any question now.
const NOBODY_IS_ASKED: [Reason; 3] =
    [Reason::UpstreamBudgetExceeded, Reason::UpstreamCircuitOpen, Reason::UpstreamUnreachable];
/// Why a list can't be fetched whole.
const TOO_MUCH: [Reason; 2] = [Reason::UpstreamResponseTooLarge, Reason::UpstreamInvalidResponse];

/// What is to be fetched, and for whom.
pub(super) struct FetchRequest {
    pub(super) caller: Caller,
    pub(super) key: CacheKey,
    pub(super) stale: Option<Arc<Entry>>,
    pub(super) urgency: Urgency,
    /// Whatever is in the cache.
    pub(super) anyway: bool,
    pub(super) trip: UpstreamTelemetry,
}

/// Whose fetch somebody waits for.
pub(super) enum Fetch {
    Own,
    /// Somebody else's; how a trace points at it.
    Shared(Option<SpanContext>),
}

impl FetchRequest {
    /// An entry is to be renewed, and nobody waits for it.
    pub(super) fn renewal(caller: &Caller, key: &CacheKey, stale: &Arc<Entry>, trip: UpstreamTelemetry) -> Self {
        Self {
            caller: caller.clone(),
            key: key.clone(),
            stale: Some(Arc::clone(stale)),
            urgency: Urgency::Background,
            anyway: false,
            trip,
        }
    }
}

impl Gateway {
    /// Joins the fetch of a key, or starts it. Nobody waits for a renewal, so who joins for one only listens.
    pub(super) fn join(self: &Arc<Self>, client: Client, errand: FetchRequest) -> (Follower, Fetch) {
        let listens = errand.urgency == Urgency::Background;
        let key = CollapseKey::new(&errand.caller, &errand.key);
        let joined = if self.config.cache.collapse {
            self.group.join(key, listens, errand.trip.context())
        } else {
            self.group.alone(key, listens)
        };
        match joined {
            Joined::Waits(waiter, fetch) => (waiter, Fetch::Shared(fetch)),
            Joined::Leads(flight, waiter) => {
                let gateway = Arc::clone(self);
                tokio::spawn(gateway.fly(client, errand, flight));
                (waiter, Fetch::Own)
            }
        }
    }

    /// The end of a fetch, or that it took longer than somebody is made to wait who has an older answer.
    pub(super) async fn within(
        &self,
        patience: Option<Duration>,
        mut waiter: Follower,
    ) -> Result<Arc<Entry>, ClientError> {
        let Some(patience) = patience else { return waiter.outcome().await };
        tokio::select! {
            outcome = waiter.outcome() => outcome,
            () = self.clock.sleep_until(self.clock.now() + patience) => {
                Err(ClientError::new(Reason::UpstreamTimeout, "Refold did not answer in time"))
            }
        }
    }

    async fn fly(self: Arc<Self>, client: Client, mut errand: FetchRequest, mut flight: Leader<Option<SpanContext>>) {
        let outcome = loop {
            match self.bring(&client, &mut errand, &mut flight.interest()).await {
                Ok(entry) => break Ok(entry),
                Err(FetchError::Failed(error)) => break Err(error),
                Err(FetchError::NobodyWaits) => match flight.give_up() {
                    None => return,
                    Some(joined) => flight = joined,
                },
            }
        };
        errand.trip.ended(&outcome);
        match (&outcome, errand.stale) {
            (Ok(entry), _) => self.keep(errand.key, entry),
            (Err(error), stale) if error.is_passing() || errand.caller.is_refused_alone(error) => {
                if let Some(stale) = stale {
                    stale.refetch_failed(self.clock.now());
                }
            }
            // What it said is about the question or the account: what was kept is of no use any more.
            (Err(_), _) => self.store.remove(&errand.key),
        }
        flight.land(outcome);
    }

    /// Keeps an entry, unless another fetch has brought one that is newer.
    fn keep(&self, key: CacheKey, entry: &Arc<Entry>) {
        let newer = |other: &Entry| other.request_time > entry.request_time && other.is_fresh(self.clock.now());
        if !self.store.get(&key).is_some_and(|other| newer(&other)) {
            self.store.put(key, Arc::clone(entry));
        }
    }

    /// The answer: what another fetch has brought meanwhile, what follows from others, or what Refold says.
    async fn bring(
        self: &Arc<Self>,
        client: &Client,
        errand: &mut FetchRequest,
        interest: &mut Demand,
    ) -> Result<Arc<Entry>, FetchError> {
        if !errand.anyway {
            let FetchRequest { caller, key, .. } = errand;
            // Another fetch may have ended between the look-up and the start of this one.
            if let Some(entry) = self.store.get(key).filter(|entry| entry.is_fresh(self.clock.now())) {
                return Ok(entry);
            }
            if let Some(mut entry) = self.derived(caller, key) {
                entry.derived = true;
                return Ok(Arc::new(entry));
            }
            if let Some(entry) = self.by_way_of_its_source(client, errand, interest).await? {
                return Ok(entry);
            }
        }
        errand.trip.begin("fetch");
        let FetchRequest { caller, key, stale, urgency, trip, .. } = errand;
        let wanted = Wanted { urgency: *urgency, interest, stale: stale.as_deref() };
        let entry = self.origin.fetch(client, caller, key.question(), wanted, trip).await.map(Arc::new)?;
        Self::note_size(caller, key, &entry);
        Ok(entry)
    }

    /// Renews what the answer follows from, so that it is fetched once for all that follow from it. `None` if there is no
    /// such thing, or if it does not follow any longer.
    async fn by_way_of_its_source(
        self: &Arc<Self>,
        client: &Client,
        errand: &mut FetchRequest,
        interest: &mut Demand,
    ) -> Result<Option<Arc<Entry>>, FetchError> {
        let Some((key, stale)) = self.source_to_fetch(&errand.caller, &errand.key) else { return Ok(None) };
        let (caller, urgency) = (errand.caller.clone(), errand.urgency);
        let guessed = stale.is_none();
        let trip = errand.trip.below();
        let own = trip.context();
        let source = FetchRequest { caller, key: key.clone(), stale, urgency, anyway: false, trip };
        let (mut waiter, fetch) = self.join(client.clone(), source);
        errand.trip.waits_for(match fetch {
            Fetch::Own => own,
            Fetch::Shared(fetch) => fetch,
        });
        let outcome = match urgency {
            Urgency::Foreground => tokio::select! {
                outcome = waiter.outcome() => outcome,
                () = interest.lost() => return Err(FetchError::NobodyWaits),
            },
            Urgency::Background => {
                let ended = tokio::select! {
                    outcome = waiter.outcome() => Some(outcome),
                    () = interest.gained() => None,
                };
                if let Some(outcome) = ended {
                    outcome
                } else {
                    waiter.wait();
                    waiter.outcome().await
                }
            }
        };
        match outcome {
            Ok(source) => {
                let follows = self.follows(&errand.caller, &errand.key, &key, &source);
                if guessed && follows.is_none() && self.refutes(&errand.key, &key, &source) {
                    errand.caller.partition().list_size.refute();
                }
                Ok(follows.map(Arc::new))
            }
            // To ask for the answer itself would end in the same way.
            Err(error) if NOBODY_IS_ASKED.iter().any(|reason| error.is(*reason)) => Err(error.into()),
            // A smaller page may fare better; and that the others who wanted the source have left is nobody's fault.
            Err(error) => {
                if guessed && TOO_MUCH.iter().any(|reason| error.is(*reason)) {
                    errand.caller.partition().list_size.refute();
                }
                Ok(None)
            }
        }
    }
}
