//! Filters that can be applied to executions as they are shown, and which list is left without them.

use super::value::{Kind, Source, Status};
use super::{Dialect, ListQuery, Part};

/// What an execution shows of what lists are filtered by; `None` where it shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::executions) struct Shown<'a> {
    pub(in crate::executions) status: Option<&'a str>,
    pub(in crate::executions) source: Option<&'a str>,
    pub(in crate::executions) kind: Option<&'a str>,
}

impl ListQuery {
    /// The list without the filters that [`ListQuery::takes`] can judge; `None` if it has none of them.
    pub(in crate::executions) fn without_filters(&self) -> Option<Self> {
        let filtered = self.part.status.is_some() || self.source.is_some() || self.kind.is_some();
        let part = Part { status: None, ..self.part };
        filtered.then(|| Self { part, source: None, kind: None, ..self.clone() })
    }

    /// Whether it is a page of all executions that there are, in the usual order.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let dates = self.start.is_some() || self.end.is_some();
        self.without_filters().is_none() && !dates && self.rare.is_none()
    }

    /// The first page of the same list.
    #[must_use]
    pub fn first_page(&self) -> Self {
        self.other_page(1, self.part.limit)
    }

    /// Another page of the same list.
    pub(in crate::executions) fn other_page(&self, page: u64, limit: u32) -> Self {
        Self { part: Part { page, limit, ..self.part }, ..self.clone() }
    }

    /// Whether both are pages of the same list.
    pub(in crate::executions) fn same_list(&self, other: &Self) -> bool {
        let first = |query: &Self| query.other_page(1, 1);
        first(self) == first(other)
    }

    /// Whether an execution of the list without filters is in this one; `None` if what it shows does not tell. Only the very
    /// spellings count that the upstream is asked with: who knows whether it takes others for the same.
    pub(in crate::executions) fn takes(&self, shown: Shown<'_>, dialect: Dialect) -> Option<bool> {
        let status = judge(self.part.status, shown.status, Status::spelling, |text| Status::parse(text).ok().flatten());
        let spelling = |source: Source| source.spelling(dialect);
        let source = judge(self.source, shown.source, spelling, |text| Source::parse(text).ok().flatten());
        let kind = judge(self.kind, shown.kind, Kind::spelling, |text| Kind::parse(text).ok().flatten());
        Some(status? && source? && kind?)
    }
}

fn judge<T: Copy + PartialEq>(
    wanted: Option<T>,
    shown: Option<&str>,
    spelling: impl Fn(T) -> &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<bool> {
    let Some(wanted) = wanted else { return Some(true) };
    let shown = shown?;
    let found = parse(shown)?;
    (spelling(found) == shown).then_some(found == wanted)
}
