//! The last requests that were refused or failed, grouped by status, code, tenant, caller and linked account. Failures (5xx) are
//! kept apart, so that a flood of refused requests does not displace them.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use serde::Serialize;

use super::groups::{ErrorGroups, Group, NewError, Occurrences, ShownGroup, joined};
use crate::clock::Moment;
use crate::config::AccountNaming;
use crate::observe::access_record::{AccessRecord, write_cause};
use crate::request::RequestId;
use crate::request::route::Resource;

/// Keeps the last errors.
#[derive(Debug, Default)]
pub(super) struct ErrorList {
    failed: Mutex<ErrorGroups<Common, Single>>,
    refused: Mutex<ErrorGroups<Common, Single>>,
}

/// The properties that the errors of a group share.
#[derive(Debug)]
struct Common {
    status: StatusCode,
    error_code: Box<str>,
    reason: Option<&'static str>,
    tenant: Option<Box<str>>,
    caller: Option<Box<str>>,
    linked_account: Option<Box<str>>,
}

/// An answer with an error status.
#[derive(Debug)]
struct Single {
    answered_at: Moment,
    request_id: RequestId,
    cause: Option<Box<str>>,
    resource: Resource,
}

impl NewError<Common, Single> for AccessRecord<'_> {
    fn belongs_to(&self, common: &Common) -> bool {
        let (tenant, caller, linked_account) = names(self);
        self.status == common.status
            && code(self) == &*common.error_code
            && self.error.and_then(|error| error.credential_problem) == common.reason
            && tenant == common.tenant.as_deref()
            && caller == common.caller.as_deref()
            && linked_account == common.linked_account.as_deref()
    }

    fn source(&self) -> impl Hash {
        let (tenant, caller, _) = names(self);
        // The name of a JWT is its subject, of which its issuer has many.
        let counted = self.caller.and_then(|caller| caller.counters).map(|(_, name)| name);
        (tenant, counted.or(caller), self.status)
    }

    fn common(&self) -> Common {
        let (tenant, caller, linked_account) = names(self);
        Common {
            status: self.status,
            error_code: code(self).into(),
            reason: self.error.and_then(|error| error.credential_problem),
            tenant: tenant.map(Into::into),
            caller: caller.map(Into::into),
            linked_account: linked_account.map(Into::into),
        }
    }

    fn single(&self) -> Single {
        Single {
            answered_at: self.answered_at,
            request_id: self.request_id,
            cause: self.error.and_then(|error| error.cause).map(|cause| {
                let mut text = String::new();
                write_cause(&mut text, cause);
                text.into()
            }),
            resource: self.resource,
        }
    }
}

fn code<'a>(record: &AccessRecord<'a>) -> &'a str {
    record.error.map_or("", |error| error.code)
}

/// The tenant, the name of the credential and the linked account, as far as they are known.
fn names<'a>(record: &AccessRecord<'a>) -> (Option<&'a str>, Option<&'a str>, Option<&'a str>) {
    let caller = record.caller;
    let linked_account = caller.and_then(|caller| caller.linked_account);
    (caller.map(|caller| &*caller.tenant.config.id), caller.map(|caller| caller.name), linked_account)
}

impl ErrorList {
    /// Keeps an error.
    pub(super) fn keep(&self, record: &AccessRecord<'_>) {
        let groups = if record.status.is_server_error() { &self.failed } else { &self.refused };
        // A flood of errors must not slow down requests: while the groups are locked, an error is not kept. Metrics count all of them.
        if let Ok(mut groups) = groups.try_lock() {
            groups.add(record, record.answered_at);
        }
    }

    /// Locks the groups of refused requests.
    #[cfg(test)]
    pub(super) fn lock_refused(&self) -> impl Drop {
        self.refused.lock().expect("no other thread has it")
    }

    /// The groups: failures first, each kind newest first, with linked accounts named like this.
    pub(super) fn all(&self, now: Moment, naming: AccountNaming) -> Vec<ErrorGroup> {
        let all = |groups: &Mutex<ErrorGroups<Common, Single>>| -> Vec<ErrorGroup> {
            // No code that holds the lock can leave the list inconsistent, even if it panics.
            let groups = groups.lock().unwrap_or_else(PoisonError::into_inner);
            joined(groups.iter().map(|group| ErrorGroup::new(group, now, naming)))
        };
        [all(&self.failed), all(&self.refused)].concat()
    }
}

/// Requests that were refused or failed in the same way, as the status page shows them.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorGroup {
    /// The status of the answers.
    pub status: u16,
    /// The `error_code` of the answers; `INVALID_CREDENTIALS` for the documented 401.
    pub error_code: String,
    /// The precise reason of a refused credential, for the operator; not part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The caller's tenant, if the credential is known.
    pub tenant: Option<String>,
    /// The name of the caller's credential, if it is known.
    pub caller: Option<String>,
    /// The linked account that the requests acted for.
    pub linked_account: Option<String>,
    /// Their number, and the last of them. In a flood, some are not counted.
    #[serde(flatten)]
    pub occurrences: Occurrences<RecentError>,
}

/// A request that was refused or failed.
#[derive(Clone, Debug, Serialize)]
pub struct RecentError {
    /// Seconds since the answer.
    pub seconds_ago: f64,
    /// The request id, which the caller received in `x-request-id`.
    pub request_id: String,
    /// The resource that the request was for.
    pub endpoint: &'static str,
    /// The underlying error, for the operator; not part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl ErrorGroup {
    fn new(group: &Group<Common, Single>, now: Moment, naming: AccountNaming) -> Self {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let single = |error: &Single| RecentError {
            seconds_ago: now.since(error.answered_at).as_secs_f64(),
            request_id: error.request_id.to_string(),
            endpoint: error.resource.name(),
            cause: text(&error.cause),
        };
        let common = &group.common;
        Self {
            status: common.status.as_u16(),
            error_code: common.error_code.to_string(),
            reason: common.reason,
            tenant: text(&common.tenant),
            caller: text(&common.caller),
            linked_account: common.linked_account.as_deref().and_then(|id| naming.name(id)).map(Into::into),
            occurrences: Occurrences::of(group, now, single),
        }
    }
}

impl ShownGroup for ErrorGroup {
    fn looks_like(&self, other: &Self) -> bool {
        self.status == other.status
            && self.error_code == other.error_code
            && self.reason == other.reason
            && self.tenant == other.tenant
            && self.caller == other.caller
            && self.linked_account == other.linked_account
    }

    fn absorb(&mut self, older: Self) {
        self.occurrences.absorb(older.occurrences, |error| error.seconds_ago);
    }
}
