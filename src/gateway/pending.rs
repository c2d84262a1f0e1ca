//! The steps behind the cache, for requests that can't be answered at once.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;

use super::fetch::Errand;
use super::{Exchange, Gateway, give};
use crate::body::Body;
use crate::cache::{CacheKey, Directives, Entry, Interest, Usable};
use crate::caller::Caller;
use crate::client::Client;
use crate::error::{ClientError, Reason};
use crate::executions::PathId;
use crate::limit::Urgency;
use crate::origin::Unfetched;
use crate::respond::{self, CacheResult};
use crate::route::Action;
use crate::tenant::Tenant;
use crate::webhook;

/// A request that needs the upstream.
pub(super) enum Pending {
    Fetch { caller: Caller, key: CacheKey, stale: Option<Arc<Entry>>, directives: Directives },
    Act { caller: Caller, execution: PathId, action: Action },
    Pass { caller: Caller, allowed: usize },
    Hook { tenant: Arc<Tenant> },
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
            Pending::Fetch { caller, key, directives, .. } if directives.no_store() => {
                exchange.facts.cache = CacheResult::Request;
                let mut interest = Interest::of_one();
                let question = key.question();
                let fetched =
                    self.origin.fetch(&client, &caller, question, None, Urgency::Foreground, &mut interest).await;
                match fetched {
                    Ok(entry) => give(&mut exchange, &entry.not_stored(), self.clock.now()),
                    Err(Unfetched::Failed(error)) => return self.refuse(&exchange, &error),
                    Err(Unfetched::NobodyWaits) => return self.refuse(&exchange, &given_up()),
                }
            }
            Pending::Fetch { caller, key, stale, directives } => {
                let windows = caller.tenant().config.stale;
                let caller_wait = caller.tenant().config.upstream_budget.max_wait;
                let anyway = directives.is_choosy();
                let errand = Errand { caller, key, stale: stale.clone(), urgency: Urgency::Foreground, anyway };
                let (waiter, collapsed) = self.join(client, errand);
                exchange.facts.cache = match (exchange.facts.cache, &stale) {
                    (CacheResult::Request, _) => CacheResult::Request,
                    (_, Some(_)) => CacheResult::Stale { collapsed },
                    (_, None) => CacheResult::Miss { collapsed },
                };
                // Whoever could have an older answer does not wait for a newer one for ever.
                let patience = stale.as_ref().map(|_| caller_wait);
                let outcome = self.within(patience, waiter).await;
                let now = self.clock.now();
                match (outcome, stale) {
                    (Ok(entry), _) => {
                        if entry.derived {
                            exchange.facts.cache = CacheResult::Derived;
                        }
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
                    (Err(error), _) => return self.refuse(&exchange, &error),
                }
            }
            Pending::Act { caller, execution, action } => {
                let gateway = Arc::clone(&self);
                // In a task of its own: what the upstream has begun to do must be noted here, also when the caller leaves.
                let acting =
                    tokio::spawn(
                        async move { gateway.origin.act(&client, &caller, &execution, action.name(), body).await },
                    );
                match acting.await.unwrap_or_else(|_| Err(given_up())) {
                    Ok(body) => respond::outcome(&exchange.facts, body),
                    Err(error) => return self.refuse(&exchange, &error),
                }
            }
            Pending::Hook { tenant } => {
                let taken = match self.origin.read_body(body).await {
                    Ok(body) => webhook::receive(&tenant, &exchange.head.headers, &body),
                    Err(error) => Err(error),
                };
                match taken {
                    Ok(()) => respond::taken(&exchange.facts),
                    Err(error) => return self.refuse(&exchange, &error),
                }
            }
            Pending::Pass { caller, allowed } => {
                let allowed = &self.config.pass_through[allowed];
                match self.origin.pass(&client, &caller, allowed, &exchange.head, body).await {
                    Ok((answer, body)) => respond::passed(&exchange.facts, &answer, body),
                    Err(error) => return self.refuse(&exchange, &error),
                }
            }
        };
        self.answered(&exchange, response, None)
    }
}

/// The task that worked for a caller has died.
fn given_up() -> ClientError {
    ClientError::new(Reason::Overloaded, "the request to Refold was given up; try again")
        .retry_after(Duration::from_secs(1))
}
