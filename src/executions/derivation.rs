//! Answers that follow from others with certainty: a smaller page inside a larger one, and a filtered view of a list that is
//! known whole. What Refold would have answered at the same moment, byte for byte, or nothing.
//!
//! Not derived: anything by dates (the time zone of a bare date is Refold's business), by names or ids of workflows, in
//! another order, beyond the last page, or from a page with members that the documentation does not know.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::page::{Document, Members, Pagination, from_json};
use super::query::{Dialect, ListQuery, Shown};
use super::status::Progress;

/// Usual page sizes, beside the one that is asked for.
pub const USUAL_LIMITS: [u32; 5] = [100, 50, 25, 20, 10];
/// Most pages from which a whole list is put together.
pub const MOST_PAGES: u64 = 10;

/// A list, or a page of it, from which an answer may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The page that holds all that is asked for.
    Page(ListQuery),
    /// The whole list, of which this is the first page.
    Whole(ListQuery),
}

impl Source {
    /// The page that is looked for first.
    #[must_use]
    pub fn first(&self) -> &ListQuery {
        match self {
            Self::Page(query) | Self::Whole(query) => query,
        }
    }
}

impl ListQuery {
    /// Where to look for this question's answer before it is asked, the likeliest first. Every source has fewer filters or a
    /// larger page than the question, so looking for sources of sources comes to an end.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        let whole = self.without_filters().into_iter().flat_map(|list| {
            let own = list.limit();
            let others = USUAL_LIMITS.into_iter().filter(move |limit| *limit != own);
            std::iter::once(own).chain(others).map(move |limit| Source::Whole(list.other_page(1, limit)))
        });
        let larger = USUAL_LIMITS.into_iter().filter(|limit| *limit > self.limit()).map(|limit| {
            let page = self.before() / u64::from(limit) + 1;
            Source::Page(self.other_page(page, limit))
        });
        larger.chain(whole)
    }

    /// The first page of the list without filters, of this size, if the answer would follow from it were it whole.
    #[must_use]
    pub fn on_one_page(&self, limit: u32) -> Option<Self> {
        let list = self.without_filters().unwrap_or_else(|| self.clone()).other_page(1, limit);
        (list != *self && list.is_plain()).then_some(list)
    }

    /// The pages that make up the whole list, told from its first; `None` if they are too many to be put together.
    #[must_use]
    pub fn all_pages(&self, first: &Bytes) -> Option<Vec<Self>> {
        let pages = Page::read(first, self)?.pagination.total_pages;
        (pages <= MOST_PAGES).then(|| (1..=pages).map(|page| self.other_page(page, self.limit())).collect())
    }

    /// Executions before those that are asked for.
    fn before(&self) -> u64 {
        self.page().saturating_sub(1).saturating_mul(u64::from(self.limit()))
    }

    /// The answer, if it follows from `pages`: one of the same list, or all of the list without filters, in order. Each of
    /// several pages must have been asked for after the one before it had arrived, or they show no moment that there was.
    #[must_use]
    pub fn derive(&self, pages: &[(&Self, &Bytes)], dialect: Dialect) -> Option<Document> {
        let read: Vec<Page<'_>> = pages.iter().map(|(query, body)| Page::read(body, query)).collect::<Option<_>>()?;
        let ((first_query, _), first) = (pages.first()?, read.first()?);
        let mut offset = first_query.before();
        let mut total = first.pagination.total_docs;
        let mut known: Vec<&Execution<'_>> = read.iter().flat_map(|page| &page.executions).collect();
        if read.len() > 1 {
            // Where something new is not the first, it does not move all others down.
            first_query.is_plain().then(|| one_moment(&read, &known)).flatten()?;
        }
        if !self.same_list(first_query) {
            let whole = self.without_filters().is_some_and(|list| list.same_list(first_query))
                && offset == 0
                && known.len() as u64 == total;
            if !whole {
                return None;
            }
            let mut taken = Vec::with_capacity(known.len());
            for execution in known {
                if self.takes(execution.shown(), dialect)? {
                    taken.push(execution);
                }
            }
            known = taken;
            (offset, total) = (0, known.len() as u64);
        }
        let start = self.before();
        // An empty list has one page.
        let end = start.saturating_add(self.limit().into()).min(total);
        if start >= total && (total > 0 || start > 0) {
            return None;
        }
        let from = usize::try_from(start.checked_sub(offset)?).ok()?;
        let to = usize::try_from(end.checked_sub(offset)?).ok()?;
        let docs = known.get(from..to)?;
        let progress = docs.iter().fold(Progress::Settled, |progress, execution| progress.and(execution.progress()));
        let pagination = Pagination::of(total, self.limit().into(), self.page());
        Some(Document { body: first.write(docs, &pagination)?, progress, total: Some(total) })
    }
}

/// Whether pages show a list at one moment: nothing has come or gone between them, and nothing in them can change. Something
/// new moves all others down, so one would be there twice; something that has gone makes the total another one.
fn one_moment(pages: &[Page<'_>], executions: &[&Execution<'_>]) -> Option<()> {
    let total = pages.first()?.pagination.total_docs;
    let ids: HashSet<&str> = executions.iter().filter_map(|execution| execution.id.as_deref()).collect();
    let consistent = pages.iter().all(|page| page.pagination.total_docs == total)
        && pages.len() as u64 == pages.first()?.pagination.total_pages
        && ids.len() == executions.len()
        && executions.iter().all(|execution| execution.progress() == Progress::Settled);
    consistent.then_some(())
}

/// What of an execution is of use here.
#[derive(Deserialize)]
struct Execution<'a> {
    #[serde(skip)]
    text: &'a str,
    #[serde(rename = "_id", borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(rename = "execution_source", borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(rename = "type_of_execution", borrow, default)]
    kind: Option<Cow<'a, str>>,
}

impl Execution<'_> {
    fn shown(&self) -> Shown<'_> {
        Shown { status: self.status.as_deref(), source: self.source.as_deref(), kind: self.kind.as_deref() }
    }

    fn progress(&self) -> Progress {
        Progress::of(self.status.as_deref())
    }
}

/// A page that has the members of the documentation and no others, and shows what its query asks for.
struct Page<'a> {
    members: Members<'a>,
    executions: Vec<Execution<'a>>,
    pagination: Pagination,
}

impl<'a> Page<'a> {
    fn read(body: &'a [u8], query: &ListQuery) -> Option<Self> {
        let members: Members<'a> = from_json(body).ok()?;
        let pagination: Pagination = from_json(body).ok()?;
        let docs = members.0.iter().find(|(name, _)| name == "docs")?.1;
        let docs: Vec<&'a RawValue> = serde_json::from_str(docs.get()).ok()?;
        let read = |text: &'a RawValue| {
            let execution: Execution<'a> = serde_json::from_str(text.get()).ok()?;
            Some(Execution { text: text.get(), ..execution })
        };
        let executions: Vec<Execution<'a>> = docs.into_iter().map(read).collect::<Option<_>>()?;
        let expected = Pagination::of(pagination.total_docs, query.limit().into(), query.page());
        let shown = pagination.total_docs.saturating_sub(query.before()).min(query.limit().into());
        let as_expected = pagination == expected && executions.len() as u64 == shown;
        (as_expected && members.0.len() == Pagination::NAMES.len() + 1).then_some(Self {
            members,
            executions,
            pagination,
        })
    }

    /// A page like this one, with other executions.
    fn write(&self, docs: &[&Execution<'_>], pagination: &Pagination) -> Option<Bytes> {
        let room = docs.iter().map(|execution| execution.text.len() + 1).sum::<usize>() + 256;
        let mut out = Vec::with_capacity(room);
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
