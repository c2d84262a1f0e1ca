//! One fetch, from its start to the result that its callers receive.

use std::sync::Arc;

use super::Fetcher;
use super::request::{FetchPurpose, FetchRequest, FetchRole};
use crate::cache::{CacheKey, Demand, Entry, Follower, Leader};
use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::http_client::Client;
use crate::limit::Urgency;
use crate::observe::SpanContext;
use crate::upstream::{FetchDemand, FetchError, UpstreamCall};

/// Reasons that apply to every other question at present too, so that the fetch of another page is of no use.
const REFOLD_UNAVAILABLE: [Reason; 3] =
    [Reason::UpstreamBudgetExceeded, Reason::UpstreamCircuitOpen, Reason::UpstreamUnreachable];

/// The result of fetching a page from which an answer was to be derived.
enum SourceResult {
    /// The answer follows from it.
    Derived(Arc<Entry>),
    /// There is no such page, or the answer does not follow from it.
    NotDerived,
    /// The page could not be fetched.
    Failed,
}

impl Fetcher {
    /// Runs a fetch: resolves the question, stores the result, then tells the callers.
    pub(super) async fn run(
        self: Arc<Self>,
        client: Client,
        mut request: FetchRequest,
        mut leader: Leader<Option<SpanContext>>,
    ) {
        let outcome = loop {
            match self.resolve(&client, &mut request, &leader.demand()).await {
                Ok(entry) => break Ok(entry),
                Err(FetchError::Failed(error)) => break Err(error),
                // Every caller has disconnected before Refold was asked; one may have joined in the meantime.
                Err(FetchError::NoDemand) => match leader.cancel_without_demand() {
                    Ok(()) => return,
                    Err(joined) => leader = joined,
                },
            }
        };
        request.telemetry.end(&outcome);
        if let (Err(error), FetchPurpose::Derivation) = (&outcome, request.purpose) {
            // Noted here, since the callers that wait for the derived answer may have left.
            self.note_failed_source(&request.caller, error);
        }
        match (&outcome, request.stale) {
            (Ok(entry), _) => self.store.put_if_newer(request.key, Arc::clone(entry), self.clock.now()),
            (Err(error), stale) if error.is_passing() || request.caller.is_refusal_of_own_org_key(error) => {
                if let Some(stale) = stale {
                    stale.record_failed_renewal(self.clock.now());
                }
            }
            // The error is about the question or the account, so the stored entry no longer holds.
            (Err(_), _) => self.store.remove(&request.key),
        }
        leader.complete(outcome);
    }

    /// Returns the answer: an entry that another fetch has stored meanwhile, a page derived from other pages, or Refold's
    /// response.
    async fn resolve(
        self: &Arc<Self>,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
    ) -> Result<Arc<Entry>, FetchError> {
        if !request.bypass_cache {
            // Another fetch may have ended between the look-up and the start of this one.
            if let Some(entry) = self.store.get(&request.key).filter(|entry| entry.is_fresh(self.clock.now())) {
                return Ok(entry);
            }
            let asked = (&request.caller, &request.key);
            let size = self.largest_source(&request.caller, &request.key);
            if let Some(entry) = self.run_derivation(size, asked, Self::derive).await {
                return Ok(Arc::new(entry));
            }
            match self.resolve_by_source(client, request, demand).await? {
                SourceResult::Derived(entry) => return Ok(entry),
                SourceResult::NotDerived => {}
                SourceResult::Failed => {
                    let fetched = self.fetch(client, request, demand).await;
                    if let Err(FetchError::Failed(_)) = &fetched {
                        request.caller.partition().list_size.resume_substitutes();
                    }
                    return fetched;
                }
            }
        }
        self.fetch(client, request, demand).await
    }

    /// Asks Refold the question itself.
    async fn fetch(
        &self,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
    ) -> Result<Arc<Entry>, FetchError> {
        request.telemetry.begin("fetch");
        let FetchRequest { caller, key, stale, urgency, telemetry, .. } = request;
        let call = UpstreamCall { client, caller, telemetry };
        let demand = FetchDemand { urgency: *urgency, demand, stale: stale.as_deref() };
        let fetched = self.upstream.fetch(&call, key.question(), demand).await?;
        let entry = Arc::new(self.entries.of_fetch(caller, key.question(), stale.as_ref(), fetched).await);
        Self::note_list_size(caller, key, &entry);
        Ok(entry)
    }

    /// Fetches the page that the answer follows from, so that one fetch serves all questions that follow from it.
    async fn resolve_by_source(
        self: &Arc<Self>,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
    ) -> Result<SourceResult, FetchError> {
        let size = self.largest_source(&request.caller, &request.key);
        let to_fetch = self.run_derivation(size, (&request.caller, &request.key), Self::source_to_fetch).await;
        let Some((key, stale)) = to_fetch else { return Ok(SourceResult::NotDerived) };
        // No stored page proves that the list is short enough for one page.
        let guessed = stale.is_none();
        let telemetry = request.telemetry.child();
        let own = telemetry.context();
        let (caller, urgency) = (request.caller.clone(), request.urgency);
        let (bypass_cache, purpose, claim) = (false, FetchPurpose::Derivation, None);
        let source = FetchRequest { caller, key: key.clone(), stale, urgency, bypass_cache, purpose, claim, telemetry };
        let (follower, role) = self.join(client.clone(), source);
        request.telemetry.begin_wait(match role {
            FetchRole::Leads => own,
            FetchRole::Follows(fetch) => fetch,
        });
        match source_outcome(follower, urgency, demand).await? {
            Ok(source) => {
                let size = source.body.len();
                let derive = move |fetcher: &Self, caller: &Caller, wanted: &CacheKey| {
                    let derived = fetcher.derive_from(caller, wanted, &key, &source);
                    if guessed && derived.is_none() && fetcher.refutes(wanted, &key, &source) {
                        caller.partition().list_size.refute();
                    }
                    derived
                };
                let derived = self.run_derivation(size, (&request.caller, &request.key), derive).await;
                Ok(derived.map_or(SourceResult::NotDerived, |entry| SourceResult::Derived(Arc::new(entry))))
            }
            Err(error) if is_refold_unavailable(&error) => Err(error.into()),
            // A smaller page may succeed, and so may this fetch if the source's was abandoned by its other callers.
            Err(error) => {
                // Also for a fetch that another question has begun.
                self.note_failed_source(&request.caller, &error);
                Ok(SourceResult::Failed)
            }
        }
    }

    /// Notes that a page from which an answer was to be derived could not be fetched.
    fn note_failed_source(&self, caller: &Caller, error: &ClientError) {
        let says_nothing_of_the_page = error.is(Reason::Overloaded) || is_refold_unavailable(error);
        if !says_nothing_of_the_page {
            caller.partition().list_size.pause_substitutes(self.clock.now());
        }
    }
}

fn is_refold_unavailable(error: &ClientError) -> bool {
    REFOLD_UNAVAILABLE.iter().any(|reason| error.is(*reason))
}

/// The outcome of the fetch of a source page. A renewal only listens to it until a caller begins to wait for the answer. A
/// foreground fetch ends with [`FetchError::NoDemand`] when its last caller disconnects.
async fn source_outcome(
    mut follower: Follower,
    urgency: Urgency,
    demand: &Demand,
) -> Result<Result<Arc<Entry>, ClientError>, FetchError> {
    match urgency {
        Urgency::Foreground => tokio::select! {
            outcome = follower.result() => Ok(outcome),
            () = demand.lost() => Err(FetchError::NoDemand),
        },
        Urgency::Background => {
            let ended = tokio::select! {
                outcome = follower.result() => Some(outcome),
                () = demand.gained() => None,
            };
            if let Some(outcome) = ended {
                return Ok(outcome);
            }
            follower.start_waiting();
            Ok(follower.result().await)
        }
    }
}
