//! The record of one answered request: the source of its metrics, its access log line and its span.

use std::time::Duration;

use http::{Method, StatusCode};

use super::traces::TraceId;
use crate::cache::{CacheKey, CacheOutcome};
use crate::caller::{Caller, Known};
use crate::clock::Moment;
use crate::request::RequestId;
use crate::request::route::Resource;
use crate::tenant::Tenant;

/// A request and its answer. Part of the hit path: it borrows everything and allocates nothing.
#[derive(Debug)]
pub struct AccessRecord<'a> {
    /// The id of the request, which the caller receives in `x-request-id`.
    pub request_id: RequestId,
    /// The request method.
    pub method: &'a Method,
    /// The resource that the request target names.
    pub resource: Resource,
    /// The sender of the request, if its credential is known.
    pub caller: Option<CallerIdentity<'a>>,
    /// The cache key, if the resource can be cached.
    pub key: Option<&'a CacheKey>,
    /// The canonical query, if it is already written out.
    pub canonical: Option<&'a str>,
    /// The status of the answer.
    pub status: StatusCode,
    /// The `error_code` of the answer, if it is an error.
    pub error_code: Option<&'a str>,
    /// The metrics label of the error, from a bounded set: see [`crate::error::ClientError::label`].
    pub error_label: Option<&'static str>,
    /// The cache's part in the answer.
    pub cache: CacheOutcome,
    /// The age of the answer (RFC 9111, 4.2.3), if it comes from a cache entry.
    pub age: Option<Duration>,
    /// The time at which the head of the answer was ready.
    pub answered_at: Moment,
    /// Time from the request's head to the head of its answer.
    pub duration: Duration,
    /// The part of `duration` that this request spent on requests to Refold; `None` if it sent none.
    pub upstream_duration: Option<Duration>,
    /// The trace of the request, if it is recorded.
    pub trace_id: Option<TraceId>,
}

/// The sender of a request.
#[derive(Clone, Copy, Debug)]
pub struct CallerIdentity<'a> {
    /// The tenant that the credential belongs to.
    pub tenant: &'a Tenant,
    /// The name of the credential in logs.
    pub name: &'a str,
    /// The linked account that the request acts for; `None` for a session token, which does not reveal it.
    pub linked_account: Option<&'a str>,
}

impl<'a> From<&'a Caller> for CallerIdentity<'a> {
    fn from(caller: &'a Caller) -> Self {
        let linked_account = caller.partition().linked_account_id();
        Self { tenant: caller.tenant(), name: caller.name(), linked_account }
    }
}

impl<'a> From<&'a Known> for CallerIdentity<'a> {
    fn from(known: &'a Known) -> Self {
        Self { tenant: &known.tenant, name: known.credential.name(), linked_account: None }
    }
}
