//! Answers that need no upstream: stored entries and CORS preflights.

use std::borrow::Cow;
use std::sync::Arc;

use http::Response;
use http::request::Parts;

use super::context::RequestContext;
use crate::cache::{Entry, RenewalClaim};
use crate::clock::Moment;
use crate::error::ClientError;
use crate::request::cors;
use crate::respond::{self, Body};

/// An answer that needs no upstream.
pub(super) enum Answer {
    /// A stored entry.
    Hit(Arc<Entry>),
    /// A stale entry, whose renewal in the background this request has claimed.
    Renew(Arc<Entry>, RenewalClaim),
    /// A CORS preflight for a resource with these methods.
    Preflight(Cow<'static, str>),
}

/// Builds the response from a stored entry: 200, or 304 if the request's `If-None-Match` matches. Part of the hit path.
pub(super) fn serve(head: &Parts, context: &mut RequestContext, entry: &Entry, now: Moment) -> Response<Body> {
    context.age = Some(entry.age(now));
    respond::entry(&mut context.response, &head.headers, entry, now)
}

/// The answer to `OPTIONS` on a resource with these methods. Only requests from an origin in `[cors]` get one.
///
/// # Errors
/// 405 for every other request.
pub(super) fn preflight(
    head: &Parts,
    context: &RequestContext,
    methods: Cow<'static, str>,
) -> Result<Answer, ClientError> {
    if matches!(context.response.cors, Some(Some(_))) && cors::is_preflight(&head.headers) {
        return Ok(Answer::Preflight(methods));
    }
    Err(ClientError::method_not_allowed(methods))
}
