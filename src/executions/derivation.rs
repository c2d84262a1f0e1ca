//! Derives responses from others: a smaller page from a larger one, and a filtered list from the complete list. A derived
//! response equals the one that Refold would have sent at the same moment byte for byte, or there is none.
//!
//! Some responses are never derived: lists filtered by date (Refold decides the time zone of a bare date) or by a
//! workflow's name or id, lists in another order, pages beyond the last one, and anything from a page with undocumented
//! members.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::derivation_kind::{DerivationKind, DerivationKinds};
use super::page::{PageMembers, Pagination, ValidatedBody, from_json};
use super::query::{Dialect, FilterFields, FilterResult, ListQuery};
use super::status::Progress;

/// Page sizes whose entries are looked up as sources, in addition to the requested one.
pub const USUAL_LIMITS: [u32; 5] = [100, 50, 25, 20, 10];
/// Number of pages from which a complete list is assembled at most.
pub const MAX_PAGES_OF_A_LIST: u64 = 10;

/// A page or a complete list from which a response may be derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DerivationSource {
    /// A page that contains all requested executions.
    Page(ListQuery),
    /// A complete list, by its first page.
    CompleteList(ListQuery),
}

/// A response that was derived, and the kinds of its derivation.
#[derive(Clone, Debug)]
pub struct DerivedPage {
    /// The response.
    pub page: ValidatedBody,
    /// The ways in which it follows from its sources.
    pub kinds: DerivationKinds,
}

impl DerivationSource {
    /// The page to look up first.
    #[must_use]
    pub fn first(&self) -> &ListQuery {
        match self {
            Self::Page(query) | Self::CompleteList(query) => query,
        }
    }
}

impl ListQuery {
    /// The sources from which this page may be derived, the likeliest first. Each has fewer filters or a larger page than
    /// this query, so looking up sources of sources terminates.
    pub fn sources(&self) -> impl Iterator<Item = DerivationSource> + '_ {
        let complete_lists = self.without_filters().into_iter().flat_map(|list| {
            let own = list.limit();
            let others = USUAL_LIMITS.into_iter().filter(move |limit| *limit != own);
            std::iter::once(own)
                .chain(others)
                .map(move |limit| DerivationSource::CompleteList(list.other_page(1, limit)))
        });
        let larger = USUAL_LIMITS.into_iter().filter(|limit| *limit > self.limit()).map(|limit| {
            let page = self.offset() / u64::from(limit) + 1;
            DerivationSource::Page(self.other_page(page, limit))
        });
        larger.chain(complete_lists)
    }

    /// The query for the first page, of size `limit`, of all executions in the default order. This page can be derived from
    /// that one if that one is the complete list. `None` if this query is for that page itself, or has parameters that
    /// derivation can't evaluate.
    #[must_use]
    pub fn on_one_page(&self, limit: u32) -> Option<Self> {
        let list = self.without_filters().unwrap_or_else(|| self.clone()).other_page(1, limit);
        (list != *self && list.is_plain()).then_some(list)
    }

    /// The queries of all pages of the list whose first page is given; `None` if there are too many to be assembled.
    #[must_use]
    pub fn all_pages(&self, first: &Bytes) -> Option<Vec<Self>> {
        let pages = SourcePage::parse(first, self)?.pagination.total_pages;
        (pages <= MAX_PAGES_OF_A_LIST).then(|| (1..=pages).map(|page| self.other_page(page, self.limit())).collect())
    }

    /// Number of executions on the pages before this one.
    fn offset(&self) -> u64 {
        self.page().saturating_sub(1).saturating_mul(u64::from(self.limit()))
    }

    /// Derives this page from `pages`: one page of the same list, or all pages of the list without filters, in order. Each of
    /// several pages must have been requested after the previous one arrived, or they need not show the list at one moment.
    #[must_use]
    pub fn derive(&self, pages: &[(&Self, &Bytes)], dialect: Dialect) -> Option<DerivedPage> {
        let sources: Vec<SourcePage<'_>> =
            pages.iter().map(|(query, body)| SourcePage::parse(body, query)).collect::<Option<_>>()?;
        let ((first_query, _), first) = (pages.first()?, sources.first()?);
        let known: Vec<&ListedExecution<'_>> = sources.iter().flat_map(|page| &page.executions).collect();
        // Only in the plain list a new execution comes first and moves all others down.
        if sources.len() > 1 && !(first_query.is_plain() && show_one_moment(&sources, &known)) {
            return None;
        }
        let is_same_list = self.same_list(first_query);
        let (known, known_offset, total) = if is_same_list {
            (known, first_query.offset(), first.pagination.total_docs)
        } else {
            let complete = self.without_filters().is_some_and(|list| list.same_list(first_query))
                && first_query.offset() == 0
                && known.len() as u64 == first.pagination.total_docs;
            let matching = if complete { self.filter(known, dialect)? } else { return None };
            let total = matching.len() as u64;
            (matching, 0, total)
        };
        let start = self.offset();
        // An empty list has one page.
        if start >= total && (total > 0 || start > 0) {
            return None;
        }
        let end = start.saturating_add(self.limit().into()).min(total);
        let from = usize::try_from(start.checked_sub(known_offset)?).ok()?;
        let to = usize::try_from(end.checked_sub(known_offset)?).ok()?;
        let docs = known.get(from..to)?;
        let progress = docs.iter().fold(Progress::Settled, |progress, execution| progress.and(execution.progress()));
        let pagination = Pagination::of(total, self.limit().into(), self.page());
        let mut kinds = if is_same_list { DerivationKinds::default() } else { self.filter_kinds() };
        if is_same_list || docs.len() as u64 != total {
            kinds = kinds.with(DerivationKind::Slice);
        }
        let page = ValidatedBody { body: first.write(docs, &pagination)?, progress, total: Some(total) };
        Some(DerivedPage { page, kinds })
    }

    /// The kinds that the derivation of this page from a complete list needs at most, if the list has `total` executions.
    #[must_use]
    pub fn kinds_from_complete_list(&self, total: u64) -> DerivationKinds {
        let is_part = self.is_plain() || self.page() > 1 || u64::from(self.limit()) < total;
        if is_part { self.filter_kinds().with(DerivationKind::Slice) } else { self.filter_kinds() }
    }

    /// The executions that this list's filters match; `None` if the filters can't be decided for one of them.
    fn filter<'a>(
        &self,
        executions: Vec<&'a ListedExecution<'a>>,
        dialect: Dialect,
    ) -> Option<Vec<&'a ListedExecution<'a>>> {
        let mut matching = Vec::with_capacity(executions.len());
        for execution in executions {
            match self.evaluate_filters(execution.filter_fields(), dialect) {
                FilterResult::Matches => matching.push(execution),
                FilterResult::Differs => {}
                FilterResult::Undecided => return None,
            }
        }
        Some(matching)
    }
}

/// True if pages show a list at one moment: no execution was added or removed between them, and none can change. An added
/// one would move the others down, so that one appears twice; a removed one would change the total.
fn show_one_moment(pages: &[SourcePage<'_>], executions: &[&ListedExecution<'_>]) -> bool {
    let Some(first) = pages.first() else { return false };

    let ids: HashSet<&str> = executions.iter().filter_map(|execution| execution.id.as_deref()).collect();
    pages.iter().all(|page| page.pagination.total_docs == first.pagination.total_docs)
        && pages.len() as u64 == first.pagination.total_pages
        && ids.len() == executions.len()
        && executions.iter().all(|execution| execution.progress() == Progress::Settled)
}

/// An execution of a source page: its text, and the fields that derivation reads.
#[derive(Deserialize)]
struct ListedExecution<'a> {
    #[serde(skip)]
    text: &'a str,
    #[serde(rename = "_id", borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(rename = "execution_source", borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(rename = "type_of_execution", borrow, default)]
    execution_type: Option<Cow<'a, str>>,
}

impl ListedExecution<'_> {
    fn filter_fields(&self) -> FilterFields<'_> {
        FilterFields {
            status: self.status.as_deref(),
            source: self.source.as_deref(),
            execution_type: self.execution_type.as_deref(),
        }
    }

    fn progress(&self) -> Progress {
        Progress::of(self.status.as_deref())
    }
}

/// A page with exactly the documented members, whose pagination and length fit its query.
struct SourcePage<'a> {
    members: PageMembers<'a>,
    executions: Vec<ListedExecution<'a>>,
    pagination: Pagination,
}

impl<'a> SourcePage<'a> {
    fn parse(body: &'a [u8], query: &ListQuery) -> Option<Self> {
        let members: PageMembers<'a> = from_json(body).ok()?;
        let pagination: Pagination = from_json(body).ok()?;
        let docs = members.0.iter().find(|(name, _)| name == "docs")?.1;
        let docs: Vec<&'a RawValue> = serde_json::from_str(docs.get()).ok()?;
        let parse = |text: &'a RawValue| {
            let execution: ListedExecution<'a> = serde_json::from_str(text.get()).ok()?;
            Some(ListedExecution { text: text.get(), ..execution })
        };
        let executions: Vec<ListedExecution<'a>> = docs.into_iter().map(parse).collect::<Option<_>>()?;
        let expected = Pagination::of(pagination.total_docs, query.limit().into(), query.page());
        let expected_count = pagination.total_docs.saturating_sub(query.offset()).min(query.limit().into());
        let as_expected = pagination == expected && executions.len() as u64 == expected_count;
        (as_expected && members.0.len() == Pagination::NAMES.len() + 1).then_some(Self {
            members,
            executions,
            pagination,
        })
    }

    /// Writes a page with the same members as this one and other executions.
    fn write(&self, docs: &[&ListedExecution<'_>], pagination: &Pagination) -> Option<Bytes> {
        let capacity = docs.iter().map(|execution| execution.text.len() + 1).sum::<usize>() + 256;
        let mut out = Vec::with_capacity(capacity);
        for (index, (name, _)) in self.members.0.iter().enumerate() {
            out.push(if index == 0 { b'{' } else { b',' });
            serde_json::to_writer(&mut out, name).ok()?;
            out.push(b':');
            if name != "docs" {
                pagination.write_member(name, &mut out)?;
                continue;
            }
            out.push(b'[');
            for (index, execution) in docs.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(execution.text.as_bytes());
            }
            out.push(b']');
        }
        out.push(b'}');
        Some(out.into())
    }
}

#[cfg(test)]
mod tests;
