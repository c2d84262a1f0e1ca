//! The cache key: a partition and a canonical question.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use crate::caller::Caller;
use crate::executions::Question;
use crate::tenant::PartitionId;

/// Identifies an entry by its partition and question. Only made from a [`Caller`], so that a request can't reach another
/// partition's entries.
///
/// The key contains the partition's id at the time it is made. Dropping a partition's entries changes that id, so dropped
/// entries are not found with a newer key, and a fetch that began before the drop can't bring them back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    /// Computed once, since each request hashes its key several times. The first field, so that it is compared first.
    hash: u64,
    /// The partition, and the epoch that it shares with the tenant's other partitions of its kind.
    scope: (PartitionId, u64),
    question: Question,
}

impl CacheKey {
    /// The key of a question in the caller's partition.
    #[must_use]
    pub fn new(caller: &Caller, question: Question) -> Self {
        Self::of(caller.tenant().cache_scope(caller.partition()), question)
    }

    /// The key of another question in the same partition, with the same partition id.
    #[must_use]
    pub fn with_question(&self, question: Question) -> Self {
        Self::of(self.scope, question)
    }

    fn of(scope: (PartitionId, u64), question: Question) -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Self { hash: SEED.hash_one((scope, &question)), scope, question }
    }

    /// Returns whether the caller's keys still have the same partition id: nothing was dropped since this one was made.
    #[must_use]
    pub fn is_present(&self, caller: &Caller) -> bool {
        self.scope == caller.tenant().cache_scope(caller.partition())
    }

    /// Heap memory of the key in bytes.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.question.heap_size()
    }

    /// The question that the key was made for.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }
}

#[cfg(test)]
impl CacheKey {
    /// The key of a question in the partition of a linked account, the same account for every call.
    pub(super) fn of_one_account(question: Question) -> Self {
        static SCOPE: LazyLock<(PartitionId, u64)> = LazyLock::new(|| {
            let mut environment = crate::config::Environment::default();
            environment.insert("ORG_KEY", "tk_org");
            let text = "[[tenants]]\nid = \"t\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
            let config = crate::config::Config::parse(text, std::path::Path::new("test.toml"), &environment);
            let tenant = std::sync::Arc::clone(&config.expect("a valid configuration").tenants[0]);
            let clock = crate::clock::Clock::manual(jiff::Timestamp::UNIX_EPOCH);
            let tenant = crate::tenant::Tenant::new(tenant, clock.clone());
            tenant.cache_scope(&tenant.linked_account("a", clock.now()))
        });
        Self::of(*SCOPE, question)
    }
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}
