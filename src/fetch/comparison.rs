//! Comparisons of derived answers with fetched ones. They decide which kinds of derivation are used (`tenant::Trust`).
//!
//! A comparison fetches, in this order, the source (one page, or all pages of a complete list), the answer, and the source
//! again. It counts only if the same answer follows from both sources, since otherwise the list has changed meanwhile. A
//! difference is confirmed by another comparison. If several kinds have led to the answer, further comparisons find the wrong
//! one. A check of kinds that are in use ends with an answer that is equal, since it has nothing to prove.
//!
//! All fetches are within the budget, and in the background unless callers wait; `ComparisonPermit` says what they may cost
//! callers. What they bring is stored like any other answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tracing::{info, warn};

use super::Fetcher;
use super::derivation::DerivedEntry;
use super::failed_source::says_nothing_of_the_page;
use super::request::{FetchPurpose, FetchRequest};
use crate::cache::{CacheKey, Entry};
use crate::caller::Caller;
use crate::clock::Moment;
use crate::error::{ClientError, Reason};
use crate::executions::{DerivationKind, DerivationKinds, ListQuery, Question};
use crate::http_client::Client;
use crate::limit::Urgency;
use crate::log_events;
use crate::observe::ComparisonResult;
use crate::tenant::{ComparisonPermit, SourceOrigin};
use crate::upstream::UpstreamTelemetry;

/// Comparisons that may be made to confirm a difference, until one counts.
const CONFIRMATIONS: u32 = 3;
/// Fetches of one page until one began late enough: another request's fetch may be under way.
const ATTEMPTS: u32 = 3;
/// Longest wait of a request until it may go ahead of callers.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// A comparison to be made, with what is known already.
pub(super) struct Comparison {
    permit: ComparisonPermit,
    purpose: Purpose,
    /// The source: one page, or all pages of a complete list.
    pages: Vec<ListQuery>,
    before: Option<Snapshot>,
    answer: Option<Arc<Entry>>,
}

/// The purpose of a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To put kinds to use.
    Proof,
    /// To find out whether kinds in use have become wrong.
    Check,
}

/// A derived answer, at the moment at which its source was fetched.
#[derive(Clone)]
struct Snapshot {
    body: Bytes,
    kinds: DerivationKinds,
    response_time: Moment,
}

/// The result of one comparison.
enum Verdict {
    Agrees(DerivationKinds),
    Differs(DerivationKinds),
    /// The list has changed meanwhile, or the answer does not follow from the source.
    Inconclusive,
}

/// The reason for which a comparison ends without a verdict.
enum Unfinished {
    /// Refold does not serve the source.
    SourceFailed,
    /// Refold can't be asked at present, or the answer could not be fetched.
    NotFetched,
}

impl From<DerivedEntry> for Snapshot {
    fn from(derived: DerivedEntry) -> Self {
        Self { body: derived.entry.body, kinds: derived.kinds, response_time: derived.response_time }
    }
}

impl Comparison {
    /// A proof whose source is still to be fetched.
    pub(super) fn proof_with(permit: ComparisonPermit, source: ListQuery) -> Self {
        Self { permit, purpose: Purpose::Proof, pages: vec![source], before: None, answer: None }
    }

    /// A proof with an answer that was derived from stored pages.
    pub(super) fn proof_of(permit: ComparisonPermit, derived: &DerivedEntry) -> Self {
        Self::of(permit, Purpose::Proof, derived)
    }

    /// A check of a derived answer.
    pub(super) fn check_of(permit: ComparisonPermit, derived: &DerivedEntry) -> Self {
        Self::of(permit, Purpose::Check, derived)
    }

    fn of(permit: ComparisonPermit, purpose: Purpose, derived: &DerivedEntry) -> Self {
        let before =
            Snapshot { body: derived.entry.body.clone(), kinds: derived.kinds, response_time: derived.response_time };
        Self { permit, purpose, pages: derived.pages.clone(), before: Some(before), answer: None }
    }

    /// Adds the answer, which was fetched after the source, if that was fetched.
    pub(super) fn answered(mut self, answer: &Arc<Entry>) -> Self {
        self.answer = self.before.is_some().then(|| Arc::clone(answer));
        self
    }
}

/// A comparison under way, for the caller of an answer.
pub(super) struct ComparisonTask {
    fetcher: Arc<Fetcher>,
    client: Client,
    caller: Caller,
    key: CacheKey,
    telemetry: UpstreamTelemetry,
    comparison: Comparison,
}

impl ComparisonTask {
    pub(super) fn new(fetcher: &Arc<Fetcher>, client: &Client, request: &FetchRequest, comparison: Comparison) -> Self {
        let (caller, key) = (request.caller.clone(), request.key.clone());
        let (fetcher, client, telemetry) = (Arc::clone(fetcher), client.clone(), request.telemetry.background());
        Self { fetcher, client, caller, key, telemetry, comparison }
    }

    /// Compares, and records the result. Begin it when the fetch of the answer has ended, so that it does not join that one.
    pub(super) async fn run(mut self) {
        let (before, answer) = (self.comparison.before.take(), self.comparison.answer.take());
        let verdict = match self.compare(&self.key, before, answer).await {
            Ok(Verdict::Differs(_)) => self.confirm().await,
            other => other,
        };
        let result = match &verdict {
            Ok(verdict) => self.conclude(verdict),
            Err(_) => ComparisonResult::Unfinished,
        };
        self.telemetry.count_comparison(result);
        match verdict {
            Ok(_) => self.comparison.permit.succeeded(),
            Err(Unfinished::SourceFailed) => self.comparison.permit.failed(self.fetcher.clock.now()),
            Err(Unfinished::NotFetched) => {}
        }
    }

    /// Compares again until a comparison counts. An agreement does not confirm the difference, and is none either.
    async fn confirm(&self) -> Result<Verdict, Unfinished> {
        for _ in 0..CONFIRMATIONS {
            match self.compare(&self.key, None, None).await? {
                Verdict::Inconclusive => {}
                Verdict::Agrees(_) => break,
                Verdict::Differs(kinds) => return Ok(Verdict::Differs(self.wrong_ones(kinds).await)),
            }
        }
        Ok(Verdict::Inconclusive)
    }

    /// The kinds that lead to a wrong answer each by itself; all of them if none is found to do so.
    async fn wrong_ones(&self, kinds: DerivationKinds) -> DerivationKinds {
        if kinds.iter().count() < 2 {
            return kinds;
        }
        let mut wrong = DerivationKinds::default();
        for kind in kinds.iter() {
            let Some(key) = self.question_of(kind) else { continue };
            let alone = DerivationKinds::default().with(kind);
            if matches!(self.compare(&key, None, None).await, Ok(Verdict::Differs(kinds)) if kinds == alone) {
                wrong = wrong.with(kind);
            }
        }
        if wrong == DerivationKinds::default() { kinds } else { wrong }
    }

    /// A question of the same account whose answer follows from the same source by one of the kinds alone.
    fn question_of(&self, kind: DerivationKind) -> Option<CacheKey> {
        let Question::List(wanted) = self.key.question() else { return None };
        let source = self.comparison.pages.first()?;
        let alone = wanted.by_kind_alone(kind, source.limit())?;
        (alone != *source).then(|| self.key.with_question(Question::List(alone)))
    }

    fn conclude(&self, verdict: &Verdict) -> ComparisonResult {
        let tenant = self.caller.tenant();
        let (trust, now) = (tenant.trust(), self.now());
        match verdict {
            Verdict::Agrees(kinds) => {
                let witness = self.caller.partition().witness();
                for kind in trust.agree(*kinds, &witness, tenant.witnesses(), now) {
                    info!(tenant = &*tenant.config.id, kind = kind.name(), "{}", log_events::DERIVATION_PROVEN);
                }
                ComparisonResult::Agrees
            }
            Verdict::Differs(kinds) => {
                for kind in trust.contradict(*kinds, now) {
                    self.telemetry.count_contradiction(kind);
                    let query = self.key.question().to_string();
                    warn!(tenant = &*tenant.config.id, kind = kind.name(), query, "{}", log_events::DERIVATION_WRONG);
                }
                ComparisonResult::Differs
            }
            Verdict::Inconclusive => ComparisonResult::Inconclusive,
        }
    }

    /// Compares once: the source, the answer to a question, the source again.
    async fn compare(
        &self,
        key: &CacheKey,
        before: Option<Snapshot>,
        answer: Option<Arc<Entry>>,
    ) -> Result<Verdict, Unfinished> {
        let before = match before {
            Some(before) => before,
            None => match self.snapshot(key, Moment::default()).await? {
                Some(before) => before,
                None => return Ok(Verdict::Inconclusive),
            },
        };
        let at_hand = answer.filter(|answer| was_fetched_after(answer, before.response_time)).map(Ok);
        let (answer, response_time) = match at_hand {
            Some(answer) => (answer, self.now()),
            None => (self.fetch(key, before.response_time).await, self.now()),
        };
        let same = match &answer {
            Ok(answer) => answer.body == before.body,
            // A question that Refold refuses as such has another answer than the derived one.
            Err(error) if error.status() == StatusCode::BAD_REQUEST || error.status() == StatusCode::NOT_FOUND => false,
            Err(_) => return Err(Unfinished::NotFetched),
        };
        if same && self.comparison.purpose == Purpose::Check {
            return Ok(Verdict::Agrees(before.kinds));
        }
        let response_time = answer.map_or(response_time, |answer| answer.response_time);
        let Some(after) = self.snapshot(key, response_time).await? else { return Ok(Verdict::Inconclusive) };
        let kinds = before.kinds.and(after.kinds);
        Ok(match (before.body == after.body, same) {
            (false, _) => Verdict::Inconclusive,
            (true, true) => Verdict::Agrees(kinds),
            (true, false) => Verdict::Differs(kinds),
        })
    }

    /// The answer that follows from the source, which is fetched after a moment; `None` if none follows.
    async fn snapshot(&self, wanted: &CacheKey, after: Moment) -> Result<Option<Snapshot>, Unfinished> {
        let epochs = self.caller.tenant().trust().epochs();
        let mut pages = Vec::with_capacity(self.comparison.pages.len());
        let mut after = after;
        for query in &self.comparison.pages {
            let key = wanted.with_question(Question::List(query.clone()));
            let page = match self.fetch(&key, after).await {
                Ok(page) => page,
                Err(error) if says_nothing_of_the_page(&error) => return Err(Unfinished::NotFetched),
                Err(error) => {
                    self.fetcher.note_failed_source(&self.caller, &error);
                    return Err(Unfinished::SourceFailed);
                }
            };
            after = page.response_time;
            pages.push((query.clone(), page));
        }
        let size = pages.iter().map(|(_, page)| page.body.len()).sum();
        let derive = move |fetcher: &Fetcher, caller: &Caller, key: &CacheKey| {
            for (query, page) in &pages {
                if fetcher.refutes(key, &key.with_question(Question::List(query.clone())), page) {
                    caller.partition().list_size.refute();
                    return None;
                }
            }
            fetcher.derive_from(caller, key, pages, (&epochs, SourceOrigin::Fetched)).map(Snapshot::from)
        };
        Ok(self.fetcher.run_derivation(size, (&self.caller, wanted), derive).await)
    }

    /// Fetches the answer to a question, with a request that is sent after a moment.
    async fn fetch(&self, key: &CacheKey, after: Moment) -> Result<Arc<Entry>, ClientError> {
        for _ in 0..ATTEMPTS {
            let entry = self.join(key).await?;
            if was_fetched_after(&entry, after) {
                return Ok(entry);
            }
        }
        Err(ClientError::new(Reason::Overloaded, "other fetches of the same page are always under way"))
    }

    /// Starts a fetch, or joins the one that is under way.
    async fn join(&self, key: &CacheKey) -> Result<Arc<Entry>, ClientError> {
        let request = FetchRequest {
            caller: self.caller.clone(),
            key: key.clone(),
            stale: self.fetcher.stored(&self.caller, key).filter(|entry| entry.derived.is_none()),
            urgency: self.urgency().await?,
            bypass_cache: true,
            purpose: FetchPurpose::Comparison,
            claim: None,
            begins_wait: None,
            telemetry: self.telemetry.background(),
        };
        let (mut follower, _) = self.fetcher.join(self.client.clone(), request);
        follower.result().await
    }

    async fn urgency(&self) -> Result<Urgency, ClientError> {
        let budget = self.caller.tenant().upstream_budget();
        tokio::select! {
            urgency = self.comparison.permit.urgency(|| budget.callers_wait()) => Ok(urgency),
            () = self.fetcher.clock.sleep_until(self.now() + LONGEST_WAIT) => {
                Err(ClientError::new(Reason::Overloaded, "callers use up the upstream budget"))
            }
        }
    }

    fn now(&self) -> Moment {
        self.fetcher.clock.now()
    }
}

fn was_fetched_after(entry: &Entry, moment: Moment) -> bool {
    entry.derived.is_none() && entry.request_time >= moment
}
