//! Answers that follow from others in the cache. Never on the hit path: only what would be fetched otherwise comes here.

use std::sync::Arc;

use bytes::Bytes;

use super::Gateway;
use crate::cache::{CacheKey, Entry};
use crate::caller::Caller;
use crate::executions::{DerivationSource, ListQuery, MAX_PAGES_OF_A_LIST, Question};
use crate::tenant::WHOLE_PAGE;

impl Gateway {
    /// The answer that follows from what is fresh in the cache, if one does.
    pub(super) fn derived(&self, caller: &Caller, key: &CacheKey) -> Option<Entry> {
        let wanted = self.derivable(key)?;
        let now = self.clock.now();
        let fresh = |query: &ListQuery| self.page(key, query).filter(|entry| entry.is_fresh(now));
        wanted.sources().filter(|source| may_be_there(caller, source)).find_map(|source| {
            let first = fresh(source.first())?;
            let pages = match &source {
                DerivationSource::Page(query) => vec![(query.clone(), first)],
                DerivationSource::CompleteList(query) => {
                    let all = query.all_pages(&first.body)?;
                    all.into_iter().map(|page| fresh(&page).map(|entry| (page, entry))).collect::<Option<_>>()?
                }
            };
            // Else there was no moment at which all of them were so.
            if !pages.is_sorted_by(|(_, earlier), (_, later)| earlier.response_time <= later.request_time) {
                return None;
            }
            let bodies: Vec<(&ListQuery, &Bytes)> = pages.iter().map(|(query, entry)| (query, &entry.body)).collect();
            let document = wanted.derive(&bodies, self.config.upstream.dialect)?;
            let asked_at = pages.iter().map(|(_, entry)| entry.request_time).min()?;
            let entry = self.origin.entry(caller, key.question(), &document, asked_at);
            entry.is_fresh(now).then_some(entry)
        })
    }

    /// The answer that follows from a page that was fetched just now.
    pub(super) fn follows(&self, caller: &Caller, key: &CacheKey, page: &CacheKey, source: &Entry) -> Option<Entry> {
        let (wanted, Question::List(query)) = (self.derivable(key)?, page.question()) else { return None };
        let document = wanted.derive(&[(query, &source.body)], self.config.upstream.dialect)?;
        let entry = self.origin.entry(caller, key.question(), &document, source.request_time);
        Some(if source.no_store { entry.not_stored() } else { entry })
    }

    /// Whether a list that was fetched whole does not show what its executions are filtered by, or is not whole for all that
    /// it says. That a page lies beyond the end says nothing.
    pub(super) fn refutes(&self, key: &CacheKey, page: &CacheKey, source: &Entry) -> bool {
        let (Some(wanted), Question::List(query)) = (self.derivable(key), page.question()) else { return false };
        let whole = source.total.is_some_and(|total| total <= u64::from(WHOLE_PAGE));
        whole && wanted.first_page().derive(&[(query, &source.body)], self.config.upstream.dialect).is_none()
    }

    /// A page to be fetched instead of the answer, since the answer and others follow from it: one that is in the cache and not
    /// fresh any more, or the list as a whole if it is short.
    pub(super) fn source_to_fetch(&self, caller: &Caller, key: &CacheKey) -> Option<(CacheKey, Option<Arc<Entry>>)> {
        let wanted = self.derivable(key)?;
        let stale = self.stale_source(caller, key, wanted).map(|(key, entry)| (key, Some(entry)));
        stale.or_else(|| {
            let whole = wanted.on_one_page(WHOLE_PAGE).filter(|_| self.config.query.max_limit >= WHOLE_PAGE)?;
            let size = &caller.partition().list_size;
            let worth_it = size.is_worth_fetching_whole(!wanted.is_plain());
            worth_it.then(|| (key.with_question(Question::List(whole)), None))
        })
    }

    /// Notes how long a list is that was fetched.
    pub(super) fn note_size(caller: &Caller, key: &CacheKey, entry: &Entry) {
        let size = &caller.partition().list_size;
        if let (Question::List(query), Some(total), false) = (key.question(), entry.total, entry.no_store) {
            size.seen_page_of(query.limit());
            if query.is_plain() {
                size.seen(total);
            }
        }
    }

    fn stale_source(&self, caller: &Caller, key: &CacheKey, wanted: &ListQuery) -> Option<(CacheKey, Arc<Entry>)> {
        wanted.sources().filter(|source| may_be_there(caller, source)).find_map(|source| {
            let query = source.first();
            let entry = self.page(key, query)?;
            wanted.derive(&[(query, &entry.body)], self.config.upstream.dialect)?;
            Some((key.with_question(Question::List(query.clone())), entry))
        })
    }

    fn derivable<'a>(&self, key: &'a CacheKey) -> Option<&'a ListQuery> {
        match key.question() {
            Question::List(query) if self.config.cache.derive => Some(query),
            _ => None,
        }
    }

    /// Another page of the same caller's.
    fn page(&self, key: &CacheKey, query: &ListQuery) -> Option<Arc<Entry>> {
        self.store.get(&key.with_question(Question::List(query.clone())))
    }
}

/// Whether it is worth looking for a source: most accounts are asked for pages of one size, and of most lists nobody has ever
/// seen how long they are.
fn may_be_there(caller: &Caller, source: &DerivationSource) -> bool {
    let (size, first) = (&caller.partition().list_size, source.first());
    size.has_pages_of(first.limit())
        && match source {
            DerivationSource::Page(_) => true,
            DerivationSource::CompleteList(_) => first.is_plain() && size.fits(MAX_PAGES_OF_A_LIST, first.limit()),
        }
}
