//! The query of the executions list.

use std::fmt;

use jiff::Timestamp;

use super::date::{DateBound, Edge};
use super::dialect::Dialect;
use super::encoding::{push_pair, push_plain_pair};
use super::error::QueryError;
use super::given::GivenParameters;
use super::parameter::Parameter;
use super::policy::QueryPolicy;
use super::shared::{PageAndStatus, RareParameters};
use super::value::{ExecutionSource, ExecutionType};

/// The query of `GET /api/v2/public/execution` in canonical form. Only made by [`ListQuery::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListQuery {
    pub(super) page_and_status: PageAndStatus,
    pub(super) source: Option<ExecutionSource>,
    pub(super) execution_type: Option<ExecutionType>,
    pub(super) start: Option<DateBound>,
    pub(super) end: Option<DateBound>,
    pub(super) rare: Option<Box<RareParameters>>,
}

impl ListQuery {
    /// Parses the query of a request target, without its `?`.
    ///
    /// # Errors
    /// For a parameter that is unknown, invalid, or given twice with different values.
    pub fn parse(raw: Option<&str>, policy: &QueryPolicy) -> Result<Self, QueryError> {
        let given = GivenParameters::parse(raw, Parameter::OF_LISTS, policy)?;
        if let (Some(start), Some(end)) = (given.start, given.end)
            && start.moment(Edge::Start) > end.moment(Edge::End)
        {
            return Err(QueryError::date_range(&start, &end));
        }
        Ok(Self {
            page_and_status: given.page_and_status(),
            source: given.source(),
            execution_type: given.execution_type(),
            start: given.start,
            end: given.end,
            rare: given.into_rare(),
        })
    }

    /// The requested page, from 1.
    #[must_use]
    pub fn page(&self) -> u64 {
        self.page_and_status.page
    }

    /// Executions per page.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.page_and_status.limit
    }

    /// The time after which no execution enters the list any more: the end of its time range, inclusive. `None` if it has no
    /// end, or if executions enter it by changing: it filters by status, or by a parameter whose meaning only the upstream
    /// knows.
    #[must_use]
    pub fn closing_time(&self) -> Option<Timestamp> {
        let filters_by_unknown = self.rare.as_ref().is_some_and(|rare| !rare.forwarded.is_empty());
        let by_what_changes = self.page_and_status.status.is_some() || filters_by_unknown;
        if by_what_changes { None } else { self.end.map(|end| end.moment(Edge::End).timestamp()) }
    }

    /// Heap memory in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| size_of::<RareParameters>() + rare.heap_size())
    }

    /// Writes the query string for the upstream, without `?`, always in the same order.
    pub fn write_upstream(&self, dialect: Dialect, out: &mut String) {
        self.page_and_status.write(out);
        if let Some(source) = self.source {
            push_pair(out, "execution_source", source.spelling(dialect));
        }
        if let Some(execution_type) = self.execution_type {
            push_plain_pair(out, "execution_type", execution_type.spelling());
        }
        if let Some(start) = self.start {
            push_pair(out, "start_date", &start.spelling(Edge::Start, dialect));
        }
        if let Some(end) = self.end {
            push_pair(out, "end_date", &end.spelling(Edge::End, dialect));
        }
        if let Some(rare) = &self.rare {
            rare.write(out);
        }
    }
}

/// The canonical form: the documentation's spelling, in a fixed order, with the defaults written out.
impl fmt::Display for ListQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write_upstream(Dialect::Documented, &mut out);
        f.write_str(&out)
    }
}
