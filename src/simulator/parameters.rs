//! The query parameters of the documentation and of the OpenAPI file. Only the canonical spellings are accepted, so that a
//! request that reaches Refold without normalisation fails.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, date};
use percent_encoding::percent_decode_str;

use super::history::{SimulatedAccount, SimulatedExecution};

/// A day in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// The parameters of a list: page, filters and order.
#[derive(Debug)]
pub(super) struct ListParameters {
    pub(super) page: u64,
    pub(super) limit: u64,
    status: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    start: Option<i64>,
    end: Option<i64>,
    slugs: Vec<String>,
    workflow_id: Option<String>,
    workflow_name: Option<String>,
    execution_id: Option<String>,
    ascending: bool,
}

impl ListParameters {
    /// Parses a query.
    ///
    /// # Errors
    /// If a parameter is not valid; the error is its name.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parameters = Self {
            page: 1,
            limit: 10,
            status: None,
            source: None,
            kind: None,
            start: None,
            end: None,
            slugs: Vec::new(),
            workflow_id: None,
            workflow_name: None,
            execution_id: None,
            ascending: false,
        };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned();
            parameters.set(name, value).ok_or_else(|| name.to_owned())?;
        }
        Ok(parameters)
    }

    fn set(&mut self, name: &str, value: String) -> Option<()> {
        let among = |accepted: &[&str]| accepted.contains(&value.as_str());
        match name {
            "page" => self.page = value.parse().ok().filter(|page| *page >= 1)?,
            "limit" => self.limit = value.parse().ok().filter(|limit| (1..=1000).contains(limit))?,
            "status" | "execution_source" | "execution_type" if value == "All" => {}
            "status" if among(&["COMPLETED", "ERRORED", "RUNNING", "STOPPED", "STOPPING", "TIMED_OUT"]) => {
                self.status = Some(value);
            }
            "execution_source" if among(&["Event", "Schedule", "API Call"]) => self.source = Some(value),
            "execution_source" if value == "SCHEDULE" => self.source = Some("Schedule".to_owned()),
            "execution_source" if value == "API_CALL" => self.source = Some("API Call".to_owned()),
            "execution_type" if among(&["SYNC", "ASYNC"]) => self.kind = Some(value),
            "start_date" => self.start = Some(milliseconds(&value, 0)?),
            "end_date" => self.end = Some(milliseconds(&value, DAY - 1)?),
            "slug" => self.slugs = value.split(',').map(str::to_owned).collect(),
            "workflow_id" => self.workflow_id = Some(value),
            "workflow_name" => self.workflow_name = Some(value),
            "execution_id" => self.execution_id = Some(value),
            "sortAsc" if among(&["true", "false"]) => self.ascending = value == "true",
            _ => return None,
        }
        Some(())
    }

    /// Returns true if the list has a filter by status, source or type.
    pub(super) fn is_filtered(&self) -> bool {
        self.status.is_some() || self.source.is_some() || self.kind.is_some()
    }

    /// Returns true if the list has a filter by type.
    pub(super) fn filters_by_type(&self) -> bool {
        self.kind.is_some()
    }

    /// Returns all executions that match at a moment, in the requested order. `shown` changes an execution before it is
    /// matched, and `same_status` decides whether the required status matches another one.
    pub(super) fn select(
        &self,
        (account, now): (&SimulatedAccount, i64),
        shown: impl Fn(SimulatedExecution) -> SimulatedExecution,
        same_status: impl Fn(&str, &str) -> bool,
    ) -> Vec<SimulatedExecution> {
        let has_status = |status| self.status.as_deref().is_none_or(|required| same_status(required, status));
        let mut found: Vec<SimulatedExecution> = account
            .numbers(now)
            .into_iter()
            .filter_map(|number| account.execution(number, now))
            .map(shown)
            .filter(|execution| has_status(execution.status) && self.matches(execution))
            .collect();
        if self.ascending {
            found.reverse();
        }
        found
    }

    fn matches(&self, execution: &SimulatedExecution) -> bool {
        let is = |required: &Option<String>, value: &str| required.as_deref().is_none_or(|required| required == value);
        is(&self.source, execution.source)
            && is(&self.kind, execution.kind)
            && is(&self.workflow_id, execution.workflow.0)
            && is(&self.workflow_name, execution.workflow.1)
            && self.start.is_none_or(|start| execution.created >= start)
            && self.end.is_none_or(|end| execution.created <= end)
            && (self.slugs.is_empty() || self.slugs.iter().any(|slug| slug == execution.application.1))
            && self.execution_id.as_ref().is_none_or(|id| *id == execution.id())
    }

    /// Returns true if the status filter accepts `status`.
    pub(super) fn matches_status(&self, status: &str) -> bool {
        self.status.as_deref().is_none_or(|required| required == status)
    }
}

/// Parses a date or a date-time to milliseconds since 1970; `offset_in_day` is added to a date.
fn milliseconds(value: &str, offset_in_day: i64) -> Option<i64> {
    // Civil time, because jiff's last timestamps are before the last day of the year 9999.
    let since_epoch = |time: DateTime| time.duration_since(date(1970, 1, 1).at(0, 0, 0, 0)).as_millis();
    let milliseconds = match value.strip_suffix('Z') {
        None if value.len() == 10 => {
            since_epoch(value.parse::<Date>().ok()?.at(0, 0, 0, 0)) + i128::from(offset_in_day)
        }
        Some(time) => since_epoch(time.parse().ok()?),
        None => return value.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
    };
    i64::try_from(milliseconds).ok()
}
