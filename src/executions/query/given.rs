//! Parses a query string to the parameters that it gives, before defaults are filled in.

use std::borrow::Cow;

use super::date::{DateBound, Edge};
use super::encoding::{Pair, pairs};
use super::error::QueryError;
use super::parameter::Parameter;
use super::policy::{QueryPolicy, UnknownParameters};
use super::shared::{ForwardedParameters, PageAndStatus, RareParameters};
use super::value::{self, ExecutionSource, ExecutionStatus, ExecutionType, SortOrder};
use crate::suggest::suggest;

const DEFAULT_LIMIT: u32 = 10;

/// The parameters of one query; `None` if not given. "All" is given as `Some(None)`, so that a second, different value is
/// noticed.
#[expect(clippy::option_option, reason = "not given and \"all\" differ")]
#[derive(Default)]
pub(super) struct GivenParameters {
    page: Option<u64>,
    limit: Option<u32>,
    status: Option<Option<ExecutionStatus>>,
    source: Option<Option<ExecutionSource>>,
    execution_type: Option<Option<ExecutionType>>,
    pub(super) start: Option<DateBound>,
    pub(super) end: Option<DateBound>,
    slugs: Option<Vec<String>>,
    workflow_id: Option<String>,
    workflow_name: Option<String>,
    execution_id: Option<String>,
    sort_order: Option<SortOrder>,
    forwarded: Vec<(String, String)>,
}

impl ForwardedParameters {
    /// Parses the query of a resource that has no parameters of its own.
    ///
    /// # Errors
    /// For any parameter, unless the policy forwards, drops or ignores it.
    pub fn parse(raw: Option<&str>, policy: &QueryPolicy) -> Result<Self, QueryError> {
        GivenParameters::parse(raw, &[], policy).map(GivenParameters::into_forwarded)
    }
}

impl GivenParameters {
    pub(super) fn parse(raw: Option<&str>, known: &[Parameter], policy: &QueryPolicy) -> Result<Self, QueryError> {
        let mut given = Self::default();
        for pair in pairs(raw.unwrap_or_default()) {
            let name = pair.decoded_name().ok_or_else(|| QueryError::malformed_name(pair.name))?;
            if policy.ignored.iter().any(|ignored| *ignored == name) {
                continue;
            }
            let Some(parameter) = Parameter::of_name(&name).filter(|parameter| known.contains(parameter)) else {
                given.add_unknown(name, pair, known, policy.unknown)?;
                continue;
            };
            let value =
                pair.decoded_value().ok_or_else(|| QueryError::malformed_value(parameter.name(), pair.value))?;
            let value = trimmed(&value);
            // Like the vendor's SDK, which leaves out empty parameters.
            if !value.is_empty() {
                given.add(parameter, value, policy)?;
            }
        }
        Ok(given)
    }

    fn add(&mut self, parameter: Parameter, value: &str, policy: &QueryPolicy) -> Result<(), QueryError> {
        let name = parameter.name();
        match parameter {
            Parameter::Page => set(&mut self.page, name, value::page(value)?),
            Parameter::Limit => set(&mut self.limit, name, value::limit(value, policy.max_limit)?),
            Parameter::Status => set(&mut self.status, name, ExecutionStatus::parse(value)?),
            Parameter::ExecutionSource => set(&mut self.source, name, ExecutionSource::parse(value)?),
            Parameter::ExecutionType => set(&mut self.execution_type, name, ExecutionType::parse(value)?),
            Parameter::StartDate => set(&mut self.start, name, DateBound::parse(name, value, Edge::Start)?),
            Parameter::EndDate => set(&mut self.end, name, DateBound::parse(name, value, Edge::End)?),
            Parameter::Slug => match value::list(value) {
                slugs if slugs.is_empty() => Ok(()),
                slugs => set(&mut self.slugs, name, slugs),
            },
            Parameter::WorkflowId => set(&mut self.workflow_id, name, value.to_owned()),
            Parameter::WorkflowName => set(&mut self.workflow_name, name, value.to_owned()),
            Parameter::ExecutionId => set(&mut self.execution_id, name, value.to_owned()),
            Parameter::SortAsc => set(&mut self.sort_order, name, SortOrder::parse(value)?),
        }
    }

    fn add_unknown(
        &mut self,
        name: Cow<'_, str>,
        pair: Pair<'_>,
        known: &[Parameter],
        policy: UnknownParameters,
    ) -> Result<(), QueryError> {
        match policy {
            UnknownParameters::Drop => Ok(()),
            UnknownParameters::Reject => {
                let known: Vec<&'static str> = known.iter().map(|parameter| parameter.name()).collect();
                let suggestion = suggest(&name, known.iter().copied());
                Err(QueryError::unknown(&name, &known, suggestion))
            }
            UnknownParameters::Forward => {
                let value = pair.decoded_value().ok_or_else(|| QueryError::malformed_value(&name, pair.value))?;
                match self.forwarded.iter().find(|(other, _)| *other == name) {
                    Some((_, other)) if *other == value => Ok(()),
                    Some(_) => Err(QueryError::duplicate(&name)),
                    None => {
                        self.forwarded.push((name.into_owned(), value.into_owned()));
                        Ok(())
                    }
                }
            }
        }
    }

    pub(super) fn page_and_status(&self) -> PageAndStatus {
        PageAndStatus {
            page: self.page.unwrap_or(1),
            limit: self.limit.unwrap_or(DEFAULT_LIMIT),
            status: self.status.flatten(),
        }
    }

    /// The source to filter by; `None` for executions of all sources.
    pub(super) fn source(&self) -> Option<ExecutionSource> {
        self.source.flatten()
    }

    pub(super) fn execution_type(&self) -> Option<ExecutionType> {
        self.execution_type.flatten()
    }

    pub(super) fn into_rare(self) -> Option<Box<RareParameters>> {
        let mut slugs = self.slugs.unwrap_or_default();
        // Cache keys hold them for long.
        slugs.shrink_to_fit();
        let rare = RareParameters {
            slugs,
            workflow_id: self.workflow_id,
            workflow_name: self.workflow_name,
            execution_id: self.execution_id,
            sort_order: self.sort_order,
            forwarded: ForwardedParameters::new(self.forwarded),
        };
        (rare != RareParameters::default()).then(|| Box::new(rare))
    }

    pub(super) fn into_forwarded(self) -> ForwardedParameters {
        ForwardedParameters::new(self.forwarded)
    }
}

/// Trims white space; checks the common case, in which there is none, without decoding the text.
fn trimmed(value: &str) -> &str {
    match value.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => value,
        _ => value.trim(),
    }
}

/// Sets a parameter; a second value has to be equal to the first.
fn set<T: PartialEq>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), QueryError> {
    match slot {
        Some(first) if *first != value => Err(QueryError::duplicate(name)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}
