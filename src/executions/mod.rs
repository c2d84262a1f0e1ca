//! The executions API: its query parameters, pages and statuses, and the answers that can be derived from others. Pure: no
//! HTTP, no clock, no callers.

mod derivation;
mod derivation_kind;
mod json_scanner;
mod page;
mod query;
mod query_memo;
mod question;
mod status;

pub use derivation::{DerivationSource, DerivedPage, MAX_PAGES_OF_A_LIST, USUAL_LIMITS};
pub use derivation_kind::{DerivationKind, DerivationKinds};
pub use page::{NotDocumented, ValidatedBody};
pub use query::{
    BatchesQuery, Dialect, ForwardedParameters, ListQuery, PathId, QueryError, QueryPolicy, UnknownParameters,
};
pub use query_memo::{ParsedQuestion, QueryMemo};
pub use question::{COLLECTION, Question};
pub use status::Progress;
