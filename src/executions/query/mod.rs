//! Parses query parameters to a canonical form: every spelling of a question becomes the same value, so all of them share
//! one upstream request and one cache entry.
//!
//! Part of the hit path: the common parameters are enums and integers on the stack, the rare ones stand behind one box.

mod batches;
mod date;
mod dialect;
mod encoding;
mod error;
mod filters;
mod given;
mod list;
mod parameter;
mod path_id;
mod policy;
mod shared;
mod value;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use self::batches::BatchesQuery;
pub use self::dialect::Dialect;
pub use self::error::QueryError;
pub(super) use self::filters::{FilterFields, FilterResult};
pub use self::list::ListQuery;
pub use self::path_id::PathId;
pub use self::policy::{QueryPolicy, UnknownParameters};
pub use self::shared::ForwardedParameters;
