//! Filters that can be evaluated on the fields of an execution, and the list without them.

use super::dialect::Dialect;
use super::list::ListQuery;
use super::shared::PageAndStatus;
use super::value::{ExecutionSource, ExecutionStatus, ExecutionType};
use crate::executions::{DerivationKind, DerivationKinds};

/// The fields of an execution that lists are filtered by; `None` where the execution does not have the field.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::executions) struct FilterFields<'a> {
    pub(in crate::executions) status: Option<&'a str>,
    pub(in crate::executions) source: Option<&'a str>,
    pub(in crate::executions) execution_type: Option<&'a str>,
}

/// The result of evaluating a list's filters on an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executions) enum FilterResult {
    /// The execution is in the list.
    Matches,
    /// The execution is not in the list.
    Differs,
    /// A field is missing, or spelled in a way that the upstream might read differently.
    Undecided,
}

impl ListQuery {
    /// The list without the filters that [`ListQuery::evaluate_filters`] can evaluate; `None` if it has none of them.
    pub(in crate::executions) fn without_filters(&self) -> Option<Self> {
        let filtered = self.page_and_status.status.is_some() || self.source.is_some() || self.execution_type.is_some();
        let page_and_status = PageAndStatus { status: None, ..self.page_and_status };
        filtered.then(|| Self { page_and_status, source: None, execution_type: None, ..self.clone() })
    }

    /// The kinds of derivation that this list's filters need.
    pub(in crate::executions) fn filter_kinds(&self) -> DerivationKinds {
        let filters = [
            (self.page_and_status.status.is_some(), DerivationKind::Status),
            (self.source.is_some(), DerivationKind::Source),
            (self.execution_type.is_some(), DerivationKind::ExecutionType),
        ];
        filters.into_iter().filter_map(|(is_set, kind)| is_set.then_some(kind)).collect()
    }

    /// A list whose derivation needs one of this list's kinds alone: the same page of the list without filters, or with
    /// one of the filters on one page of size `limit`. `None` if there is none.
    #[must_use]
    pub fn by_kind_alone(&self, kind: DerivationKind, limit: u32) -> Option<Self> {
        let list = self.without_filters()?;
        let mut filtered = list.other_page(1, limit);
        match kind {
            DerivationKind::Slice => return Some(list),
            DerivationKind::Status => filtered.page_and_status.status = Some(self.page_and_status.status?),
            DerivationKind::Source => filtered.source = Some(self.source?),
            DerivationKind::ExecutionType => filtered.execution_type = Some(self.execution_type?),
        }
        Some(filtered)
    }

    /// True for a page of all executions in the default order.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let dates = self.start.is_some() || self.end.is_some();
        self.without_filters().is_none() && !dates && self.rare.is_none()
    }

    /// The first page of the same list.
    #[must_use]
    pub fn first_page(&self) -> Self {
        self.other_page(1, self.page_and_status.limit)
    }

    /// Another page of the same list.
    pub(in crate::executions) fn other_page(&self, page: u64, limit: u32) -> Self {
        Self { page_and_status: PageAndStatus { page, limit, ..self.page_and_status }, ..self.clone() }
    }

    /// True if both are pages of the same list.
    pub(in crate::executions) fn same_list(&self, other: &Self) -> bool {
        let first = |query: &Self| query.other_page(1, 1);
        first(self) == first(other)
    }

    /// Evaluates the filters on an execution of the list without filters.
    ///
    /// A field decides a filter only if it is spelled as filters are sent to the upstream; the upstream might treat another
    /// spelling as a different value.
    pub(in crate::executions) fn evaluate_filters(&self, fields: FilterFields<'_>, dialect: Dialect) -> FilterResult {
        let status = evaluate(self.page_and_status.status, fields.status, ExecutionStatus::spelling, |text| {
            ExecutionStatus::parse(text).ok().flatten()
        });
        let spelling = |source: ExecutionSource| source.spelling(dialect);
        let source = evaluate(self.source, fields.source, spelling, |text| ExecutionSource::parse(text).ok().flatten());
        let execution_type = evaluate(self.execution_type, fields.execution_type, ExecutionType::spelling, |text| {
            ExecutionType::parse(text).ok().flatten()
        });
        let results = [status, source, execution_type];
        results.into_iter().find(|result| *result != FilterResult::Matches).unwrap_or(FilterResult::Matches)
    }
}

fn evaluate<T: Copy + PartialEq>(
    wanted: Option<T>,
    field: Option<&str>,
    spelling: impl Fn(T) -> &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> FilterResult {
    let Some(wanted) = wanted else { return FilterResult::Matches };
    match field.and_then(|field| parse(field).filter(|value| spelling(*value) == field)) {
        Some(value) if value == wanted => FilterResult::Matches,
        Some(_) => FilterResult::Differs,
        None => FilterResult::Undecided,
    }
}
