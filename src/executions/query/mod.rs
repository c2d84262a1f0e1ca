//! Query parameters to their canonical form: every spelling of a question becomes the same value, so it costs one upstream
//! request and one cache entry.
//!
//! Part of the hit path: the common parameters are enums and integers on the stack, the rare ones stand behind one box.

mod date;
mod encoding;
mod error;
mod filters;
mod parameter;
mod path_id;
mod value;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::date::{Edge, Milliseconds};
use self::encoding::{Pair, pairs, push_encoded, push_pair, push_plain_pair};
pub use self::error::QueryError;
pub(super) use self::filters::Shown;
use self::parameter::Parameter;
pub use self::path_id::PathId;
use self::value::{Kind, Source, Status};
use crate::nearest::nearest;

/// The vendor's specification that the upstream follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The endpoint's documentation page: dates as dates, `API Call`.
    Documented,
    /// The newer OpenAPI file: date-times, `API_CALL`.
    V3,
}

/// Handling of query parameters; the table `[query]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryPolicy {
    /// Largest `limit` that is accepted. A larger one is refused, not clamped: clamping would shift the pages.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub max_limit: u32,
    /// Handling of a parameter that the API does not have.
    #[serde(rename = "unknown_parameters")]
    pub unknown: UnknownParameters,
    /// Parameters that are always dropped, such as a browser's cache buster `_`.
    #[serde(rename = "ignored_parameters")]
    pub ignored: Vec<String>,
}

impl Default for QueryPolicy {
    fn default() -> Self {
        Self { max_limit: 100, unknown: UnknownParameters::Reject, ignored: vec!["_".to_owned()] }
    }
}

/// Handling of a parameter that the API does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownParameters {
    /// 400, with the nearest known name.
    Reject,
    /// Sent on, and part of the cache key.
    Forward,
    /// Left out.
    Drop,
}

const DEFAULT_LIMIT: u32 = 10;

/// The question `GET /api/v2/public/execution` in its canonical form. Made by [`ListQuery::parse`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListQuery {
    part: Part,
    source: Option<Source>,
    kind: Option<Kind>,
    start: Option<Milliseconds>,
    end: Option<Milliseconds>,
    rare: Option<Box<Rare>>,
}

/// The question `GET /api/v2/public/execution/{execution_id}/nodes/{node_id}/batches` in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchesQuery {
    part: Part,
    forwarded: Vec<(String, String)>,
}

/// What both questions have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    page: u64,
    limit: u32,
    status: Option<Status>,
}

/// Parameters that few questions have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Rare {
    slugs: Vec<String>,
    workflow_id: Option<String>,
    workflow_name: Option<String>,
    execution_id: Option<String>,
    sort_ascending: Option<bool>,
    forwarded: Vec<(String, String)>,
}

/// Parameters as they were given: `None` was not. What means "all" is `Some(None)`, so that a second, different value is
/// noticed.
#[expect(clippy::option_option, reason = "left out and \"all\" are two things")]
#[derive(Default)]
struct Given {
    page: Option<u64>,
    limit: Option<u32>,
    status: Option<Option<Status>>,
    source: Option<Option<Source>>,
    kind: Option<Option<Kind>>,
    start: Option<Milliseconds>,
    end: Option<Milliseconds>,
    slugs: Option<Vec<String>>,
    workflow_id: Option<String>,
    workflow_name: Option<String>,
    execution_id: Option<String>,
    sort_ascending: Option<bool>,
    forwarded: Vec<(String, String)>,
}

impl Given {
    fn read(raw: Option<&str>, known: &[Parameter], policy: &QueryPolicy) -> Result<Self, QueryError> {
        let mut given = Self::default();
        for pair in pairs(raw.unwrap_or_default()) {
            let name = pair.decoded_name().ok_or_else(|| QueryError::malformed_name(pair.name))?;
            if policy.ignored.iter().any(|ignored| *ignored == name) {
                continue;
            }
            let Some(parameter) = Parameter::of_name(&name).filter(|parameter| known.contains(parameter)) else {
                given.unknown(name, pair, known, policy.unknown)?;
                continue;
            };
            let value =
                pair.decoded_value().ok_or_else(|| QueryError::malformed_value(parameter.name(), pair.value))?;
            let value = trimmed(&value);
            // The vendor's SDK leaves out what is empty; so does this.
            if !value.is_empty() {
                given.known(parameter, value, policy)?;
            }
        }
        Ok(given)
    }

    fn known(&mut self, parameter: Parameter, value: &str, policy: &QueryPolicy) -> Result<(), QueryError> {
        let name = parameter.name();
        match parameter {
            Parameter::Page => put(&mut self.page, name, value::page(value)?),
            Parameter::Limit => put(&mut self.limit, name, value::limit(value, policy.max_limit)?),
            Parameter::Status => put(&mut self.status, name, Status::parse(value)?),
            Parameter::ExecutionSource => put(&mut self.source, name, Source::parse(value)?),
            Parameter::ExecutionType => put(&mut self.kind, name, Kind::parse(value)?),
            Parameter::StartDate => put(&mut self.start, name, date::parse(name, value, Edge::Start)?),
            Parameter::EndDate => put(&mut self.end, name, date::parse(name, value, Edge::End)?),
            Parameter::Slug => match value::list(value) {
                slugs if slugs.is_empty() => Ok(()),
                slugs => put(&mut self.slugs, name, slugs),
            },
            Parameter::WorkflowId => put(&mut self.workflow_id, name, value.to_owned()),
            Parameter::WorkflowName => put(&mut self.workflow_name, name, value.to_owned()),
            Parameter::ExecutionId => put(&mut self.execution_id, name, value.to_owned()),
            Parameter::SortAsc => put(&mut self.sort_ascending, name, value::boolean(name, value)?),
        }
    }

    fn unknown(
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
                let suggestion = nearest(&name, known.iter().copied());
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

    fn part(&self) -> Part {
        Part { page: self.page.unwrap_or(1), limit: self.limit.unwrap_or(DEFAULT_LIMIT), status: self.status.flatten() }
    }

    fn rare(self) -> Option<Box<Rare>> {
        let rare = Rare {
            slugs: self.slugs.map(exact).unwrap_or_default(),
            workflow_id: self.workflow_id,
            workflow_name: self.workflow_name,
            execution_id: self.execution_id,
            sort_ascending: self.sort_ascending,
            forwarded: sorted(self.forwarded),
        };
        (rare != Rare::default()).then(|| Box::new(rare))
    }
}

/// A value without the white space around it; hardly any has some.
fn trimmed(value: &str) -> &str {
    match value.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => value,
        _ => value.trim(),
    }
}

/// Sets a parameter; a second value must be the same one.
fn put<T: PartialEq>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), QueryError> {
    match slot {
        Some(first) if *first != value => Err(QueryError::duplicate(name)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn sorted(mut pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.sort_unstable();
    exact(pairs)
}

/// Without room for more: it is kept.
fn exact<T>(mut items: Vec<T>) -> Vec<T> {
    items.shrink_to_fit();
    items
}

/// Reads the query of a resource that has no parameters.
///
/// # Errors
/// For any parameter that the policy does not let pass.
pub fn no_parameters(raw: Option<&str>, policy: &QueryPolicy) -> Result<(), QueryError> {
    Given::read(raw, &[], policy).map(drop)
}

impl ListQuery {
    /// Reads the query of a request target, without its `?`.
    ///
    /// # Errors
    /// For a parameter that is not known, not valid, or there twice with different values.
    pub fn parse(raw: Option<&str>, policy: &QueryPolicy) -> Result<Self, QueryError> {
        let given = Given::read(raw, Parameter::OF_LISTS, policy)?;
        if let (Some(start), Some(end)) = (given.start, given.end)
            && start > end
        {
            return Err(QueryError::date_range(start, end));
        }
        Ok(Self {
            part: given.part(),
            source: given.source.flatten(),
            kind: given.kind.flatten(),
            start: given.start,
            end: given.end,
            rare: given.rare(),
        })
    }

    /// The page that is asked for, from 1.
    #[must_use]
    pub fn page(&self) -> u64 {
        self.part.page
    }

    /// Executions per page.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.part.limit
    }

    /// The last moment that is asked for, if there is one.
    #[must_use]
    pub fn end(&self) -> Option<Timestamp> {
        self.end.map(Milliseconds::timestamp)
    }

    /// What it takes on the heap, in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| size_of::<Rare>() + rare.heap_size())
    }

    /// The query string for the upstream, without `?`, always in the same order.
    pub fn write_upstream(&self, dialect: Dialect, out: &mut String) {
        self.part.write(out);
        if let Some(source) = self.source {
            push_pair(out, "execution_source", source.spelling(dialect));
        }
        if let Some(kind) = self.kind {
            push_plain_pair(out, "execution_type", kind.spelling());
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

impl BatchesQuery {
    /// Reads the query of a request target, without its `?`.
    ///
    /// # Errors
    /// For a parameter that is not known, not valid, or there twice with different values.
    pub fn parse(raw: Option<&str>, policy: &QueryPolicy) -> Result<Self, QueryError> {
        let given = Given::read(raw, Parameter::OF_BATCHES, policy)?;
        Ok(Self { part: given.part(), forwarded: sorted(given.forwarded) })
    }

    /// What it takes on the heap, in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        forwarded_size(&self.forwarded)
    }

    /// The page that is asked for, from 1.
    #[must_use]
    pub fn page(&self) -> u64 {
        self.part.page
    }

    /// Batches per page.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.part.limit
    }

    /// The query string for the upstream, without `?`, always in the same order. Both dialects spell it alike.
    pub fn write_upstream(&self, out: &mut String) {
        self.part.write(out);
        write_forwarded(&self.forwarded, out);
    }
}

impl Part {
    fn write(&self, out: &mut String) {
        push_plain_pair(out, "page", itoa::Buffer::new().format(self.page));
        push_plain_pair(out, "limit", itoa::Buffer::new().format(self.limit));
        if let Some(status) = self.status {
            push_plain_pair(out, "status", status.spelling());
        }
    }
}

/// A string on the heap: itself, and what its allocation costs.
fn string_size(text: &String) -> usize {
    size_of::<String>() + text.capacity() + 16
}

fn forwarded_size(pairs: &[(String, String)]) -> usize {
    pairs.iter().map(|(name, value)| string_size(name) + string_size(value)).sum()
}

impl Rare {
    fn heap_size(&self) -> usize {
        let single = [&self.workflow_id, &self.workflow_name, &self.execution_id];
        self.slugs.iter().chain(single.into_iter().flatten()).map(string_size).sum::<usize>()
            + forwarded_size(&self.forwarded)
    }

    fn write(&self, out: &mut String) {
        for (index, slug) in self.slugs.iter().enumerate() {
            out.push_str(if index == 0 { "&slug=" } else { "," });
            push_encoded(out, slug);
        }
        for (name, value) in [
            ("workflow_id", &self.workflow_id),
            ("workflow_name", &self.workflow_name),
            ("execution_id", &self.execution_id),
        ] {
            if let Some(value) = value {
                push_pair(out, name, value);
            }
        }
        if let Some(ascending) = self.sort_ascending {
            push_plain_pair(out, "sortAsc", if ascending { "true" } else { "false" });
        }
        write_forwarded(&self.forwarded, out);
    }
}

fn write_forwarded(pairs: &[(String, String)], out: &mut String) {
    for (name, value) in pairs {
        out.push('&');
        push_encoded(out, name);
        out.push('=');
        push_encoded(out, value);
    }
}

/// The canonical form: the spelling of the documentation, in a fixed order, with the defaults written out.
impl fmt::Display for ListQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write_upstream(Dialect::Documented, &mut out);
        f.write_str(&out)
    }
}

/// The canonical form, as of [`ListQuery`].
impl fmt::Display for BatchesQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write_upstream(&mut out);
        f.write_str(&out)
    }
}
