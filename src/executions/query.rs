//! Query parameters to their canonical form.

/// Which of the vendor's two specifications the upstream follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The endpoint's documentation page: dates as dates, `API Call`.
    Documented,
    /// The newer OpenAPI file: date-times, `API_CALL`.
    V3,
}

/// How query parameters are read.
#[derive(Clone, Debug)]
pub struct QueryPolicy {
    /// Largest `limit` that is accepted.
    pub max_limit: u32,
    /// What is done with a parameter that the API does not have.
    pub unknown: UnknownParameters,
    /// Names that are always dropped, such as a browser's cache buster `_`.
    pub ignored: Vec<String>,
}

/// What is done with a parameter that the API does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownParameters {
    /// 400, with the nearest known name.
    Reject,
    /// Sent on, and part of the cache key.
    Forward,
    /// Left out.
    Drop,
}
