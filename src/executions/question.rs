//! Requests for cacheable resources in canonical form, and their spelling for the upstream.

use std::fmt;

use super::query::{BatchesQuery, Dialect, ForwardedParameters, ListQuery, PathId};

/// The path of the executions collection.
pub const COLLECTION: &str = "/api/v2/public/execution";

/// A request for a cacheable resource in canonical form: all spellings of a request are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// A page of executions.
    List(ListQuery),
    /// One execution, with the parameters that are forwarded.
    Execution(PathId, ForwardedParameters),
    /// A page of the batches of an execution's node; execution and node by id.
    Batches(PathId, PathId, BatchesQuery),
}

impl Question {
    /// Path and query for an upstream that speaks `dialect`.
    #[must_use]
    pub fn upstream_target(&self, dialect: Dialect) -> String {
        let mut target = String::with_capacity(128);
        self.write_target(dialect, &mut target);
        target
    }

    /// Writes the canonical form, the same for both dialects.
    pub fn write_canonical(&self, out: &mut String) {
        self.write_target(Dialect::Documented, out);
    }

    fn write_target(&self, dialect: Dialect, out: &mut String) {
        self.write_path(out);
        match self {
            Self::List(query) => {
                out.push('?');
                query.write_upstream(dialect, out);
            }
            Self::Batches(_, _, query) => {
                out.push('?');
                query.write_upstream(out);
            }
            Self::Execution(_, forwarded) => forwarded.write_as_query(out),
        }
    }

    /// Heap memory in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        match self {
            Self::List(query) => query.heap_size(),
            Self::Execution(execution, forwarded) => execution.len() + forwarded.heap_size(),
            Self::Batches(execution, node, query) => execution.len() + node.len() + query.heap_size(),
        }
    }

    fn write_path(&self, out: &mut String) {
        out.push_str(COLLECTION);
        if let Self::Execution(execution, _) | Self::Batches(execution, ..) = self {
            out.push('/');
            execution.write_upstream(out);
        }
        if let Self::Batches(_, node, _) = self {
            out.push_str("/nodes/");
            node.write_upstream(out);
            out.push_str("/batches");
        }
    }
}

/// The canonical form, as written by [`Question::write_canonical`].
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.upstream_target(Dialect::Documented))
    }
}
