//! `postern explain`: shows the canonical form of a query, its upstream targets and its cache key.

use std::path::PathBuf;

use super::output::{CommandError, print};
use crate::config::{Config, Environment};
use crate::executions::{Dialect, ListQuery, QueryPolicy, Question, UnknownParameters};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern explain 'status=errored&limit=10'\n  postern explain --config postern.toml 'page=2'"
)]
pub(super) struct ExplainArguments {
    /// Query as a client sends it, with or without the path: 'status=errored&limit=10'.
    query: String,
    /// Tenant in the cache key.
    #[arg(long, value_name = "ID", default_value = "TENANT")]
    tenant: String,
    /// Linked account in the cache key.
    #[arg(long, value_name = "ID", default_value = "LINKED_ACCOUNT")]
    linked_account: String,
    /// Configuration file whose rules for queries apply (maximum limit, unknown parameters).
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &ExplainArguments) -> Result<(), CommandError> {
    let policy = match &arguments.config {
        Some(path) => Config::load(path, &Environment::from_process())?.query,
        None => QueryPolicy { max_limit: 100, unknown: UnknownParameters::Reject, ignored: vec!["_".to_owned()] },
    };
    let query = arguments.query.split_once('?').map_or(arguments.query.as_str(), |(_, query)| query);
    let question = Question::List(ListQuery::parse(Some(query), &policy)?);
    print(format_args!("canonical   {question}"))?;
    print(format_args!("documented  GET {}", question.upstream_target(Dialect::Documented)))?;
    print(format_args!("v3          GET {}", question.upstream_target(Dialect::V3)))?;
    print(format_args!("cache key   {} | {} | {question}", arguments.tenant, arguments.linked_account))
}
