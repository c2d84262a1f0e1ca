//! The record of one answered request: the source of its metrics, its access log line and its span.

use std::error::Error;
use std::fmt::{self, Write};
use std::time::Duration;

use http::StatusCode;
use opentelemetry::trace::TraceId;

use super::request_origin::RequestOrigin;
use crate::cache::{CacheKey, CacheOutcome};
use crate::caller::{Authenticated, Caller, Credential, CredentialKind, KeyUsage, OutcomeCounters};
use crate::clock::Moment;
use crate::error::ClientError;
use crate::executions::PathId;
use crate::request::RequestId;
use crate::request::route::Resource;
use crate::tenant::Tenant;

/// Longest text of a cause, in bytes.
const MAX_CAUSE: usize = 512;

/// A request and its answer. Part of the hit path: it borrows everything and allocates nothing.
#[derive(Debug)]
pub struct AccessRecord<'a> {
    /// The id of the request, which the caller receives in `x-request-id`.
    pub request_id: RequestId,
    /// The request method, from a bounded set of names.
    pub method: &'static str,
    /// The connection and the head of the request.
    pub origin: RequestOrigin<'a>,
    /// The execution that the request is to change.
    pub execution: Option<&'a PathId>,
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
    /// The length of the answer's body in bytes, if it is known with the head.
    pub bytes: Option<u64>,
    /// The error in the answer, if it is one.
    pub error: Option<AccessError<'a>>,
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

impl AccessRecord<'_> {
    /// Returns true for a request that changes something at Refold, or would have changed it if it had not been refused. It is
    /// always logged.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        match self.resource {
            Resource::Stop | Resource::Rerun => true,
            Resource::PassThrough => !matches!(self.method, "GET" | "HEAD" | "OPTIONS"),
            _ => false,
        }
    }
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
    /// The kind of the credential.
    pub kind: CredentialKind,
    /// The counts of the client key or client certificate, if the credential is one.
    pub key_usage: Option<&'a KeyUsage>,
    /// See [`Credential::counters`].
    pub counters: Option<(&'a OutcomeCounters, &'a str)>,
}

impl<'a> CallerIdentity<'a> {
    fn new(tenant: &'a Tenant, credential: &'a Credential, linked_account: Option<&'a str>) -> Self {
        Self {
            tenant,
            name: credential.name(),
            linked_account,
            kind: credential.kind(),
            key_usage: credential.key_usage(),
            counters: credential.counters(),
        }
    }
}

impl<'a> From<&'a Caller> for CallerIdentity<'a> {
    fn from(caller: &'a Caller) -> Self {
        Self::new(caller.tenant(), caller.credential(), caller.partition().linked_account_id())
    }
}

impl<'a> From<&'a Authenticated> for CallerIdentity<'a> {
    fn from(known: &'a Authenticated) -> Self {
        Self::new(&known.tenant, &known.credential, None)
    }
}

/// The error that a request was answered with.
#[derive(Clone, Copy, Debug)]
pub struct AccessError<'a> {
    /// The code of the error for the operator: see [`ClientError::operator_code`].
    pub code: &'a str,
    /// The value of the metrics' label `error_code`, from a bounded set: see [`ClientError::label`].
    pub label: &'static str,
    /// The precise reason of a refused credential, from a bounded set: see [`ClientError::credential_problem`].
    pub credential_problem: Option<&'static str>,
    /// The underlying error, for the operator only.
    pub cause: Option<&'a (dyn Error + Send + Sync + 'static)>,
}

impl<'a> From<&'a ClientError> for AccessError<'a> {
    fn from(error: &'a ClientError) -> Self {
        Self {
            code: error.operator_code(),
            label: error.label(),
            credential_problem: error.credential_problem(),
            cause: error.cause().map(|cause| &**cause),
        }
    }
}

/// Appends an error and its sources, joined by `: `. A source that repeats the end of the text is left out, since many
/// errors show their source themselves; text beyond [`MAX_CAUSE`] bytes is replaced by an ellipsis.
#[cold]
pub(super) fn write_cause(text: &mut String, cause: &(dyn Error + Send + Sync + 'static)) {
    const SEPARATOR: &str = ": ";
    let start = text.len();
    let mut bounded = Bounded { limit: start + MAX_CAUSE, text };
    let mut next: Option<&(dyn Error + 'static)> = Some(cause);
    while let Some(error) = next {
        let before = bounded.text.len();
        let separator = if before == start { "" } else { SEPARATOR };
        if write!(bounded, "{separator}{error}").is_err() {
            bounded.text.push('…');
            return;
        }
        let (shown, added) = bounded.text.split_at(before);
        if before > start && shown[start..].ends_with(&added[SEPARATOR.len()..]) {
            bounded.text.truncate(before);
        }
        next = error.source();
    }
}

/// Text that takes no more bytes after a limit.
struct Bounded<'a> {
    text: &'a mut String,
    /// Largest length of the text, in bytes.
    limit: usize,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let fits = more.floor_char_boundary(self.limit - self.text.len());
        self.text.push_str(&more[..fits]);
        if fits == more.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: String,
        source: Option<Box<Layer>>,
    }

    fn written(texts: &[&str]) -> String {
        let layer =
            texts.iter().rev().fold(None, |source, text| Some(Box::new(Layer { text: (*text).into(), source })));
        let mut text = String::from("kept ");
        write_cause(&mut text, &*layer.expect("there is one"));
        text.strip_prefix("kept ").expect("the text is appended").to_owned()
    }

    #[test]
    fn a_cause_is_written_with_all_its_sources() {
        assert_eq!(written(&["lost"]), "lost");
        assert_eq!(written(&["can't connect", "TLS", "expired"]), "can't connect: TLS: expired");
    }

    #[test]
    fn a_source_that_its_error_shows_is_written_once() {
        assert_eq!(written(&["TLS: expired", "expired"]), "TLS: expired");
        assert_eq!(written(&["TLS: expired", "expired", "at noon"]), "TLS: expired: at noon");
    }

    #[test]
    fn a_long_cause_is_cut_between_characters() {
        let exact = "x".repeat(MAX_CAUSE);
        assert_eq!(written(&[&exact]), exact);
        assert_eq!(written(&[&exact, "more"]), format!("{exact}…"));
        let umlauts = "ü".repeat(MAX_CAUSE);
        assert_eq!(written(&["x", &umlauts]), format!("x: {}…", "ü".repeat((MAX_CAUSE - 3) / 2)));
    }
}
