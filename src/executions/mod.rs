//! What the executions API is: its query parameters, pages and statuses. Knows nothing of HTTP connections or callers.

mod query;

pub use query::{Dialect, QueryPolicy, UnknownParameters};
