//! The cache key: whose answer to which question.

use crate::caller::Caller;
use crate::executions::Question;
use crate::tenant::PartitionId;

/// Whose answer to which question. It can only be made from a [`Caller`], and holds the caller's partition as it was at
/// that moment: entries that were dropped since can't be found with a newer key, nor brought back with this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    partition: PartitionId,
    question: Question,
}

impl CacheKey {
    /// The key of this caller's answer to this question.
    #[must_use]
    pub fn new(caller: &Caller, question: Question) -> Self {
        Self { partition: caller.partition().id(), question }
    }

    /// The question.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }
}
