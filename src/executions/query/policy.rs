//! The configurable part of parsing a query.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Handling of query parameters; the table `[query]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryPolicy {
    /// Largest `limit` that is accepted. A larger one is refused, not clamped: clamping would shift the pages.
    #[schemars(range(min = 1, max = 4_294_967_295_u32))]
    pub max_limit: u32,
    /// Handling of a parameter that the API does not have.
    #[serde(rename = "unknown_parameters")]
    pub unknown: UnknownParameters,
    /// Parameters that are always dropped, such as a browser's cache buster `_`.
    #[serde(rename = "ignored_parameters")]
    pub ignored: Vec<String>,
}

impl Default for QueryPolicy {
    fn default() -> Self {
        Self { max_limit: 100, unknown: UnknownParameters::Reject, ignored: vec!["_".to_owned()] }
    }
}

/// Handling of a parameter that the API does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownParameters {
    /// Answer 400 and suggest the nearest known name.
    Reject,
    /// Send them to the upstream and include them in the cache key.
    Forward,
    /// Leave them out.
    Drop,
}
