//! The cache key: whose answer to which question.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use crate::caller::Caller;
use crate::executions::Question;
use crate::tenant::PartitionId;

/// Whose answer to which question. It can only be made from a [`Caller`], and holds the caller's partition as it was at
/// that moment: entries that were dropped since can't be found with a newer key, nor brought back with this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKey {
    /// Made once: a key is looked for more than once in its life. First, so that it is what is compared first.
    hash: u64,
    scope: (PartitionId, u64),
    question: Question,
}

impl CacheKey {
    /// The key of this caller's answer to this question.
    #[must_use]
    pub fn new(caller: &Caller, question: Question) -> Self {
        Self::of(caller.tenant().cache_scope(caller.partition()), question)
    }

    /// The key of the same caller's answer to another question, at the moment at which this key was made.
    #[must_use]
    pub fn with_question(&self, question: Question) -> Self {
        Self::of(self.scope, question)
    }

    fn of(scope: (PartitionId, u64), question: Question) -> Self {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        Self { hash: SEED.hash_one((scope, &question)), scope, question }
    }

    /// What it takes on the heap, in bytes.
    #[must_use]
    pub fn heap_size(&self) -> u32 {
        u32::try_from(self.question.heap_size()).unwrap_or(u32::MAX)
    }

    /// The question.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }
}

#[cfg(test)]
impl CacheKey {
    /// The key of some linked account's answer; the account is the same each time.
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
