//! The configurable part of parsing a query.

/// Settings for parsing query parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryPolicy {
    /// Largest accepted `limit`.
    pub max_limit: u32,
    /// Treatment of parameters that the API does not have.
    pub unknown: UnknownParameters,
    /// Names that are always dropped, such as a browser's cache buster `_`.
    pub ignored: Vec<String>,
}

/// Treatment of parameters that the API does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownParameters {
    /// Answer 400 and suggest the nearest known name.
    Reject,
    /// Send them to the upstream and include them in the cache key.
    Forward,
    /// Leave them out.
    Drop,
}
