//! One fetch, from its start to the result that its callers receive.

use std::sync::Arc;
use std::time::Duration;

use super::comparison::{Comparison, ComparisonTask};
use super::derivation::{DerivedEntry, SourceToFetch};
use super::failed_source::is_refold_unavailable;
use super::request::{FetchPurpose, FetchRequest, FetchRole};
use super::shared::Turn;
use super::{FetchStart, Fetcher};
use crate::cache::{CacheKey, Demand, Entry, Follower, Leader};
use crate::caller::Caller;
use crate::error::{ClientError, Reason};
use crate::http_client::Client;
use crate::limit::Urgency;
use crate::log_events;
use crate::observe::{FailedRenewal, printable};
use crate::tenant::{DerivationUse, SourceOrigin};
use crate::upstream::{FetchDemand, FetchError, UpstreamCall};

/// The time from which on a renewal is reported as slow.
const SLOW: Duration = Duration::from_secs(2);

/// The result of fetching a page from which an answer was to be derived.
enum SourceResult {
    /// The answer follows from it.
    Derived(Resolved),
    /// There is no such page, the answer does not follow from it, or it is not served because its derivation is not proven;
    /// then it may have to be compared with the answer.
    NotDerived(Option<Comparison>),
    /// The page could not be fetched.
    Failed,
}

/// The answer to a question, and the comparison to make of it.
struct Resolved {
    entry: Arc<Entry>,
    comparison: Option<Comparison>,
}

impl Fetcher {
    /// Runs a fetch: resolves the question, stores the result, then tells the callers.
    pub(super) async fn run(
        self: Arc<Self>,
        client: Client,
        mut request: FetchRequest,
        mut leader: Leader<FetchStart>,
    ) {
        let mut comparison = None;
        let outcome = loop {
            match self.resolve(&client, &mut request, &leader.demand()).await {
                Ok(resolved) => {
                    comparison = resolved.comparison;
                    break Ok(resolved.entry);
                }
                Err(FetchError::Failed(error)) => break Err(error),
                // Every caller has disconnected before Refold was asked; one may have joined in the meantime.
                Err(FetchError::NoDemand) => match leader.cancel_without_demand() {
                    Ok(()) => return,
                    Err(joined) => leader = joined,
                },
            }
        };
        let comparison = comparison.map(|comparison| ComparisonTask::new(&self, &client, &request, comparison));
        if request.stale.is_some() {
            match &outcome {
                Ok(_) => self.report_slow_renewal(&request),
                Err(error) if error.is_passing() => self.report_failed_renewal(&request, error),
                Err(_) => {}
            }
        }
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
        // Its fetches would otherwise join this one.
        if let Some(comparison) = comparison {
            tokio::spawn(comparison.run());
        }
    }

    /// Reports why an entry stays stale. Its callers do not see the error.
    fn report_failed_renewal(&self, request: &FetchRequest, error: &ClientError) {
        request.telemetry.count_failed_renewal(error.label());
        // The opened circuit has an event of its own; each renewal would repeat it.
        if error.is(Reason::UpstreamCircuitOpen) {
            return;
        }
        let (linked_account, query) = self.logged_names(request);
        let naming = self.config.log.linked_accounts;
        let named = request.caller.partition().linked_account_id();
        let upstream_message = error.upstream_message().filter(|_| naming.shows_text_of_refold());
        let upstream_request_id = error.upstream_request_id().filter(|id| naming.shows_request_id(id, named));
        tracing::info!(
            tenant = %request.caller.tenant().config.id,
            linked_account,
            query,
            error_code = error.operator_code(),
            upstream_status = error.upstream_status().map(|status| status.as_u16()),
            upstream_message = upstream_message.map(printable),
            upstream_request_id = upstream_request_id.map(printable),
            cause = error.cause().map(tracing::field::display),
            message = log_events::RENEWAL_FAILED,
        );
        request.telemetry.show_failed_renewal(&FailedRenewal {
            at: self.clock.now(),
            tenant: &request.caller.tenant().config.id,
            linked_account: named,
            query: &query,
            error,
        });
    }

    /// Reports that Refold took long for a renewal, until which callers got the stale entry.
    fn report_slow_renewal(&self, request: &FetchRequest) {
        let taken = request.telemetry.cost().duration().unwrap_or_default();
        if taken >= SLOW {
            let (linked_account, query) = self.logged_names(request);
            tracing::info!(
                tenant = %request.caller.tenant().config.id,
                linked_account,
                query,
                upstream_us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX),
                message = log_events::RENEWAL_SLOW,
            );
        }
    }

    /// The linked account of a fetch, as `log.linked_accounts` has it, and its canonical query.
    fn logged_names(&self, request: &FetchRequest) -> (Option<String>, String) {
        let named = request.caller.partition().linked_account_id();
        let account = named.and_then(|account| self.config.log.linked_accounts.name(account));
        let mut query = String::new();
        request.key.question().write_canonical(&mut query);
        (account.map(Into::into), query)
    }

    /// Returns the answer: an entry that another fetch has stored meanwhile, a page derived from other pages, or Refold's
    /// response.
    async fn resolve(
        self: &Arc<Self>,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
    ) -> Result<Resolved, FetchError> {
        let mut comparison = None;
        if !request.bypass_cache {
            // Another fetch may have ended between the look-up and the start of this one.
            let stored = self.stored(&request.caller, &request.key);
            let now = self.clock.now();
            if let Some(entry) = stored.filter(|entry| self.is_current((&request.caller, &request.key), entry, now)) {
                return Ok(Resolved { entry, comparison });
            }
            let asked = (&request.caller, &request.key);
            let size = self.largest_source(&request.caller, &request.key);
            let derived = match self.run_derivation(size, asked, Self::derive).await {
                Some(derived) => self.use_derived(&request.caller, &request.key, derived),
                None => self.resolve_by_source(client, request, demand, size).await?,
            };
            match derived {
                SourceResult::Derived(resolved) => return Ok(resolved),
                SourceResult::NotDerived(begun) => comparison = begun,
                SourceResult::Failed => {
                    let fetched = self.fetch(client, request, demand).await;
                    if let Err(FetchError::Failed(_)) = &fetched {
                        request.caller.partition().list_size.resume_substitutes();
                    }
                    return Ok(Resolved { entry: fetched?, comparison });
                }
            }
        }
        let entry = self.fetch(client, request, demand).await?;
        let comparison = comparison.map(|comparison| comparison.answered(&entry));
        Ok(Resolved { entry, comparison })
    }

    /// Serves a derived answer, or has it compared with the fetched one.
    fn use_derived(&self, caller: &Caller, key: &CacheKey, derived: DerivedEntry) -> SourceResult {
        let comparison = match self.decide(caller, key, derived.kinds) {
            DerivationUse::Serve => None,
            DerivationUse::ServeAndCheck(permit) => Some(Comparison::check_of(permit, &derived)),
            DerivationUse::Compare(permit) => {
                return SourceResult::NotDerived(Some(Comparison::proof_of(permit, &derived)));
            }
            DerivationUse::Refuse => return SourceResult::NotDerived(None),
        };
        SourceResult::Derived(Resolved { entry: Arc::new(derived.entry), comparison })
    }

    /// Asks the fleet, if there is one, then Refold.
    async fn fetch(
        &self,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
    ) -> Result<Arc<Entry>, FetchError> {
        let Some(second_level) = &self.second_level else { return self.ask_refold(client, request, demand).await };
        match second_level.turn(request, demand, &self.store).await? {
            Turn::Answered(entry) => {
                Self::note_list_size(&request.caller, &request.key, &entry);
                Ok(entry)
            }
            Turn::Failed(error) => Err(error.into()),
            Turn::Fetch(None) => {
                request.begin_wait();
                self.ask_refold(client, request, demand).await
            }
            Turn::Fetch(Some(shared)) => {
                request.begin_wait();
                let result = shared.run(self.ask_refold(client, request, demand)).await;
                shared.finish(&result);
                result
            }
        }
    }

    /// Asks Refold the question itself.
    async fn ask_refold(
        &self,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
    ) -> Result<Arc<Entry>, FetchError> {
        request.telemetry.begin("fetch");
        let FetchRequest { caller, key, stale, urgency, purpose, telemetry, .. } = request;
        let call = UpstreamCall { client, caller, telemetry };
        let is_comparison = *purpose == FetchPurpose::Comparison;
        let demand = FetchDemand { urgency: *urgency, demand, stale: stale.as_deref(), is_comparison };
        let fetched = self.upstream.fetch(&call, key.question(), demand).await?;
        let entry = Arc::new(self.entries.of_fetch(caller, key.question(), stale.as_ref(), fetched).await);
        if !is_comparison {
            caller.tenant().trust().count_fetch();
        }
        Self::note_list_size(caller, key, &entry);
        Ok(entry)
    }

    /// Fetches the page that the answer follows from, so that one fetch serves all questions that follow from it. `size` is that of
    /// the largest source that is stored, in bytes.
    async fn resolve_by_source(
        self: &Arc<Self>,
        client: &Client,
        request: &mut FetchRequest,
        demand: &Demand,
        size: usize,
    ) -> Result<SourceResult, FetchError> {
        let to_fetch = self.run_derivation(size, (&request.caller, &request.key), Self::source_to_fetch).await;
        let Some(SourceToFetch { key, query, stale, kinds }) = to_fetch else {
            return Ok(SourceResult::NotDerived(None));
        };
        if !self.serves(&request.caller, kinds) {
            let permit = self.begin_proof(&request.caller, kinds);
            return Ok(SourceResult::NotDerived(permit.map(|permit| Comparison::proof_with(permit, query))));
        }
        // Before the page is requested: a difference that is found meanwhile withdraws the derived entry.
        let epochs = request.caller.tenant().trust().epochs();
        // No stored page proves that the list is short enough for one page.
        let guessed = stale.is_none();
        let source = request.source(key.clone(), stale);
        let own = source.telemetry.context();
        let (follower, role) = self.join(client.clone(), source);
        demand.depends_on_another();
        request.telemetry.begin_wait(match role {
            FetchRole::Leads => own,
            FetchRole::Follows(fetch) => fetch,
        });
        match source_outcome(follower, request.urgency, demand).await? {
            Ok(source) => {
                let size = source.body.len();
                let derive = move |fetcher: &Self, caller: &Caller, wanted: &CacheKey| {
                    let pages = vec![(query, Arc::clone(&source))];
                    let derived = fetcher.derive_from(caller, wanted, pages, (&epochs, SourceOrigin::Fetched));
                    if guessed && derived.is_none() && fetcher.refutes(wanted, &key, &source) {
                        caller.partition().list_size.refute();
                    }
                    derived
                };
                let derived = self.run_derivation(size, (&request.caller, &request.key), derive).await;
                Ok(match derived {
                    Some(derived) => self.use_derived(&request.caller, &request.key, derived),
                    None => SourceResult::NotDerived(None),
                })
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
