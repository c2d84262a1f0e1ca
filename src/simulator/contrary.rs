//! Lists that the documentation allows, though they contradict what one would conclude from other pages of the same list.

use std::str::FromStr;

use super::history::{SimulatedAccount, SimulatedExecution};
use super::parameters::ListParameters;

/// Delay of the count behind the page for each execution that the page has room for, in milliseconds.
const COUNT_DELAY: i64 = 40;
/// Time by which the search index of filtered lists is behind, in milliseconds.
const INDEX_DELAY: i64 = 10_000;
/// Time for which executions are stopping, in milliseconds.
const STOPPING: i64 = 10 * 60 * 1000;
/// Resolution of `createdAt` where executions are to have equal ones, in milliseconds.
const COARSE: i64 = 60 * 60 * 1000;
/// The largest page that shows whole documents, and that sorts executions with equal `createdAt` like larger ones do.
const SMALL_PAGE: u64 = 50;

/// A way in which lists contradict each other.
///
/// Its text form is its name in lower case with hyphens, as in [`Contrary::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contrary {
    /// `status=STOPPED` also finds executions that are stopping, which takes ten minutes.
    StoppingAsStopped,
    /// Filters also find child executions, which the list without filters leaves out.
    ChildExecutions,
    /// `totalDocs` is counted beside the page, the longer before it the larger the page is, so it can miss a new execution.
    EarlyCount,
    /// Filtered lists are in the order of a search index instead of that of `createdAt`.
    FilteredOrder,
    /// Executions with equal `createdAt`, of which there are many, are ordered differently on large pages.
    TiesByLimit,
    /// An empty list has `totalPages: 0`.
    ZeroPages,
    /// Large pages show documents without icons.
    AbridgedPages,
    /// Filtered lists come from a search index that is ten seconds behind.
    LateFilters,
    /// A filter by type is refused with 400.
    RefusedFilter,
}

impl Contrary {
    /// All ways.
    pub const ALL: [Self; 9] = [
        Self::StoppingAsStopped,
        Self::ChildExecutions,
        Self::EarlyCount,
        Self::FilteredOrder,
        Self::TiesByLimit,
        Self::ZeroPages,
        Self::AbridgedPages,
        Self::LateFilters,
        Self::RefusedFilter,
    ];

    /// The text form.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StoppingAsStopped => "stopping-as-stopped",
            Self::ChildExecutions => "child-executions",
            Self::EarlyCount => "early-count",
            Self::FilteredOrder => "filtered-order",
            Self::TiesByLimit => "ties-by-limit",
            Self::ZeroPages => "zero-pages",
            Self::AbridgedPages => "abridged-pages",
            Self::LateFilters => "late-filters",
            Self::RefusedFilter => "refused-filter",
        }
    }
}

/// Several ways at once. The text form has a `+` between them; `all` has all that the load experiment combines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContrarySet(u16);

impl FromIterator<Contrary> for ContrarySet {
    fn from_iter<I: IntoIterator<Item = Contrary>>(ways: I) -> Self {
        Self(ways.into_iter().fold(0, |set, way| set | 1 << way as u16))
    }
}

impl FromStr for ContrarySet {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "all" {
            return Ok(Contrary::ALL.into_iter().collect());
        }
        let way = |name| Contrary::ALL.into_iter().find(|way| way.name() == name).ok_or(());
        text.split('+').map(way).collect()
    }
}

/// The executions of a list, and their number as the page shows it.
pub(super) struct Selection {
    pub(super) found: Vec<SimulatedExecution>,
    pub(super) total: u64,
}

impl ContrarySet {
    pub(super) fn has(self, way: Contrary) -> bool {
        self.0 & (1 << way as u16) != 0
    }

    /// True if the query is refused.
    pub(super) fn refuses(self, parameters: &ListParameters) -> bool {
        self.has(Contrary::RefusedFilter) && parameters.filters_by_type()
    }

    /// Selects the executions of a list.
    pub(super) fn select(self, parameters: &ListParameters, account: &SimulatedAccount, now: i64) -> Selection {
        let found = self.found(parameters, account, now);
        let total = if self.has(Contrary::EarlyCount) {
            let delay = COUNT_DELAY * i64::try_from(parameters.limit).unwrap_or(i64::MAX / COUNT_DELAY);
            self.found(parameters, account, now - delay).len()
        } else {
            found.len()
        };
        Selection { found, total: total as u64 }
    }

    fn found(self, parameters: &ListParameters, account: &SimulatedAccount, now: i64) -> Vec<SimulatedExecution> {
        let is_filtered = parameters.is_filtered();
        let now = if is_filtered && self.has(Contrary::LateFilters) { now - INDEX_DELAY } else { now };
        let is_slow = self.has(Contrary::StoppingAsStopped);
        let shown = |mut execution: SimulatedExecution| {
            if is_slow && execution.status == "STOPPED" && execution.changed + STOPPING > now {
                (execution.status, execution.finished) = ("STOPPING", None);
            }
            execution
        };
        let same_status = |required: &str, status: &str| {
            required == status || is_slow && (required, status) == ("STOPPED", "STOPPING")
        };
        let mut found = parameters.select((account, now), shown, same_status);
        if self.has(Contrary::ChildExecutions) && !is_filtered {
            found.retain(|execution| !execution.is_child());
        }
        if self.has(Contrary::FilteredOrder) && is_filtered {
            found.sort_by_key(SimulatedExecution::index_order);
        }
        if self.has(Contrary::TiesByLimit) {
            let by_number = if parameters.limit > SMALL_PAGE { 1 } else { -1 };
            for execution in &mut found {
                execution.created -= execution.created.rem_euclid(COARSE);
            }
            let order = |execution: &SimulatedExecution| (execution.created, by_number * i64::from(execution.number));
            if !(self.has(Contrary::FilteredOrder) && is_filtered) {
                found.sort_by_key(|execution| std::cmp::Reverse(order(execution)));
            }
        }
        found
    }

    /// True if the documents of a page lack their icons.
    pub(super) fn abridges(self, parameters: &ListParameters) -> bool {
        self.has(Contrary::AbridgedPages) && parameters.limit > SMALL_PAGE
    }
}
