//! The query parameters of the documentation and of the OpenAPI file, in their canonical spellings alone: whoever wants
//! other spellings understood needs a gateway.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::history::{Account, Execution};

const DAY: i64 = 24 * 60 * 60 * 1000;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Filter {
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

impl Filter {
    /// Reads a query; the name of the first parameter that is not valid.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut filter = Self {
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
            filter.set(name, value).ok_or_else(|| name.to_owned())?;
        }
        Ok(filter)
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
            "start_date" => self.start = Some(moment(&value, 0)?),
            "end_date" => self.end = Some(moment(&value, DAY - 1)?),
            "slug" => self.slugs = value.split(',').map(str::to_owned).collect(),
            "workflow_id" => self.workflow_id = Some(value),
            "workflow_name" => self.workflow_name = Some(value),
            "execution_id" => self.execution_id = Some(value),
            "sortAsc" if among(&["true", "false"]) => self.ascending = value == "true",
            _ => return None,
        }
        Some(())
    }

    /// All executions that match, in the order that is asked for.
    pub(super) fn select(&self, account: &Account, now: i64) -> Vec<Execution> {
        let mut found: Vec<Execution> = account
            .numbers(now)
            .into_iter()
            .filter_map(|number| account.execution(number, now))
            .filter(|execution| self.matches(execution))
            .collect();
        if self.ascending {
            found.reverse();
        }
        found
    }

    fn matches(&self, execution: &Execution) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        is(&self.status, execution.status)
            && is(&self.source, execution.source)
            && is(&self.kind, execution.kind)
            && is(&self.workflow_id, execution.workflow.0)
            && is(&self.workflow_name, execution.workflow.1)
            && self.start.is_none_or(|start| execution.created >= start)
            && self.end.is_none_or(|end| execution.created <= end)
            && (self.slugs.is_empty() || self.slugs.iter().any(|slug| slug == execution.application.1))
            && self.execution_id.as_ref().is_none_or(|id| *id == execution.id())
    }

    /// Whether a batch with this status is asked for.
    pub(super) fn takes_status(&self, status: &str) -> bool {
        self.status.as_deref().is_none_or(|wanted| wanted == status)
    }
}

/// A date, or a date-time; `rest` is added to a date.
fn moment(value: &str, rest: i64) -> Option<i64> {
    match value.len() {
        10 => format!("{value}T00:00:00Z").parse::<Timestamp>().ok().map(|midnight| midnight.as_millisecond() + rest),
        _ => value.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
    }
}
