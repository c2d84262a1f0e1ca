//! A request that has to wait: for an issuer's keys, for the fleet's server or for Refold.

use http::request::Parts;

use super::context::{ConnectionContext, RequestContext};
use super::normalise::UpstreamOp;
use crate::caller::IssuerIndex;
use crate::limit::{BudgetQuestion, Policy};
use crate::request::body::CallerBody;

/// A request that [`Gateway::handle`](super::Gateway::handle) could not answer without waiting.
pub struct Unfinished {
    pub(super) connection: ConnectionContext,
    pub(super) head: Parts,
    pub(super) context: RequestContext,
    pub(super) wait: Wait,
    pub(super) body: CallerBody,
}

/// The obstacle that a request waits for.
pub(super) enum Wait {
    /// The keys of an issuer, which are needed to verify the JWT.
    Issuer(IssuerIndex),
    /// The decision of the fleet's server about a budget of the caller.
    Budget(Policy, BudgetQuestion),
    Upstream(UpstreamOp),
}

impl Unfinished {
    /// Boxed: it is large, and a hit must not make room for it on the stack.
    #[inline(never)]
    pub(super) fn boxed(
        connection: &ConnectionContext,
        head: Parts,
        context: RequestContext,
        wait: Wait,
        body: CallerBody,
    ) -> Box<Self> {
        Box::new(Self { connection: connection.clone(), head, context, wait, body })
    }

    /// The number of the request's header fields.
    #[must_use]
    pub fn header_fields(&self) -> usize {
        self.head.headers.len()
    }
}
