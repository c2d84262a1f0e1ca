//! `postern explain`: what becomes of a query.

use std::path::PathBuf;

use super::{Failure, print};
use crate::config::{Config, Environment};
use crate::executions::{Dialect, ListQuery, QueryPolicy, Question, UnknownParameters};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The query as a client would send it, with or without the path: 'status=errored&limit=10'.
    query: String,
    /// Whose cache key is shown.
    #[arg(long, value_name = "ID", default_value = "TENANT")]
    tenant: String,
    /// Whose cache key is shown.
    #[arg(long, value_name = "ID", default_value = "LINKED_ACCOUNT")]
    linked_account: String,
    /// Read the query as this configuration file says (maximum limit, unknown parameters).
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let policy = match &arguments.config {
        Some(path) => Config::load(path, &Environment::from_process())?.query,
        None => QueryPolicy { max_limit: 100, unknown: UnknownParameters::Reject, ignored: vec!["_".to_owned()] },
    };
    let query = arguments.query.split_once('?').map_or(arguments.query.as_str(), |(_, query)| query);
    let question = Question::List(ListQuery::parse(Some(query), &policy)?);
    print(format_args!("canonical   {question}"));
    print(format_args!("documented  GET {}", question.upstream_target(Dialect::Documented)));
    print(format_args!("v3          GET {}", question.upstream_target(Dialect::V3)));
    print(format_args!("cache key   {} | {} | {question}", arguments.tenant, arguments.linked_account));
    Ok(())
}
