//! What is kept in memory for each Refold org: its linked accounts and session tokens, and its budgets.
//!
//! A [`Partition`] is the unit of trust: everything cached belongs to exactly one, and its id is never used again. So two
//! partitions can't meet whatever a caller sends, and dropping all that is cached for a linked account is giving its
//! partition a new id.

mod accounts;
mod list_size;
mod number;
mod org_keys;
mod partition;
mod status;
mod succession;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use moka::sync::Cache;

use self::accounts::Accounts;
pub use self::list_size::{ListSize, WHOLE_PAGE};
pub use self::org_keys::{OrgKey, OrgKeys};
use self::partition::{Epoch, Holder};
pub use self::partition::{OnProbation, Partition, PartitionId, Standing};
pub use self::status::{BudgetState, Busy, TenantStatus};
pub use self::succession::shares_org_key;
use crate::clock::{Clock, Moment};
use crate::config;
use crate::limit::{ClientBudget, Spent, UpstreamBudget};

/// How long a session token's acceptance by the upstream is believed.
const ACCEPTED_FOR: Duration = Duration::from_mins(1);
/// How long a session token's refusal by the upstream is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Session tokens that may be waiting for the upstream's verdict at once.
const MAX_UNPROVEN: u64 = 1024;

/// SHA-256 of a session token.
pub type TokenDigest = [u8; 32];

/// A Refold org while the gateway runs.
#[derive(Debug)]
pub struct Tenant {
    /// What the operator decided.
    pub config: Arc<config::Tenant>,
    /// The org key's budget at the upstream.
    pub upstream_budget: UpstreamBudget,
    /// What session tokens that the upstream has not accepted yet may spend, all of them together.
    pub probation: Arc<ClientBudget>,
    number: usize,
    org_keys: OrgKeys,
    /// Until when a refusal of the org key counts, in nanoseconds on the clock; 0 if Refold has taken it since.
    credential_refused_until: AtomicU64,
    rate_limit_policy: HeaderValue,
    clock: Clock,
    account_epoch: Arc<Epoch>,
    token_epoch: Arc<Epoch>,
    accounts: Arc<Accounts>,
    accepted_tokens: Tokens,
    unproven_tokens: Tokens,
}

type Tokens = Cache<TokenDigest, Arc<Partition>, foldhash::fast::RandomState>;

impl Tenant {
    /// A tenant of whom nothing is known yet.
    #[must_use]
    pub fn new(config: Arc<config::Tenant>, clock: Clock) -> Self {
        Self {
            upstream_budget: UpstreamBudget::new(config.limits.upstream, clock.clone()),
            // Made-up tokens may take a quarter of the org key's budget and no more.
            probation: Arc::new(ClientBudget::new(quarter(config.limits.upstream.rate()))),
            account_epoch: Arc::new(Epoch::new()),
            token_epoch: Arc::new(Epoch::new()),
            accounts: Arc::new(Accounts::new(count(config.limits.client.max_partitions))),
            accepted_tokens: tokens(config.limits.client.max_partitions),
            unproven_tokens: tokens(MAX_UNPROVEN),
            number: number::number(&config.id),
            org_keys: OrgKeys::new(&config),
            credential_refused_until: AtomicU64::new(0),
            rate_limit_policy: policy(config.limits.client.rate()),
            config,
            clock,
        }
    }

    /// A small number that no tenant of another id has, and every one of the same id.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Linked accounts and session tokens that are remembered, about.
    #[must_use]
    pub fn partitions(&self) -> u64 {
        self.accounts.len() as u64 + self.accepted_tokens.entry_count() + self.unproven_tokens.entry_count()
    }

    /// Its org API keys.
    #[must_use]
    pub fn org_keys(&self) -> &OrgKeys {
        &self.org_keys
    }

    /// `RateLimit-Policy` for its callers (draft-ietf-httpapi-ratelimit-headers-11, section 3).
    #[must_use]
    pub fn rate_limit_policy(&self) -> &HeaderValue {
        &self.rate_limit_policy
    }

    /// The partition of a linked account. Call it for an authenticated caller only: it remembers the account.
    #[must_use]
    pub fn linked_account(&self, id: &str, now: Moment) -> Arc<Partition> {
        self.accounts.get(id, now, |id| Partition::new(Holder::LinkedAccount(id), self.config.limits.client.rate()))
    }

    /// Takes one request off a partition's budget, if it is there. Part of the hit path.
    #[must_use]
    pub fn spend(&self, partition: &Partition, now: Moment) -> Spent {
        partition.spend(self.config.limits.client.rate(), now)
    }

    /// Drops everything that is cached for a partition. A linked account may have been forgotten and found again since a
    /// request began: what it is now is dropped as well.
    pub fn drop_entries(&self, partition: &Partition) {
        partition.drop_entries();
        match partition.linked_account_id() {
            Some(id) => self.drop_entries_of(id),
            // It may be any account's.
            None => self.drop_all_entries(),
        }
    }

    /// Drops everything that is cached for a linked account, and for all session tokens: one of them may be that
    /// account's, and only Refold knows.
    pub fn drop_entries_of(&self, linked_account: &str) {
        if let Some(partition) = self.accounts.find(linked_account) {
            partition.drop_entries();
        }
        self.token_epoch.end();
    }

    /// Drops everything that is cached for this tenant, in O(1).
    pub fn drop_all_entries(&self) {
        self.account_epoch.end();
        self.token_epoch.end();
    }

    /// What entries of a partition are found under now: its id, and the epoch that it shares with others of its kind.
    #[must_use]
    pub fn cache_scope(&self, partition: &Partition) -> (PartitionId, u64) {
        let epoch = match &partition.holder {
            Holder::LinkedAccount(_) => self.account_epoch.now(),
            Holder::SessionToken { .. } => self.token_epoch.now(),
        };
        (partition.id(), epoch)
    }

    /// The partition of a session token, accepted or not.
    #[must_use]
    pub fn session_token(&self, digest: &TokenDigest) -> Arc<Partition> {
        match self.accepted_tokens.get(digest) {
            Some(partition) => partition,
            None => self.unproven_tokens.get_with(*digest, || {
                Arc::new(Partition::new(Holder::unproven_token(), self.config.limits.client.rate()))
            }),
        }
    }

    /// Whether the upstream has accepted this token lately.
    #[must_use]
    pub fn has_accepted(&self, digest: &TokenDigest) -> bool {
        self.accepted_tokens.contains_key(digest)
    }

    /// The upstream has accepted this token, so for a while it counts as a caller of its own.
    pub fn accept_token(&self, digest: TokenDigest, partition: &Arc<Partition>) {
        if let Holder::SessionToken { accepted, refused_until } = &partition.holder {
            refused_until.store(0, Ordering::Release);
            // Each acceptance counts from its own time, so a token that is in use is not put on probation again.
            self.accepted_tokens.insert(digest, Arc::clone(partition));
            if !accepted.swap(true, Ordering::AcqRel) {
                self.unproven_tokens.invalidate(&digest);
            }
        }
    }

    /// The upstream has refused this token: whatever was cached for it is gone, and it is not asked about for a while.
    pub fn refuse_token(&self, digest: TokenDigest, partition: &Arc<Partition>) {
        if let Holder::SessionToken { accepted, refused_until } = &partition.holder {
            refused_until.store((self.clock.now() + REFUSED_FOR).as_nanos(), Ordering::Release);
            partition.drop_entries();
            if accepted.swap(false, Ordering::AcqRel) {
                self.unproven_tokens.insert(digest, Arc::clone(partition));
                self.accepted_tokens.invalidate(&digest);
            }
        }
    }
}

/// No token, and room for so many.
fn tokens(most: u64) -> Tokens {
    Cache::builder()
        .max_capacity(most)
        .time_to_live(ACCEPTED_FOR)
        .build_with_hasher(foldhash::fast::RandomState::default())
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A quota and the whole seconds in which all of it comes back.
fn policy(rate: config::Rate) -> HeaderValue {
    let (per_second, burst) = (rate.per_second.get(), rate.burst.get());
    let text = match burst.div_ceil(per_second) {
        // A burst of less than a second: what a second grants says more.
        1 => format!("\"default\";q={};w=1", per_second.max(burst)),
        window => format!("\"default\";q={burst};w={window}"),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

fn quarter(rate: config::Rate) -> config::Rate {
    let quarter = |n: std::num::NonZeroU32| n.saturating_add(3).get() / 4;
    let at_least_one = |n| std::num::NonZeroU32::new(n).unwrap_or(std::num::NonZeroU32::MIN);
    config::Rate { per_second: at_least_one(quarter(rate.per_second)), burst: at_least_one(quarter(rate.burst)) }
}
