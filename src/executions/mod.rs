//! What the executions API is: its query parameters, pages and statuses. Knows nothing of HTTP connections or callers.

mod derivation;
mod page;
mod query;
mod question;
mod recent;
mod status;

pub use derivation::{MOST_PAGES, Source, USUAL_LIMITS};
pub use page::{Document, NotDocumented};
pub use query::{BatchesQuery, Dialect, ListQuery, PathId, QueryError, QueryPolicy, UnknownParameters, no_parameters};
pub use question::{COLLECTION, Question};
pub use recent::Asked;
pub use status::Progress;
