//! The last renewals that failed, grouped by code, upstream status, tenant and linked account. Their callers got a stale page, so
//! that no error of a request shows them.

use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::groups::{ErrorGroups, Group, NewError, Occurrences, ShownGroup, joined};
use crate::clock::Moment;
use crate::config::AccountNaming;
use crate::error::ClientError;
use crate::observe::access_record::write_cause;

/// Longest text of Refold's or of a caller's that is kept, in bytes.
const MAX_TEXT: usize = 512;

/// A renewal that failed: a stale page or document could not be fetched anew.
#[derive(Clone, Copy, Debug)]
pub struct FailedRenewal<'a> {
    /// The time at which it ended.
    pub at: Moment,
    /// The tenant whose org key or caller asked.
    pub tenant: &'a str,
    /// The linked account; `None` if it is unknown.
    pub linked_account: Option<&'a str>,
    /// The canonical query.
    pub query: &'a str,
    /// The error.
    pub error: &'a ClientError,
}

/// Text in one line of a bounded length, without control characters: they would act on a terminal that shows it.
#[must_use]
pub fn printable(text: &str) -> String {
    let cut = text.floor_char_boundary(MAX_TEXT);
    let plain = text[..cut].chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.chain((cut < text.len()).then_some('…')).collect()
}

/// Keeps the last failed renewals.
#[derive(Debug, Default)]
pub(super) struct RenewalErrors(Mutex<ErrorGroups<Common, Single>>);

/// The properties that the failed renewals of a group share.
#[derive(Debug)]
struct Common {
    error_code: Box<str>,
    upstream_status: Option<u16>,
    tenant: Box<str>,
    linked_account: Option<Box<str>>,
}

#[derive(Debug)]
struct Single {
    at: Moment,
    query: String,
    cause: Option<String>,
    upstream_message: Option<String>,
    upstream_request_id: Option<String>,
}

impl FailedRenewal<'_> {
    fn upstream_status(&self) -> Option<u16> {
        self.error.upstream_status().map(|status| status.as_u16())
    }
}

impl NewError<Common, Single> for FailedRenewal<'_> {
    fn belongs_to(&self, common: &Common) -> bool {
        self.upstream_status() == common.upstream_status
            && self.error.operator_code() == &*common.error_code
            && self.linked_account == common.linked_account.as_deref()
            && self.tenant == &*common.tenant
    }

    fn source(&self) -> impl Hash {
        (self.tenant, self.upstream_status(), self.error.operator_code())
    }

    fn common(&self) -> Common {
        Common {
            error_code: self.error.operator_code().into(),
            upstream_status: self.upstream_status(),
            tenant: self.tenant.into(),
            linked_account: self.linked_account.map(Into::into),
        }
    }

    fn single(&self) -> Single {
        Single {
            at: self.at,
            query: printable(self.query),
            cause: self.error.cause().map(|cause| {
                let mut text = String::new();
                write_cause(&mut text, &**cause);
                text
            }),
            upstream_message: self.error.upstream_message().map(printable),
            upstream_request_id: self.error.upstream_request_id().map(printable),
        }
    }
}

impl RenewalErrors {
    /// Keeps a failed renewal. Not part of the hit path.
    pub(super) fn keep(&self, failed: &FailedRenewal<'_>) {
        // No code that holds the lock can leave the list inconsistent, even if it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(failed, failed.at);
    }

    /// The groups, the one with the newest error first, with linked accounts named like this.
    pub(super) fn all(&self, now: Moment, naming: AccountNaming) -> Vec<RenewalErrorGroup> {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        joined(groups.iter().map(|group| RenewalErrorGroup::new(group, now, naming)))
    }
}

/// Renewals that failed in the same way, as the status page shows them.
#[derive(Clone, Debug, Serialize)]
pub struct RenewalErrorGroup {
    /// The code: Postern's own, or that of Refold's answer.
    pub error_code: String,
    /// The status of Refold's answers; `None` if the error is none of Refold's.
    pub upstream_status: Option<u16>,
    /// The tenant.
    pub tenant: String,
    /// The linked account, as the log names it; `None` if it is unknown or left out.
    pub linked_account: Option<String>,
    /// Their number, and the last of them.
    #[serde(flatten)]
    pub occurrences: Occurrences<RecentRenewalError>,
}

/// A renewal that failed.
#[derive(Clone, Debug, Serialize)]
pub struct RecentRenewalError {
    /// Seconds since its end.
    pub seconds_ago: f64,
    /// The canonical query.
    pub query: String,
    /// The underlying error, if the error is none of Refold's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The `message` of Refold's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_message: Option<String>,
    /// The `request_id` of Refold's answer, which its support asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_request_id: Option<String>,
}

impl RenewalErrorGroup {
    fn new(group: &Group<Common, Single>, now: Moment, naming: AccountNaming) -> Self {
        let account = group.common.linked_account.as_deref();
        let is_shown = |id: &String| naming.shows_request_id(id, account);
        let single = |error: &Single| RecentRenewalError {
            seconds_ago: now.since(error.at).as_secs_f64(),
            query: error.query.clone(),
            cause: error.cause.clone(),
            upstream_message: error.upstream_message.clone().filter(|_| naming.shows_text_of_refold()),
            upstream_request_id: error.upstream_request_id.clone().filter(is_shown),
        };
        let common = &group.common;
        Self {
            error_code: common.error_code.to_string(),
            upstream_status: common.upstream_status,
            tenant: common.tenant.to_string(),
            linked_account: account.and_then(|id| naming.name(id)).map(Into::into),
            occurrences: Occurrences::of(group, now, single),
        }
    }
}

impl ShownGroup for RenewalErrorGroup {
    fn looks_like(&self, other: &Self) -> bool {
        self.error_code == other.error_code
            && self.upstream_status == other.upstream_status
            && self.tenant == other.tenant
            && self.linked_account == other.linked_account
    }

    fn absorb(&mut self, older: Self) {
        self.occurrences.absorb(older.occurrences, |error| error.seconds_ago);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_without_control_characters_and_bounded() {
        assert_eq!(printable("a\u{1b}[31m\nb"), "a [31m b");
        assert_eq!(printable(&"ü".repeat(MAX_TEXT)), format!("{}…", "ü".repeat(MAX_TEXT / 2)));
    }
}
