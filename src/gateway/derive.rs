//! Answers that follow from others in the cache. Never on the hit path: only what would be fetched otherwise comes here.

use std::sync::Arc;

use bytes::Bytes;

use super::Gateway;
use crate::cache::{CacheKey, Entry};
use crate::caller::Caller;
use crate::executions::{ListQuery, Question, Source};

impl Gateway {
    /// The answer that follows from what is fresh in the cache, if one does.
    pub(super) fn derived(&self, caller: &Caller, key: &CacheKey) -> Option<Arc<Entry>> {
        let wanted = self.derivable(key)?;
        let now = self.clock.now();
        let fresh = |query: &ListQuery| self.page(key, query).filter(|entry| entry.is_fresh(now));
        wanted.sources().find_map(|source| {
            let first = fresh(source.first())?;
            let pages = match &source {
                Source::Page(query) => vec![(query.clone(), first)],
                Source::Whole(query) => {
                    let all = query.all_pages(&first.body)?;
                    all.into_iter().map(|page| fresh(&page).map(|entry| (page, entry))).collect::<Option<_>>()?
                }
            };
            // Else there was no moment at which all of them were so.
            if !pages.is_sorted_by(|(_, earlier), (_, later)| earlier.arrived_at <= later.stored_at) {
                return None;
            }
            let bodies: Vec<(&ListQuery, &Bytes)> = pages.iter().map(|(query, entry)| (query, &entry.body)).collect();
            let document = wanted.derive(&bodies, self.config.upstream.dialect)?;
            let asked_at = pages.iter().map(|(_, entry)| entry.stored_at).min()?;
            let mut entry = self.origin.entry(caller, key.question(), document, asked_at);
            entry.derived = true;
            entry.is_fresh(now).then(|| Arc::new(entry))
        })
    }

    /// A page that is not fresh any more and from which the answer would follow if it were. Fetched instead of the answer, it
    /// renews both.
    pub(super) fn stale_source(&self, key: &CacheKey) -> Option<(CacheKey, Arc<Entry>)> {
        let wanted = self.derivable(key)?;
        wanted.sources().find_map(|source| {
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
