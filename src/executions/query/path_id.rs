//! An id in a path: one segment, decoded, that can't become two or climb.

use super::QueryError;
use super::encoding::{decode_percent, push_encoded};

/// Longest id that is accepted, in bytes.
const MAX_LENGTH: usize = 256;

/// The id of an execution or a node. Made by [`PathId::parse`] alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathId(Box<str>);

impl PathId {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads a path segment as it stands in the request target.
    ///
    /// # Errors
    /// If it is empty, too long, broken, or anything that a server could take for more than one segment.
    pub fn parse(segment: &str) -> Result<Self, QueryError> {
        let id = decode_percent(segment).ok_or_else(|| QueryError::malformed_value("id", segment))?;
        let misleading = |letter: char| letter == '/' || letter == '\\' || letter.is_control();
        if id.is_empty() || id.len() > MAX_LENGTH || matches!(&*id, "." | "..") || id.contains(misleading) {
            let accepted = format!("one path segment of 1 to {MAX_LENGTH} bytes");
            return Err(QueryError::invalid("id", &id, accepted, None));
        }
        Ok(Self(id.into()))
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes it as a path segment.
    pub fn write_upstream(&self, out: &mut String) {
        push_encoded(out, &self.0);
    }
}
