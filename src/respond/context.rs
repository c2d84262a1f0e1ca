//! The facts about a request that its response depends on.

use http::HeaderValue;

use crate::cache::{CacheOutcome, Coding};
use crate::limit::BudgetUse;
use crate::request::RequestId;
use crate::request::cors::AllowedOrigin;

/// The admission by a client budget, and the value of `RateLimit-Policy` for that budget.
pub type Budget = (BudgetUse, HeaderValue);

/// The facts about a request that its response depends on, collected by the gateway's steps.
#[derive(Debug)]
pub struct ResponseContext {
    /// Identifies the request in headers, error bodies and logs.
    pub request_id: RequestId,
    /// True for a HEAD request, whose response has no body.
    pub head: bool,
    /// The caller's budget: set when the caller is admitted or rejected, taken when its headers are written.
    pub budget: Option<Budget>,
    /// The cache's part in the response.
    pub cache: CacheOutcome,
    /// The content coding that the request prefers; set for requests of cacheable resources.
    pub coding: Option<Coding>,
    /// True if the request has an `If-None-Match`; set for requests of cacheable resources.
    pub is_conditional: bool,
    /// `None` if CORS is off, else the request's origin if that is allowed.
    pub cors: Option<Option<AllowedOrigin>>,
}
