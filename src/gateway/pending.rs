//! The steps behind the cache, for requests that can't be answered at once.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;

use super::fetch::{Errand, Fetch};
use super::{Exchange, Gateway, give};
use crate::body::Body;
use crate::cache::{CacheKey, Directives, Entry, Interest, Usable};
use crate::caller::Caller;
use crate::client::Client;
use crate::error::{ClientError, Reason};
use crate::executions::PathId;
use crate::limit::Urgency;
use crate::observe::{Trip, WebhookOutcome};
use crate::origin::{Unfetched, Wanted};
use crate::respond::{self, CacheResult};
use crate::route::Action;
use crate::tenant::Tenant;
use crate::webhook;

/// A request that needs the upstream.
pub(super) enum Pending {
    Fetch(Miss),
    Act { caller: Caller, execution: PathId, action: Action },
    Pass { caller: Caller, allowed: usize },
    Hook { tenant: Arc<Tenant> },
}

/// A question that the cache does not answer.
pub(super) struct Miss {
    pub(super) caller: Caller,
    pub(super) key: CacheKey,
    /// What is no longer fresh.
    pub(super) stale: Option<Arc<Entry>>,
    pub(super) directives: Directives,
}

impl Gateway {
    /// The steps behind the cache.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn go_upstream(
        self: &Arc<Self>,
        client: &Client,
        pending: Pending,
        exchange: &mut Exchange,
        body: Incoming,
    ) -> Result<Response<Body>, ClientError> {
        match pending {
            // It must leave nothing behind, so nobody else's fetch is shared either.
            Pending::Fetch(Miss { caller, key, directives, .. }) if directives.no_store() => {
                exchange.facts.cache = CacheResult::Request;
                let mut trip = self.trip(exchange, &caller);
                trip.begin("fetch");
                let wanted = Wanted { urgency: Urgency::Foreground, interest: &mut Interest::of_one(), stale: None };
                let fetched = self.origin.fetch(client, &caller, key.question(), wanted, &trip).await;
                let fetched = fetched.map_err(|unfetched| match unfetched {
                    Unfetched::Failed(error) => error,
                    Unfetched::NobodyWaits => given_up(),
                });
                trip.ended(&fetched);
                Ok(give(exchange, &fetched?.not_stored(), self.clock.now()))
            }
            Pending::Fetch(miss) => {
                let outcome = self.fetch_or_wait(client, &miss, exchange).await;
                let now = self.clock.now();
                let windows = &miss.caller.tenant().config.stale;
                match (outcome, miss.stale) {
                    (Ok(entry), _) => {
                        if entry.derived {
                            exchange.facts.cache = CacheResult::Derived;
                        }
                        // It has waited for Refold: this is little more, and whoever comes after has it at once.
                        if let Some(coding) = exchange.facts.coding.filter(|coding| entry.lacks(*coding)) {
                            entry.encode(coding);
                        }
                        Ok(give(exchange, &entry, now))
                    }
                    (Err(error), Some(stale)) if error.is_passing() && stale.usable(windows, now) != Usable::No => {
                        exchange.facts.cache = CacheResult::HitStale;
                        Ok(give(exchange, &stale, now))
                    }
                    (Err(error), _) => Err(error),
                }
            }
            Pending::Act { caller, execution, action } => {
                let (gateway, client) = (Arc::clone(self), client.clone());
                let mut trip = self.trip(exchange, &caller);
                trip.begin(action.name());
                // In a task of its own: what the upstream has begun to do must be noted here, also when the caller leaves.
                let acting = tokio::spawn(async move {
                    let done = gateway.origin.act(&client, &caller, &execution, action.name(), body, &trip).await;
                    trip.ended(&done);
                    done
                });
                let body = acting.await.unwrap_or_else(|_| Err(given_up()))?;
                Ok(respond::outcome(&mut exchange.facts, body))
            }
            Pending::Hook { tenant } => {
                let taken = match self.origin.read_body(body).await {
                    Ok(body) => webhook::receive(&tenant, &exchange.head.headers, &body),
                    Err(error) => Err(error),
                };
                let outcome = if taken.is_ok() { WebhookOutcome::Taken } else { WebhookOutcome::Refused };
                self.observer.webhook(&tenant, outcome);
                taken?;
                Ok(respond::taken(&mut exchange.facts))
            }
            Pending::Pass { caller, allowed } => {
                let allowed = &self.config.pass_through[allowed];
                let mut trip = self.trip(exchange, &caller);
                trip.begin("pass");
                let passed = self.origin.pass(client, &caller, allowed, &exchange.head, body, &trip).await;
                trip.ended(&passed);
                let (answer, body) = passed?;
                Ok(respond::passed(&mut exchange.facts, &answer, body))
            }
        }
    }

    /// Fetches what is missing, or waits for somebody who does; once more if what they bring is older than what is wanted.
    async fn fetch_or_wait(
        self: &Arc<Self>,
        client: &Client,
        miss: &Miss,
        exchange: &mut Exchange,
    ) -> Result<Arc<Entry>, ClientError> {
        let Miss { caller, key, stale, directives } = miss;
        let config = &caller.tenant().config;
        loop {
            let errand = Errand {
                caller: caller.clone(),
                key: key.clone(),
                stale: stale.clone(),
                urgency: Urgency::Foreground,
                anyway: directives.is_choosy(),
                trip: self.trip(exchange, caller),
            };
            let (waiter, fetch) = self.join(client.clone(), errand);
            let (collapsed, waiting) = match fetch {
                Fetch::Own => (false, None),
                Fetch::Shared(fetch) => {
                    exchange.spent = None;
                    (true, Some(exchange.span.waits_for(fetch)))
                }
            };
            exchange.facts.cache = match (exchange.facts.cache, stale) {
                (CacheResult::Request, _) => CacheResult::Request,
                (_, Some(_)) => CacheResult::Stale { collapsed },
                (_, None) => CacheResult::Miss { collapsed },
            };
            // Whoever could have an older answer does not wait for a newer one for ever.
            let older = |entry: &&Arc<Entry>| entry.usable(&config.stale, self.clock.now()) != Usable::No;
            let patience = stale.as_ref().filter(older).map(|_| config.limits.upstream.max_wait);
            let outcome = self.within(patience, waiter).await;
            drop(waiting);
            match outcome {
                Ok(entry) if collapsed && directives.want_newer(&entry, exchange.began, self.clock.now()) => {}
                outcome => return outcome,
            }
        }
    }

    /// What a request is about to have done at the upstream.
    fn trip(&self, exchange: &mut Exchange, caller: &Caller) -> Trip {
        let trip = self.observer.trip(caller, &exchange.span, &exchange.head.headers);
        exchange.spent = Some(Arc::clone(trip.spent()));
        trip
    }
}

/// The task that worked for a caller has died.
fn given_up() -> ClientError {
    ClientError::new(Reason::Overloaded, "the request to Refold was given up; try again")
        .retry_after(Duration::from_secs(1))
}
