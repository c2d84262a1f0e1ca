//! The steps behind the cache: requests that need the upstream, and the fetches that they share.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;

use super::{Exchange, Gateway, give};
use crate::body::Body;
use crate::cache::{CacheKey, Entry, Flight, Joined, Usable, Waiter};
use crate::caller::Caller;
use crate::client::Client;
use crate::error::{ClientError, Reason};
use crate::executions::PathId;
use crate::limit::Urgency;
use crate::observe::{Context, Trip, WebhookOutcome};
use crate::respond::{self, CacheResult};
use crate::route::Action;
use crate::tenant::Tenant;
use crate::webhook;

/// A request that needs the upstream.
pub(super) enum Pending {
    Fetch { caller: Caller, key: CacheKey, stale: Option<Arc<Entry>>, no_store: bool },
    Act { caller: Caller, execution: PathId, action: Action },
    Pass { caller: Caller, allowed: usize },
    Hook { tenant: Arc<Tenant> },
}

/// What is to be fetched, and for whom.
pub(super) struct Errand {
    caller: Caller,
    key: CacheKey,
    stale: Option<Arc<Entry>>,
    urgency: Urgency,
    /// Whatever is in the cache.
    anyway: bool,
    trip: Trip,
}

/// Whose fetch a caller waits for.
pub(super) enum Fetch {
    Own,
    /// Somebody else's; how a trace points at it.
    Shared(Option<Context>),
}

impl Errand {
    /// An entry is to be renewed, and nobody waits for it.
    pub(super) fn renewal(caller: &Caller, key: &CacheKey, stale: &Arc<Entry>, trip: Trip) -> Self {
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
    /// The steps behind the cache.
    pub(super) async fn go_upstream(
        self: Arc<Self>,
        client: Client,
        pending: Pending,
        mut exchange: Exchange,
        body: Incoming,
    ) -> Response<Body> {
        let response = match pending {
            // It must leave nothing behind, so nobody else's fetch is shared either.
            Pending::Fetch { caller, key, no_store: true, .. } => {
                let mut trip = self.trip(&mut exchange, &caller);
                trip.begin("fetch");
                let fetched =
                    self.origin.fetch(&client, &caller, key.question(), None, Urgency::Foreground, &trip).await;
                trip.ended(&fetched);
                exchange.facts.cache = CacheResult::Request;
                match fetched {
                    Ok(entry) => give(&mut exchange, &entry.not_stored(), self.clock.now()),
                    Err(error) => return self.refuse(&mut exchange, &error),
                }
            }
            Pending::Fetch { caller, key, stale, .. } => {
                let windows = caller.tenant().config.stale;
                let caller_wait = caller.tenant().config.upstream_budget.max_wait;
                let anyway = exchange.facts.cache == CacheResult::Request;
                let trip = self.trip(&mut exchange, &caller);
                let errand = Errand { caller, key, stale: stale.clone(), urgency: Urgency::Foreground, anyway, trip };
                let (waiter, fetch) = self.join(client, errand);
                let (collapsed, waiting) = match fetch {
                    Fetch::Own => (false, None),
                    Fetch::Shared(fetch) => {
                        exchange.spent = None;
                        (true, Some(exchange.span.waits_for(fetch)))
                    }
                };
                exchange.facts.cache = match (exchange.facts.cache, &stale) {
                    (CacheResult::Request, _) => CacheResult::Request,
                    (_, Some(_)) => CacheResult::Stale { collapsed },
                    (_, None) => CacheResult::Miss { collapsed },
                };
                // Whoever could have an older answer does not wait for a newer one for ever.
                let patience = stale.as_ref().map(|_| caller_wait);
                let outcome = self.within(patience, waiter).await;
                drop(waiting);
                let now = self.clock.now();
                match (outcome, stale) {
                    (Ok(entry), _) => {
                        // It has waited for Refold: this is little more, and whoever comes after has it at once.
                        if let Some(coding) = exchange.facts.coding.filter(|coding| entry.lacks(*coding)) {
                            entry.encode(coding);
                        }
                        give(&mut exchange, &entry, now)
                    }
                    (Err(error), Some(stale)) if error.is_passing() && stale.usable(&windows, now) != Usable::No => {
                        exchange.facts.cache = CacheResult::HitStale;
                        give(&mut exchange, &stale, now)
                    }
                    (Err(error), _) => return self.refuse(&mut exchange, &error),
                }
            }
            Pending::Act { caller, execution, action } => {
                let gateway = Arc::clone(&self);
                let mut trip = self.trip(&mut exchange, &caller);
                trip.begin(action.name());
                // In a task of its own: what the upstream has begun to do must be noted here, also when the caller leaves.
                let acting = tokio::spawn(async move {
                    let done = gateway.origin.act(&client, &caller, &execution, action.name(), body, &trip).await;
                    trip.ended(&done);
                    done
                });
                match acting.await.unwrap_or_else(|_| Err(given_up())) {
                    Ok(body) => respond::outcome(&exchange.facts, body),
                    Err(error) => return self.refuse(&mut exchange, &error),
                }
            }
            Pending::Hook { tenant } => {
                let taken = match self.origin.read_body(body).await {
                    Ok(body) => webhook::receive(&tenant, &exchange.head.headers, &body),
                    Err(error) => Err(error),
                };
                let outcome = if taken.is_ok() { WebhookOutcome::Taken } else { WebhookOutcome::Refused };
                self.observer.webhook(&tenant, outcome);
                match taken {
                    Ok(()) => respond::taken(&exchange.facts),
                    Err(error) => return self.refuse(&mut exchange, &error),
                }
            }
            Pending::Pass { caller, allowed } => {
                let allowed = &self.config.pass_through[allowed];
                let mut trip = self.trip(&mut exchange, &caller);
                trip.begin("pass");
                let passed = self.origin.pass(&client, &caller, allowed, &exchange.head, body, &trip).await;
                trip.ended(&passed);
                match passed {
                    Ok((answer, body)) => respond::passed(&exchange.facts, &answer, body),
                    Err(error) => return self.refuse(&mut exchange, &error),
                }
            }
        };
        self.answered(&mut exchange, response, None)
    }

    /// What a request is about to have done at the upstream.
    fn trip(&self, exchange: &mut Exchange, caller: &Caller) -> Trip {
        let trip = self.observer.trip(caller, &exchange.span, &exchange.head.headers);
        exchange.spent = Some(Arc::clone(trip.spent()));
        trip
    }

    /// The end of a fetch, or that it took longer than somebody is made to wait who has an older answer.
    async fn within(&self, patience: Option<Duration>, waiter: Waiter) -> Result<Arc<Entry>, ClientError> {
        let Some(patience) = patience else { return waiter.outcome().await };
        tokio::select! {
            outcome = waiter.outcome() => outcome,
            () = self.clock.sleep_until(self.clock.now() + patience) => {
                Err(ClientError::new(Reason::UpstreamTimeout, "Refold did not answer in time"))
            }
        }
    }

    /// Joins the fetch of a key, or starts it in a task of its own, so that it goes on when its callers leave.
    pub(super) fn join(self: &Arc<Self>, client: Client, errand: Errand) -> (Waiter, Fetch) {
        match self.flights.join(&errand.key, errand.trip.context()) {
            Joined::Waits(waiter, fetch) => (waiter, Fetch::Shared(fetch)),
            Joined::Leads(flight, waiter) => {
                let gateway = Arc::clone(self);
                tokio::spawn(gateway.fly(client, errand, flight));
                (waiter, Fetch::Own)
            }
        }
    }

    async fn fly(self: Arc<Self>, client: Client, errand: Errand, flight: Flight<Option<Context>>) {
        let Errand { caller, key, stale, urgency, anyway, mut trip } = errand;
        // Another fetch may have ended between the look-up and the start of this one.
        let fresh = |entry: &Arc<Entry>| entry.is_fresh(self.clock.now());
        if let Some(entry) = self.store.get(&key).filter(fresh).filter(|_| !anyway) {
            return flight.land(Ok(entry));
        }
        trip.begin("fetch");
        let fetched = self.origin.fetch(&client, &caller, key.question(), stale.as_deref(), urgency, &trip).await;
        trip.ended(&fetched);
        let outcome = fetched.map(Arc::new);
        match (&outcome, stale) {
            (Ok(entry), _) => self.store.put(key, Arc::clone(entry)),
            (Err(error), Some(stale)) if error.is_passing() => stale.refetch_failed(self.clock.now()),
            // What it said is about the caller or the question: what was kept is of no use any more.
            (Err(_), Some(_)) => self.store.remove(&key),
            (Err(_), None) => {}
        }
        flight.land(outcome);
    }
}

/// The task that worked for a caller has died.
fn given_up() -> ClientError {
    ClientError::new(Reason::Overloaded, "the request to Refold was given up; try again")
        .retry_after(Duration::from_secs(1))
}
