//! What the executions API is: its query parameters, pages and statuses. Knows nothing of HTTP connections or callers.

mod derivation;
mod page;
mod query;
mod query_memo;
mod question;
mod status;

pub use derivation::{MOST_PAGES, Source, USUAL_LIMITS};
pub use page::{Document, NotDocumented};
pub use query::{BatchesQuery, Dialect, ListQuery, PathId, QueryError, QueryPolicy, UnknownParameters, no_parameters};
pub use query_memo::Asked;
pub use question::{COLLECTION, Question};
pub use status::Progress;
