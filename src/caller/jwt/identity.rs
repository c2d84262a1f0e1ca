//! The holder of a verified token, and the linked accounts that the token is for.

use std::sync::Arc;

use crate::caller::key_usage::OutcomeCounters;
use crate::caller::linked_account;
use crate::caller::tenants::TenantIndex;
use crate::clock::{Clock, Moment};
use crate::config::Access;
use crate::error::{ClientError, Reason};
use crate::request::headers::RequestHeaders;

/// The position of an issuer in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerIndex(pub(super) usize);

impl IssuerIndex {
    /// The position, from 0.
    pub(in crate::caller) fn position(self) -> usize {
        self.0
    }
}

/// The claims of a verified token that Postern uses.
#[derive(Debug)]
pub struct Identity {
    pub(super) tenant: TenantIndex,
    pub(super) linked_accounts: Vec<Box<str>>,
    pub(super) access: Access,
    /// The claim `sub`, for logs.
    pub(super) subject: Box<str>,
    pub(super) issuer: IssuerIndex,
    pub(super) issuer_name: Arc<str>,
    /// The counters of the issuer and the tenant. Each token has its own handles, so tokens share no look-up.
    pub(super) counters: OutcomeCounters,
    /// The generation of the issuer's keys in which the token was verified.
    pub(super) key_generation: u64,
    pub(super) validity: Validity,
}

/// The end of a token's validity by both clocks. The token has expired when either one gets there: the wall clock can be set
/// back, and monotonic time knows nothing of a wall clock that is set forward.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validity {
    /// By monotonic time.
    pub(super) moment: Moment,
    /// By the wall clock, in seconds since 1970.
    pub(super) second: i64,
}

impl Validity {
    /// Returns whether either clock has reached the end.
    pub(super) fn is_over(&self, clock: &Clock, now: Moment) -> bool {
        now >= self.moment || clock.wall().as_second() >= self.second
    }
}

impl Identity {
    /// The tenant that the token is for.
    pub(in crate::caller) fn tenant(&self) -> TenantIndex {
        self.tenant
    }

    /// The issuer that signed the token.
    pub(in crate::caller) fn issuer(&self) -> IssuerIndex {
        self.issuer
    }

    /// The metrics' counters of the token's issuer, and its name.
    pub(in crate::caller) fn counters(&self) -> (&OutcomeCounters, &str) {
        (&self.counters, &self.issuer_name)
    }

    /// The linked accounts that the token names.
    #[must_use]
    pub fn linked_accounts(&self) -> &[Box<str>] {
        &self.linked_accounts
    }

    /// The operations that the token allows.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The claim `sub`; empty if the token has none.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the linked account of a request. If the request names a linked account, the token must name the same one. If
    /// the request names none, the token must name exactly one.
    ///
    /// # Errors
    /// 400 if the request names no linked account and the token names several; 403 if the token does not name the request's
    /// linked account, or names none.
    pub(in crate::caller) fn linked_account<'a>(&'a self, fields: &RequestHeaders<'a>) -> Result<&'a str, ClientError> {
        match (linked_account::optional(fields)?, self.linked_accounts.as_slice()) {
            (Some(named), granted) if granted.iter().any(|granted| **granted == *named) => Ok(named),
            (Some(_), [_, ..]) => Err(not_allowed("this token is not for that linked account")),
            (None, [only]) => Ok(only),
            (None, [_, _, ..]) => Err(ClientError::no_linked_account()),
            (_, []) => Err(not_allowed("this token is for no linked account")),
        }
    }
}

fn not_allowed(message: &'static str) -> ClientError {
    ClientError::new(Reason::LinkedAccountNotAllowed, message)
}
