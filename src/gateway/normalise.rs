//! The normalising step: what an endpoint and a query ask for, in canonical form.

use std::sync::Arc;

use http::Method;
use http::request::Parts;

use crate::admit::must_write;
use crate::cache::{CacheKey, Directives, Entry, RenewalClaim};
use crate::caller::Caller;
use crate::config::{PassThrough, Scope};
use crate::error::{ClientError, Reason};
use crate::executions::{
    BatchesQuery, ForwardedParameters, ListQuery, ParsedQuestion, PathId, QueryMemo, QueryPolicy, Question,
};
use crate::request::other_account::check_form;
use crate::request::route::{Action, Endpoint};
use crate::tenant::Tenant;
use crate::webhook::Signature;

/// Most bytes of the query of a refused request that is logged: a caller that sends too much must not fill the log as well.
const MAX_REFUSED_QUERY: usize = 512;

/// The canonical form of a request.
pub(super) enum Normalised {
    /// A question whose answer can be cached.
    Question(ParsedQuestion),
    /// An operation that never comes from the cache.
    Uncached(UpstreamOp),
}

/// The work of a request that the cache does not answer.
pub(super) enum UpstreamOp {
    /// Fetch the answer to a question.
    Fetch(Box<Miss>),
    /// Renew a stale entry, of which the fleet may have a newer one.
    Renew(Box<Renewal>),
    /// Stop an execution or run it again.
    Act { caller: Caller, execution: PathId, action: Action, forwarded: ForwardedParameters },
    /// Forward a request of the allow-list.
    Forward { caller: Caller, allowed: Arc<PassThrough> },
    /// Receive a webhook. Without a tenant that takes webhooks, it is read and refused.
    Webhook { tenant: Option<Arc<Tenant>>, signature: Signature },
}

/// A stale entry, whose renewal a request has claimed.
pub(super) struct Renewal {
    pub(super) caller: Caller,
    pub(super) key: CacheKey,
    pub(super) stale: Arc<Entry>,
    pub(super) claim: RenewalClaim,
}

/// A question that the cache did not answer.
pub(super) struct Miss {
    pub(super) caller: Caller,
    pub(super) key: CacheKey,
    /// The stale entry: the fetch revalidates it, and it is served if the fetch fails and its stale window allows it.
    pub(super) stale: Option<Arc<Entry>>,
    pub(super) directives: Directives,
}

/// Normalises the query of an endpoint, and checks that the caller may use it.
///
/// # Errors
/// 400 for a query that is not accepted, 403 for a write with a read-only credential and for what is beyond the caller's
/// linked account.
pub(super) fn normalise(
    endpoint: Endpoint,
    caller: &Caller,
    head: &Parts,
    (memo, policy): (&QueryMemo, &QueryPolicy),
) -> Result<Normalised, ClientError> {
    let query = head.uri.query();
    let question = match endpoint {
        Endpoint::List => memo.parse_list(query, policy)?,
        Endpoint::Execution(execution) => {
            Question::Execution(execution, ForwardedParameters::parse(query, policy)?).into()
        }
        Endpoint::Batches(execution, node) => {
            Question::Batches(execution, node, BatchesQuery::parse(query, policy)?).into()
        }
        Endpoint::PassThrough(allowed) => {
            if head.method != Method::GET && head.method != Method::HEAD {
                must_write(caller)?;
            }
            check_scope(caller, &allowed, query)?;
            return Ok(Normalised::Uncached(UpstreamOp::Forward { caller: caller.clone(), allowed }));
        }
        Endpoint::Action(execution, action) => {
            must_write(caller)?;
            let forwarded = ForwardedParameters::parse(query, policy)?;
            return Ok(Normalised::Uncached(UpstreamOp::Act { caller: caller.clone(), execution, action, forwarded }));
        }
    };
    Ok(Normalised::Question(question))
}

/// The canonical query of a request that was refused before this step, for its log line.
/// `None` if the resource can't be cached, or the query is not accepted or longer than [`MAX_REFUSED_QUERY`] bytes.
#[cold]
pub(super) fn canonical_of_refused(endpoint: Endpoint, query: Option<&str>, policy: &QueryPolicy) -> Option<Arc<str>> {
    if query.is_some_and(|query| query.len() > MAX_REFUSED_QUERY) {
        return None;
    }
    let question = match endpoint {
        Endpoint::List => Question::List(ListQuery::parse(query, policy).ok()?),
        Endpoint::Execution(execution) => {
            Question::Execution(execution, ForwardedParameters::parse(query, policy).ok()?)
        }
        Endpoint::Batches(execution, node) => {
            Question::Batches(execution, node, BatchesQuery::parse(query, policy).ok()?)
        }
        Endpoint::PassThrough(_) | Endpoint::Action(..) => return None,
    };
    Some(question.to_string().into())
}

/// Checks that a request of the allow-list stays within the caller's confinement, as far as its query says.
fn check_scope(caller: &Caller, allowed: &PassThrough, query: Option<&str>) -> Result<(), ClientError> {
    match (allowed.scope, caller.partition().linked_account_id()) {
        (Scope::Org, _) if !caller.is_of_org() => {
            let message = "this resource is the whole org's; it needs a key for every linked account";
            Err(ClientError::new(Reason::LinkedAccountNotAllowed, message))
        }
        (Scope::Account, Some(own)) => check_form(query.unwrap_or_default().as_bytes(), own),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::{COLLECTION, UnknownParameters};

    #[test]
    fn the_canonical_query_of_a_refused_request_is_bounded() {
        let policy = QueryPolicy { unknown: UnknownParameters::Forward, ..QueryPolicy::default() };
        let long = format!("x={}", "%C3%BC".repeat(85));
        for (query, expected) in [
            ("page=01", format!("{COLLECTION}?page=1&limit=10")),
            (&long, format!("{COLLECTION}?page=1&limit=10&{long}")),
        ] {
            let canonical = canonical_of_refused(Endpoint::List, Some(query), &policy);
            assert_eq!(canonical.as_deref(), Some(&*expected));
        }
        for refused in ["page=0", &format!("{long}x")] {
            assert_eq!(canonical_of_refused(Endpoint::List, Some(refused), &policy), None);
        }
    }
}
