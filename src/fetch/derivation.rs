//! Derives answers from other pages in the store. Not part of the hit path: derivation is tried only for questions that would
//! otherwise be fetched.

use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;

use super::Fetcher;
use crate::cache::{CacheKey, Entry};
use crate::caller::Caller;
use crate::clock::Moment;
use crate::config::Derive;
use crate::executions::{DerivationKinds, DerivationSource, DerivedPage, ListQuery, MAX_PAGES_OF_A_LIST, Question};
use crate::offload;
use crate::tenant::{
    ComparisonPermit, DerivationEpochs, DerivationMark, DerivationUse, ListView, SourceOrigin, TokenStatus, WHOLE_PAGE,
};

/// An entry that was derived, and the pages that it follows from.
pub(super) struct DerivedEntry {
    pub(super) entry: Entry,
    pub(super) kinds: DerivationKinds,
    /// In order; a single page or a complete list.
    pub(super) pages: Vec<ListQuery>,
    /// Time at which the last of the pages had arrived.
    pub(super) response_time: Moment,
}

/// A page to fetch in place of a response, because the response and others follow from it.
pub(super) struct SourceToFetch {
    pub(super) key: CacheKey,
    /// The question of the key.
    pub(super) query: ListQuery,
    /// The stored page; without one, the page is a whole list that no stored page proves to be short enough.
    pub(super) stale: Option<Arc<Entry>>,
    /// The kinds of the derivation, as far as they are known before the page is fetched.
    pub(super) kinds: DerivationKinds,
}

impl Fetcher {
    /// The answer that follows from fresh entries, if one does.
    pub(super) fn derive(&self, caller: &Caller, key: &CacheKey) -> Option<DerivedEntry> {
        let wanted = self.derivable(key)?;
        let now = self.clock.now();
        // Before the sources are looked up: a difference that is found meanwhile withdraws the derived entry.
        let epochs = caller.tenant().trust().epochs();
        let fresh = |query: &ListQuery| {
            self.page(caller, key, query).filter(|entry| self.is_current((caller, key), entry, now))
        };
        wanted.sources().filter(|source| may_be_stored(caller, source)).find_map(|source| {
            let first = fresh(source.first())?;
            let pages = match &source {
                DerivationSource::Page(query) => vec![(query.clone(), first)],
                DerivationSource::CompleteList(query) => {
                    let all = query.all_pages(&first.body)?;
                    all.into_iter().map(|page| fresh(&page).map(|entry| (page, entry))).collect::<Option<_>>()?
                }
            };
            let derived = self.derive_from(caller, key, pages, (&epochs, SourceOrigin::Stored))?;
            derived.entry.is_fresh(now).then_some(derived)
        })
    }

    /// The answer that follows from pages, if it does. `epochs` are those before the pages were looked up or requested.
    pub(super) fn derive_from(
        &self,
        caller: &Caller,
        key: &CacheKey,
        pages: Vec<(ListQuery, Arc<Entry>)>,
        (epochs, origin): (&DerivationEpochs, SourceOrigin),
    ) -> Option<DerivedEntry> {
        let wanted = self.derivable(key)?;
        // Only pages whose fetches did not overlap show one and the same moment.
        if !pages.is_sorted_by(|(_, earlier), (_, later)| earlier.response_time <= later.request_time) {
            return None;
        }
        let bodies: Vec<(&ListQuery, &Bytes)> = pages.iter().map(|(query, entry)| (query, &entry.body)).collect();
        let DerivedPage { page, kinds } = wanted.derive(&bodies, self.config.upstream.dialect)?;
        let request_time = pages.iter().map(|(_, entry)| entry.request_time).min()?;
        let response_time = pages.iter().map(|(_, entry)| entry.response_time).max()?;
        // A page can be derived itself.
        let inherited = pages.iter().filter_map(|(_, entry)| entry.derived).map(DerivationMark::kinds);
        let kinds = inherited.fold(kinds, DerivationKinds::and);
        let mut entry = self.entries.of(caller, key.question(), &page, request_time);
        entry.derived = Some(epochs.mark(kinds, origin));
        if pages.iter().any(|(_, entry)| entry.no_store) {
            entry = entry.not_stored();
        }
        Some(DerivedEntry { entry, kinds, pages: pages.into_iter().map(|(query, _)| query).collect(), response_time })
    }

    /// Decides on the use of a derived answer.
    pub(super) fn decide(&self, caller: &Caller, key: &CacheKey, kinds: DerivationKinds) -> DerivationUse {
        match self.config.cache.derive {
            Derive::Trusted => DerivationUse::Serve,
            Derive::Off => DerivationUse::Refuse,
            // A token that Refold has not accepted must not cost more than its own questions.
            Derive::Verified if !self.is_accepted(caller) => DerivationUse::Refuse,
            Derive::Verified => {
                // Not keyed: it only decides which question is checked.
                let question = FixedState::default().hash_one(key);
                let tenant = caller.tenant();
                let callers_wait = tenant.upstream_budget().callers_wait();
                tenant.trust().decide(kinds, question, callers_wait, self.clock.now())
            }
        }
    }

    /// A permit for a comparison that is to prove kinds of derivation.
    pub(super) fn begin_proof(&self, caller: &Caller, kinds: DerivationKinds) -> Option<ComparisonPermit> {
        let may = self.config.cache.derive == Derive::Verified && self.is_accepted(caller);
        let tenant = caller.tenant();
        let begin = || tenant.trust().begin_proof(kinds, tenant.upstream_budget().callers_wait(), self.clock.now());
        may.then(begin).flatten()
    }

    /// Returns whether a page may be fetched in place of an answer, to derive the answer by these kinds from it.
    pub(super) fn serves(&self, caller: &Caller, kinds: DerivationKinds) -> bool {
        match self.config.cache.derive {
            Derive::Trusted => true,
            Derive::Off => false,
            Derive::Verified => caller.tenant().trust().serves(kinds, self.clock.now()),
        }
    }

    /// True if the page, by its `total`, is a whole list, but the answer can't be derived from it: its executions lack the field
    /// that the question filters by, or it is not complete. A question for a page beyond the end refutes nothing.
    pub(super) fn refutes(&self, key: &CacheKey, page: &CacheKey, source: &Entry) -> bool {
        let (Some(wanted), Question::List(query)) = (self.derivable(key), page.question()) else { return false };
        let whole = source.total.is_some_and(|total| total <= u64::from(WHOLE_PAGE));
        whole && wanted.first_page().derive(&[(query, &source.body)], self.config.upstream.dialect).is_none()
    }

    /// A page to fetch in place of the answer, because the answer and others follow from it: a stale one in the store, or
    /// the whole list if it is short.
    pub(super) fn source_to_fetch(&self, caller: &Caller, key: &CacheKey) -> Option<SourceToFetch> {
        let wanted = self.derivable(key)?;
        if !caller.partition().list_size.allows_substitutes(self.clock.now()) {
            return None;
        }
        self.stale_source(caller, key, wanted).or_else(|| {
            let whole = wanted.on_one_page(WHOLE_PAGE).filter(|_| self.config.query.max_limit >= WHOLE_PAGE)?;
            let size = &caller.partition().list_size;
            let view = if wanted.is_plain() { ListView::Unfiltered } else { ListView::Filtered };
            let kinds = wanted.kinds_from_complete_list(size.total());
            let key = key.with_question(Question::List(whole.clone()));
            size.is_worth_fetching_whole(view).then_some(SourceToFetch { key, query: whole, stale: None, kinds })
        })
    }

    /// Notes the length of a list that was fetched.
    pub(super) fn note_list_size(caller: &Caller, key: &CacheKey, entry: &Entry) {
        let size = &caller.partition().list_size;
        if let (Question::List(query), Some(total), false) = (key.question(), entry.total, entry.no_store) {
            size.add_page_size(query.limit());
            if query.is_plain() {
                size.set_total(total);
            }
        }
    }

    /// Runs a part of a derivation that reads up to `size` bytes; off the worker's thread if that is much.
    pub(super) async fn run_derivation<T: Send + 'static>(
        self: &Arc<Self>,
        size: usize,
        (caller, key): (&Caller, &CacheKey),
        work: impl FnOnce(&Self, &Caller, &CacheKey) -> T + Send + 'static,
    ) -> T {
        if !offload::is_heavy(size) {
            return work(self, caller, key);
        }
        let (fetcher, caller, key) = (Arc::clone(self), caller.clone(), key.clone());
        offload::run(move || work(&fetcher, &caller, &key)).await
    }

    /// Size in bytes of the largest source that is stored and from which the answer may be derived. The pages of a list are taken
    /// to be as large as its first one.
    pub(super) fn largest_source(&self, caller: &Caller, key: &CacheKey) -> usize {
        let sources = self.derivable(key).into_iter().flat_map(ListQuery::sources);
        let stored = sources.filter(|source| may_be_stored(caller, source)).filter_map(|source| {
            let first = self.page(caller, key, source.first())?;
            let pages = match source {
                DerivationSource::Page(_) => 1,
                DerivationSource::CompleteList(query) => first.total?.div_ceil(query.limit().into()),
            };
            Some(first.body.len().saturating_mul(usize::try_from(pages).unwrap_or(usize::MAX)))
        });
        stored.max().unwrap_or(0)
    }

    fn stale_source(&self, caller: &Caller, key: &CacheKey, wanted: &ListQuery) -> Option<SourceToFetch> {
        wanted.sources().filter(|source| may_be_stored(caller, source)).find_map(|source| {
            let query = source.first();
            let entry = self.page(caller, key, query)?;
            let DerivedPage { kinds, .. } = wanted.derive(&[(query, &entry.body)], self.config.upstream.dialect)?;
            let key = key.with_question(Question::List(query.clone()));
            Some(SourceToFetch { key, query: query.clone(), stale: Some(entry), kinds })
        })
    }

    fn is_accepted(&self, caller: &Caller) -> bool {
        caller.partition().token_status(self.clock.now()) == TokenStatus::Accepted
    }

    fn derivable<'a>(&self, key: &'a CacheKey) -> Option<&'a ListQuery> {
        match key.question() {
            Question::List(query) if self.config.cache.derive != Derive::Off => Some(query),
            _ => None,
        }
    }

    /// True if an entry of a key's partition may be used as an answer: it is fresh, and was not dropped, as far as can be known.
    pub(super) fn is_current(&self, (caller, key): (&Caller, &CacheKey), entry: &Entry, now: Moment) -> bool {
        // In this order: what is trusted has been dropped as far as is known, and that has changed the keys.
        self.store.is_current(entry, now) && key.is_present(caller)
    }

    /// Another page of the same partition.
    fn page(&self, caller: &Caller, key: &CacheKey, query: &ListQuery) -> Option<Arc<Entry>> {
        self.stored(caller, &key.with_question(Question::List(query.clone())))
    }

    /// The stored entry of a key, unless it was derived in a way that has turned out to be wrong.
    pub(super) fn stored(&self, caller: &Caller, key: &CacheKey) -> Option<Arc<Entry>> {
        self.store.get(key).filter(|entry| !entry.is_withdrawn(caller.tenant().trust()))
    }
}

/// True if a look-up of a source is worth its cost. It mostly is not: most accounts have pages of one size only, and the length
/// of most lists is unknown.
fn may_be_stored(caller: &Caller, source: &DerivationSource) -> bool {
    let (size, first) = (&caller.partition().list_size, source.first());
    size.has_pages_of(first.limit())
        && match source {
            DerivationSource::Page(_) => true,
            DerivationSource::CompleteList(_) => first.is_plain() && size.fits(MAX_PAGES_OF_A_LIST, first.limit()),
        }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue};
    use jiff::Timestamp;

    use super::*;
    use crate::caller::{Callers, ListenerIdentity};
    use crate::clock::{Clock, Moment};
    use crate::config::{Config, Environment};
    use crate::executions::{QueryPolicy, UnknownParameters, ValidatedBody};
    use crate::observe::Observer;
    use crate::offload::testing::offloads;
    use crate::request::headers::RequestHeaders;

    fn fetcher_and_caller() -> (Arc<Fetcher>, Caller) {
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        let text = "[[tenants]]\nid = \"t\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
        let config = Config::parse(text, Path::new("test.toml"), &environment).expect("a valid configuration");
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let callers = Callers::new(&config, &clock, None).expect("an HTTP client");
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_static("tk_org"));
        headers.insert("linked_account_id", HeaderValue::from_static("acme-1"));
        let identified =
            callers.identify(&RequestHeaders::of(&headers), &ListenerIdentity::default(), Moment::default());
        let caller = identified.unwrap_or_else(|_| panic!("the credential is good"));
        let observer = Arc::new(Observer::new(clock.clone(), None));
        (Arc::new(Fetcher::new(Arc::new(config), clock, &observer, None)), caller)
    }

    fn query(text: &str) -> Question {
        let policy = QueryPolicy { max_limit: 100, unknown: UnknownParameters::Reject, ignored: Vec::new() };
        Question::List(ListQuery::parse(Some(text), &policy).unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    /// The first page of a list of 20 executions, each with a name of this length.
    fn page_of_20(name: usize) -> ValidatedBody {
        let execution = |id| format!(r#"{{"_id":"{id}","status":"COMPLETED","name":"{}"}}"#, "a".repeat(name));
        let docs: Vec<_> = (0..20).map(execution).collect();
        let body = format!(
            r#"{{"docs":[{}],"totalDocs":20,"limit":20,"totalPages":1,"page":1,"pagingCounter":1,"hasPrevPage":false,"hasNextPage":false,"prevPage":null,"nextPage":null}}"#,
            docs.join(",")
        );
        ValidatedBody::page(body.into(), 1, 20).expect("a page")
    }

    #[test]
    fn large_sources_are_parsed_off_the_thread() {
        for (name, expected) in [(10, false), (3000, false), (3300, true), (50_000, true)] {
            let (fetcher, caller) = fetcher_and_caller();
            let source = CacheKey::new(&caller, query("limit=20"));
            let (wanted, now) = (source.with_question(query("limit=5&page=2")), Moment::from_nanos(1));
            let asked = (&caller, &wanted);
            assert_eq!(fetcher.largest_source(&caller, &wanted), 0, "nothing is stored");
            let entry = Arc::new(Entry::new(&page_of_20(name), Duration::from_secs(9), now, now));
            Fetcher::note_list_size(&caller, &source, &entry);
            fetcher.store.put_if_newer(source, Arc::clone(&entry), now);
            let size = fetcher.largest_source(&caller, &wanted);
            assert_eq!(size, entry.body.len());
            let (offloaded, derived) = offloads(fetcher.run_derivation(size, asked, Fetcher::derive));
            assert_eq!(offloaded, expected, "a source of {size} bytes");
            let derived = derived.expect("it follows from the source");
            assert_eq!((derived.entry.derived.is_some(), derived.entry.total), (true, Some(20)));
        }
    }

    #[test]
    fn nothing_follows_from_a_page_that_was_dropped_since_the_key_was_made() {
        let (fetcher, caller) = fetcher_and_caller();
        let source = CacheKey::new(&caller, query("limit=20"));
        let (wanted, now) = (source.with_question(query("limit=5&page=2")), Moment::from_nanos(1));
        let entry = Arc::new(Entry::new(&page_of_20(10), Duration::from_secs(9), now, now));
        Fetcher::note_list_size(&caller, &source, &entry);
        fetcher.store.put_if_newer(source, entry, now);
        assert!(fetcher.derive(&caller, &wanted).is_some());
        caller.partition().drop_entries();
        assert!(fetcher.derive(&caller, &wanted).is_none());
    }
}
