//! Ids in paths: one decoded segment, which no server can read as several or as `..`.

use super::encoding::{decode_percent, push_encoded};
use super::error::QueryError;

/// Length of the longest accepted id, in bytes.
const MAX_LENGTH: usize = 256;

/// The id of an execution or a node. Only made by [`PathId::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathId(Box<str>);

impl PathId {
    /// Length of the decoded id in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Parses a path segment of a request target.
    ///
    /// # Errors
    /// If the segment is empty, too long, malformed, or could be read as more than one segment.
    pub fn parse(segment: &str) -> Result<Self, QueryError> {
        let id = decode_percent(segment).ok_or_else(|| QueryError::malformed_value("id", segment))?;
        let misleading = |letter: char| letter == '/' || letter == '\\' || letter.is_control();
        if id.is_empty() || id.len() > MAX_LENGTH || matches!(&*id, "." | "..") || id.contains(misleading) {
            let accepted = format!("one path segment of 1 to {MAX_LENGTH} bytes");
            return Err(QueryError::invalid("id", &id, accepted, None));
        }
        Ok(Self(id.into()))
    }

    /// The decoded id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes the id as an encoded path segment.
    pub fn write_upstream(&self, out: &mut String) {
        push_encoded(out, &self.0);
    }
}
