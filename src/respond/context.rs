//! The facts about a request that its response depends on.

use crate::admit::Budgets;
use crate::cache::{CacheOutcome, Coding};
use crate::request::RequestId;
use crate::request::cors::AllowedOrigin;

/// The facts about a request that its response depends on, collected by the gateway's steps.
#[derive(Debug)]
pub struct ResponseContext {
    /// Identifies the request in headers, error bodies and logs.
    pub request_id: RequestId,
    /// True for a HEAD request, whose response has no body.
    pub head: bool,
    /// The caller's budgets: set when the caller is admitted or rejected, taken when their headers are written.
    pub budgets: Option<Budgets>,
    /// The cache's part in the response.
    pub cache: CacheOutcome,
    /// The content coding that the request prefers; set for requests of cacheable resources.
    pub coding: Option<Coding>,
    /// True if the request has an `If-None-Match`; set for requests of cacheable resources.
    pub is_conditional: bool,
    /// `None` if CORS is off, else the request's origin if that is allowed.
    pub cors: Option<Option<AllowedOrigin>>,
}
