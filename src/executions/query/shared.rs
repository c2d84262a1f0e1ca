//! Groups of parameters in canonical form that the queries are composed of.

use super::encoding::{push_encoded, push_pair, push_plain_pair};
use super::value::{ExecutionStatus, SortOrder};

/// `page`, `limit` and `status`, which every list resource has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PageAndStatus {
    pub(super) page: u64,
    pub(super) limit: u32,
    pub(super) status: Option<ExecutionStatus>,
}

/// Parameters that few queries have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RareParameters {
    pub(super) slugs: Vec<String>,
    pub(super) workflow_id: Option<String>,
    pub(super) workflow_name: Option<String>,
    pub(super) execution_id: Option<String>,
    /// `None` leaves the order to the upstream.
    pub(super) sort_order: Option<SortOrder>,
    pub(super) forwarded: ForwardedParameters,
}

/// Parameters that are unknown to the API and sent to the upstream as they are, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ForwardedParameters(Vec<(String, String)>);

impl PageAndStatus {
    pub(super) fn write(self, out: &mut String) {
        push_plain_pair(out, "page", itoa::Buffer::new().format(self.page));
        push_plain_pair(out, "limit", itoa::Buffer::new().format(self.limit));
        if let Some(status) = self.status {
            push_plain_pair(out, "status", status.spelling());
        }
    }
}

impl RareParameters {
    pub(super) fn heap_size(&self) -> usize {
        let single = [&self.workflow_id, &self.workflow_name, &self.execution_id];
        self.slugs.iter().chain(single.into_iter().flatten()).map(string_size).sum::<usize>()
            + self.forwarded.heap_size()
    }

    pub(super) fn write(&self, out: &mut String) {
        for (index, slug) in self.slugs.iter().enumerate() {
            out.push_str(if index == 0 { "&slug=" } else { "," });
            push_encoded(out, slug);
        }
        for (name, value) in [
            ("workflow_id", &self.workflow_id),
            ("workflow_name", &self.workflow_name),
            ("execution_id", &self.execution_id),
        ] {
            if let Some(value) = value {
                push_pair(out, name, value);
            }
        }
        if let Some(order) = self.sort_order {
            push_plain_pair(out, "sortAsc", order.spelling());
        }
        self.forwarded.write(out);
    }
}

impl ForwardedParameters {
    pub(super) fn new(mut pairs: Vec<(String, String)>) -> Self {
        pairs.sort_unstable();
        // Cache keys hold them for long.
        pairs.shrink_to_fit();
        Self(pairs)
    }

    /// Appends `?` and the parameters to a target that has no query; nothing if there are none.
    pub fn write_as_query(&self, target: &mut String) {
        if !self.is_empty() {
            target.push('?');
            self.write(target);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Heap memory in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.0.iter().map(|(name, value)| string_size(name) + string_size(value)).sum()
    }

    /// Appends the parameters to a query.
    pub(super) fn write(&self, out: &mut String) {
        for (name, value) in &self.0 {
            if !(out.is_empty() || out.ends_with('?')) {
                out.push('&');
            }
            push_encoded(out, name);
            out.push('=');
            push_encoded(out, value);
        }
    }
}

/// Memory of a string on the heap, including about 16 bytes of the allocator's.
fn string_size(text: &String) -> usize {
    size_of::<String>() + text.capacity() + 16
}
