//! The last requests that were refused or failed. Failures (5xx) are kept apart, so that a flood of refused requests does not
//! displace them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use serde::Serialize;

use crate::clock::Moment;
use crate::observe::access_record::{AccessRecord, write_cause};
use crate::request::RequestId;
use crate::request::route::Resource;

/// Number of failures that are kept, and of refused requests.
const ERRORS_KEPT: usize = 50;

/// Keeps the last errors.
#[derive(Debug, Default)]
pub(super) struct ErrorList {
    failed: Mutex<VecDeque<KeptError>>,
    refused: Mutex<VecDeque<KeptError>>,
}

/// An answer with an error status.
#[derive(Debug)]
struct KeptError {
    answered_at: Moment,
    request_id: RequestId,
    status: StatusCode,
    error_code: Box<str>,
    reason: Option<&'static str>,
    cause: Option<Box<str>>,
    tenant: Option<Box<str>>,
    caller: Option<Box<str>>,
    linked_account: Option<Box<str>>,
    resource: Resource,
}

impl ErrorList {
    /// Keeps an error.
    pub(super) fn keep(&self, record: &AccessRecord<'_>) {
        let ring = if record.status.is_server_error() { &self.failed } else { &self.refused };
        // A flood of errors must not slow down requests: while the list is locked, an error is counted but not kept.
        let Ok(mut errors) = ring.try_lock() else { return };
        if errors.len() >= ERRORS_KEPT {
            errors.pop_front();
        }
        errors.push_back(KeptError {
            answered_at: record.answered_at,
            request_id: record.request_id,
            status: record.status,
            error_code: record.error.map_or("", |error| error.code).into(),
            reason: record.error.and_then(|error| error.credential_problem),
            cause: record.error.and_then(|error| error.cause).map(|cause| {
                let mut text = String::new();
                write_cause(&mut text, cause);
                text.into()
            }),
            tenant: record.caller.map(|caller| (*caller.tenant.config.id).into()),
            caller: record.caller.map(|caller| caller.name.into()),
            linked_account: record.caller.and_then(|caller| caller.linked_account).map(Into::into),
            resource: record.resource,
        });
    }

    /// Locks the list of refused requests.
    #[cfg(test)]
    pub(super) fn lock_refused(&self) -> impl Drop {
        self.refused.lock().expect("no other thread has it")
    }

    /// The kept errors: failures first, each kind newest first.
    pub(super) fn all(&self, now: Moment) -> Vec<RecentError> {
        let shown = |error: &KeptError| RecentError {
            seconds_ago: now.since(error.answered_at).as_secs_f64(),
            request_id: error.request_id.to_string(),
            status: error.status.as_u16(),
            error_code: error.error_code.to_string(),
            reason: error.reason,
            cause: error.cause.as_deref().map(str::to_owned),
            endpoint: error.resource.name(),
            tenant: error.tenant.as_deref().map(str::to_owned),
            caller: error.caller.as_deref().map(str::to_owned),
            linked_account: error.linked_account.as_deref().map(str::to_owned),
        };
        let all = |ring: &Mutex<VecDeque<KeptError>>| -> Vec<RecentError> {
            // No code that holds the lock can leave the list inconsistent, even if it panics.
            ring.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().map(shown).collect()
        };
        [all(&self.failed), all(&self.refused)].concat()
    }
}

/// A request that was refused or failed, as the status page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct RecentError {
    /// Seconds since the answer.
    pub seconds_ago: f64,
    /// The request id, which the caller received in `x-request-id`.
    pub request_id: String,
    /// The status of the answer.
    pub status: u16,
    /// The `error_code` of the answer; `INVALID_CREDENTIALS` for the documented 401.
    pub error_code: String,
    /// The precise reason of a refused credential, for the operator; not part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The underlying error, for the operator; not part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The resource that the request was for.
    pub endpoint: &'static str,
    /// The caller's tenant, if the credential is known.
    pub tenant: Option<String>,
    /// The name of the caller's credential, if it is known.
    pub caller: Option<String>,
    /// The linked account that the request acted for.
    pub linked_account: Option<String>,
}
