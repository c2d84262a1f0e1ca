//! The query of the batches of an execution's node.

use std::fmt;

use super::error::QueryError;
use super::given::GivenParameters;
use super::parameter::Parameter;
use super::policy::QueryPolicy;
use super::shared::{ForwardedParameters, PageAndStatus};

/// The query of `GET /api/v2/public/execution/{execution_id}/nodes/{node_id}/batches` in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchesQuery {
    page_and_status: PageAndStatus,
    forwarded: ForwardedParameters,
}

impl BatchesQuery {
    /// Parses the query of a request target, without its `?`.
    ///
    /// # Errors
    /// For a parameter that is unknown, invalid, or given twice with different values.
    pub fn parse(raw: Option<&str>, policy: &QueryPolicy) -> Result<Self, QueryError> {
        let given = GivenParameters::parse(raw, Parameter::OF_BATCHES, policy)?;
        Ok(Self { page_and_status: given.page_and_status(), forwarded: given.into_forwarded() })
    }

    /// Heap memory in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.forwarded.heap_size()
    }

    /// The requested page, from 1.
    #[must_use]
    pub fn page(&self) -> u64 {
        self.page_and_status.page
    }

    /// Batches per page.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.page_and_status.limit
    }

    /// Writes the query string for the upstream, without `?`, always in the same order. Both dialects spell it alike.
    pub fn write_upstream(&self, out: &mut String) {
        self.page_and_status.write(out);
        self.forwarded.write(out);
    }
}

/// The canonical form, as for [`super::ListQuery`].
impl fmt::Display for BatchesQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write_upstream(&mut out);
        f.write_str(&out)
    }
}
