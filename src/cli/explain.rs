//! `postern explain`: shows what the gateway makes of a request: its route, the canonical form of its query, its upstream targets
//! and its cache key.

use std::path::PathBuf;

use http::header::HOST;
use http::request::Parts;
use http::{Method, Request, StatusCode, Uri};

use super::output::{CommandError, print};
use crate::config::{Config, Environment, PassThrough, Scope, ServerConfig};
use crate::error::ClientError;
use crate::executions::{
    BatchesQuery, COLLECTION, Dialect, ForwardedParameters, ListQuery, QueryPolicy, Question, UnknownParameters,
};
use crate::request::route::{Endpoint, Resource, Route, route};
use crate::suggest::suggest;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  postern explain 'status=errored&limit=10'
  postern explain --config postern.toml '/api/v2/public/execution/abc/nodes/n1/batches?page=2'
  postern explain --method POST /api/v2/public/execution/abc/stop")]
pub(super) struct ExplainArguments {
    /// Path and query as a client sends them, a whole URL, or the query of a list alone: 'status=errored&limit=10'.
    #[arg(value_name = "TARGET")]
    target: String,
    /// Method of the request.
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET", value_parser = method)]
    method: Method,
    /// Tenant in the cache key.
    #[arg(long, value_name = "ID", default_value = "TENANT")]
    tenant: String,
    /// Linked account in the cache key.
    #[arg(long, value_name = "ID", default_value = "LINKED_ACCOUNT")]
    linked_account: String,
    /// Configuration file whose rules apply (maximum limit, unknown parameters, dialect, pass-through routes). Without it, the
    /// targets at Refold are shown in both dialects.
    #[arg(long, value_name = "FILE", env = "POSTERN_CONFIG")]
    config: Option<PathBuf>,
}

fn method(text: &str) -> Result<Method, http::method::InvalidMethod> {
    Method::from_bytes(text.to_uppercase().as_bytes())
}

/// Routes the request and parses its query, as the gateway does after it has identified the caller.
///
/// # Errors
/// If the gateway refuses the request: its status, its error code and the reason.
pub(super) fn run(arguments: &ExplainArguments) -> Result<(), CommandError> {
    let config = match &arguments.config {
        Some(path) => Some(Config::load(path, &Environment::from_process())?),
        None => None,
    };
    let policy = match &config {
        Some(config) => config.query.clone(),
        None => QueryPolicy { max_limit: 100, unknown: UnknownParameters::Reject, ignored: vec!["_".to_owned()] },
    };
    let (limits, allowed) = match &config {
        Some(config) => (config.server.clone(), config.pass_through.as_slice()),
        None => (ServerConfig::default(), &[][..]),
    };
    let head = head(&arguments.method, &arguments.target)?;
    let routed = route(&head, &limits, allowed)
        .map_err(|error| format!("{}{}", refusal(&error), advice(&error, &head, config.as_ref())))?;
    print(format_args!("route       {}", described(&routed, &head.method)))?;
    match routed {
        Route::Endpoint(endpoint) => {
            let dialect = config.as_ref().map(|config| config.upstream.dialect);
            explain_endpoint(endpoint, &head, (&policy, dialect), arguments)
        }
        Route::Webhook(id) => {
            let tenants = config.as_ref().map(|config| config.tenants.as_slice());
            let takes = tenants.map(|all| all.iter().any(|tenant| *tenant.id == *id && tenant.webhooks));
            print(match takes {
                Some(true) => "webhooks    the tenant accepts them; the body has to be signed with its org key",
                Some(false) => "webhooks    refused: there is no tenant with this id that has `webhooks = true`",
                None => {
                    "webhooks    accepted if the tenant has `webhooks = true`; the body has to be signed with its org key"
                }
            })
        }
        Route::Preflight(permitted) => print(format_args!("methods     {}", permitted.methods)),
    }
}

/// Makes the head of a request.
fn head(method: &Method, target: &str) -> Result<Parts, CommandError> {
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |start| &rest[start..]),
        None => target,
    };
    let target = match path.strip_prefix('?').unwrap_or(path) {
        path if path.starts_with('/') => path.to_owned(),
        query => format!("{COLLECTION}?{query}"),
    };
    let uri: Uri = target.parse().map_err(|error| format!("`{target}` is no target of a request: {error}"))?;
    let request = Request::builder().method(method).uri(uri).header(HOST, "localhost").body(())?;
    Ok(request.into_parts().0)
}

fn described(route: &Route, method: &Method) -> String {
    let resource = route.resource();
    match route {
        Route::Endpoint(Endpoint::PassThrough(allowed)) => {
            format!("{}, by [[pass_through]] {}", resource.name(), allowed.path)
        }
        Route::Preflight(_) => "CORS preflight, answered without a credential if the origin is allowed".to_owned(),
        _ => format!("{}, {method} {}", resource.name(), resource.route().unwrap_or_default()),
    }
}

/// Explains a request for an endpoint. Without a configuration there is no `dialect`.
fn explain_endpoint(
    endpoint: Endpoint,
    head: &Parts,
    (policy, dialect): (&QueryPolicy, Option<Dialect>),
    arguments: &ExplainArguments,
) -> Result<(), CommandError> {
    let query = head.uri.query();
    let refused = |error| refusal(&ClientError::from(error));
    let question = match endpoint {
        Endpoint::List => Question::List(ListQuery::parse(query, policy).map_err(refused)?),
        Endpoint::Execution(id) => Question::Execution(id, ForwardedParameters::parse(query, policy).map_err(refused)?),
        Endpoint::Batches(id, node) => {
            Question::Batches(id, node, BatchesQuery::parse(query, policy).map_err(refused)?)
        }
        Endpoint::Action(_, action) => {
            let forwarded = ForwardedParameters::parse(query, policy).map_err(refused)?;
            let mut target = head.uri.path().to_owned();
            forwarded.write_as_query(&mut target);
            print("credential  needs write access")?;
            print(format_args!("upstream    POST {target}"))?;
            return print(format_args!("cache       never; a {} drops the linked account's entries", action.name()));
        }
        Endpoint::PassThrough(allowed) => return explain_pass_through(&allowed, head),
    };
    print(format_args!("canonical   {question}"))?;
    let targets = match dialect {
        Some(dialect) => vec![("upstream", dialect)],
        None => vec![("documented", Dialect::Documented), ("v3", Dialect::V3)],
    };
    for (label, dialect) in targets {
        print(format_args!("{label:<10}  GET {}", question.upstream_target(dialect)))?;
    }
    print(format_args!("cache key   {} | {} | {question}", arguments.tenant, arguments.linked_account))
}

fn explain_pass_through(allowed: &PassThrough, head: &Parts) -> Result<(), CommandError> {
    print(match allowed.scope {
        Scope::Account => "scope       account: Refold confines this operation to the caller's linked account",
        Scope::Org => "scope       org: needs a client key or certificate for [\"*\"], or the org key",
    })?;
    if head.method != Method::GET && head.method != Method::HEAD {
        print("credential  needs write access")?;
    }
    print(format_args!("upstream    {} {}", head.method, head.uri))?;
    print("cache       never")
}

/// The response that the caller would get.
fn refusal(error: &ClientError) -> String {
    format!("the gateway answers {} {}: {}", error.status().as_u16(), error.operator_code(), error.message())
}

/// The reason for a 404, by the pass-through routes.
fn advice(error: &ClientError, head: &Parts, config: Option<&Config>) -> String {
    if error.status() != StatusCode::NOT_FOUND {
        return error.allow().map_or(String::new(), |methods| format!(" (methods: {methods})"));
    }
    let path = head.uri.path();
    if let Some(nearest) = Resource::ALL.into_iter().filter_map(Resource::route).find(|route| is_near(path, route)) {
        return format!("; did you mean {nearest}?");
    }
    let Some(config) = config else {
        return "; with --config the [[pass_through]] routes of a configuration count too".to_owned();
    };
    match config.pass_through.iter().find(|allowed| allowed.path.matches(path)) {
        Some(allowed) => format!(
            "; [[pass_through]] {} covers the path, and Refold does not confine this operation to a linked account: it needs `scope = \"org\"`",
            allowed.path
        ),
        None => "; no [[pass_through]] covers the path".to_owned(),
    }
}

/// Returns whether every segment of a path is that of a route template, or a typo of it.
fn is_near(path: &str, route: &str) -> bool {
    let is_same =
        |(given, known): (&str, &str)| given == known || known.starts_with('{') || suggest(given, [known]).is_some();
    path.split('/').count() == route.split('/').count() && path.split('/').zip(route.split('/')).all(is_same)
}
