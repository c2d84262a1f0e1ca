//! What is kept in memory for each Refold org: its linked accounts and session tokens, and its budgets.
//!
//! A [`Partition`] is the unit of trust: everything cached belongs to exactly one, and its id is never used again. So two
//! partitions can't meet whatever a caller sends, and dropping all that is cached for a linked account is giving its
//! partition a new id.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use moka::sync::Cache;

use crate::clock::{Clock, Moment};
use crate::config::{self, Secret};
use crate::limit::{ClientBudget, UpstreamBudget};

/// How long a session token's acceptance by the upstream is believed.
const ACCEPTED_FOR: Duration = Duration::from_mins(1);
/// How long a session token's refusal by the upstream is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Session tokens that may be waiting for the upstream's verdict at once.
const MAX_UNPROVEN: u64 = 1024;
/// A linked account that nobody has asked for is forgotten after this time.
const IDLE: Duration = Duration::from_mins(15);

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
    pub probation: ClientBudget,
    org_key_header: HeaderValue,
    rate_limit_policy: HeaderValue,
    clock: Clock,
    accounts: Cache<Box<str>, Arc<Partition>, foldhash::fast::RandomState>,
    accepted_tokens: Cache<TokenDigest, Arc<Partition>, foldhash::fast::RandomState>,
    unproven_tokens: Cache<TokenDigest, Arc<Partition>, foldhash::fast::RandomState>,
}

impl Tenant {
    /// A tenant of whom nothing is known yet.
    #[must_use]
    pub fn new(config: Arc<config::Tenant>, clock: Clock) -> Self {
        let remembered = config.max_partitions;
        Self {
            upstream_budget: UpstreamBudget::new(config.upstream_budget, clock.clone()),
            // Made-up tokens may take a quarter of the org key's budget and no more.
            probation: ClientBudget::new(quarter(config.upstream_budget.rate), clock.clone()),
            accounts: Cache::builder()
                .max_capacity(remembered)
                .time_to_idle(IDLE)
                .build_with_hasher(foldhash::fast::RandomState::default()),
            accepted_tokens: Cache::builder()
                .max_capacity(remembered)
                .time_to_live(ACCEPTED_FOR)
                .build_with_hasher(foldhash::fast::RandomState::default()),
            unproven_tokens: Cache::builder()
                .max_capacity(MAX_UNPROVEN)
                .time_to_live(ACCEPTED_FOR)
                .build_with_hasher(foldhash::fast::RandomState::default()),
            org_key_header: sensitive(&config.org_key),
            rate_limit_policy: policy(config.client_budget),
            config,
            clock,
        }
    }

    /// The org key as it goes upstream; marked as sensitive.
    #[must_use]
    pub fn org_key_header(&self) -> &HeaderValue {
        &self.org_key_header
    }

    /// `RateLimit-Policy` for its callers (draft-ietf-httpapi-ratelimit-headers-11, section 3).
    #[must_use]
    pub fn rate_limit_policy(&self) -> &HeaderValue {
        &self.rate_limit_policy
    }

    /// The partition of a linked account. Call it for an authenticated caller only: it remembers the account.
    #[must_use]
    pub fn linked_account(&self, id: &str) -> Arc<Partition> {
        match self.accounts.get(id) {
            Some(partition) => partition,
            None => self.accounts.get_with(id.into(), || {
                Arc::new(Partition::new(
                    Holder::LinkedAccount(id.into()),
                    self.config.client_budget,
                    self.clock.clone(),
                ))
            }),
        }
    }

    /// The partition of a session token, accepted or not.
    #[must_use]
    pub fn session_token(&self, digest: &TokenDigest) -> Arc<Partition> {
        match self.accepted_tokens.get(digest) {
            Some(partition) => partition,
            None => self.unproven_tokens.get_with(*digest, || {
                let holder =
                    Holder::SessionToken { accepted: AtomicBool::new(false), refused_until: AtomicU64::new(0) };
                Arc::new(Partition::new(holder, self.config.client_budget, self.clock.clone()))
            }),
        }
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

/// The configuration has made sure that an org key can be a header value.
fn sensitive(key: &Secret) -> HeaderValue {
    let mut value = HeaderValue::from_str(key.expose()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
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

/// A linked account or a session token of one tenant: whose answers are nobody else's.
#[derive(Debug)]
pub struct Partition {
    id: AtomicU64,
    holder: Holder,
    /// What it may ask.
    pub budget: ClientBudget,
}

#[derive(Debug)]
enum Holder {
    LinkedAccount(Box<str>),
    SessionToken { accepted: AtomicBool, refused_until: AtomicU64 },
}

/// Names a partition between two drops of its entries. No other partition has, had or will have the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionId(u64);

impl PartitionId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Partition {
    fn new(holder: Holder, rate: config::Rate, clock: Clock) -> Self {
        Self { id: AtomicU64::new(PartitionId::next().0), holder, budget: ClientBudget::new(rate, clock) }
    }

    /// Its present id.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        PartitionId(self.id.load(Ordering::Acquire))
    }

    /// Drops everything cached for it, in O(1): what was stored under the id until now, or will be by a fetch that is
    /// already under way, is never looked at again.
    pub fn drop_entries(&self) {
        self.id.store(PartitionId::next().0, Ordering::Release);
    }

    /// The linked account, unless this is a session token, which does not show it.
    #[must_use]
    pub fn linked_account_id(&self) -> Option<&str> {
        match &self.holder {
            Holder::LinkedAccount(id) => Some(id),
            Holder::SessionToken { .. } => None,
        }
    }

    /// What is known of who holds it.
    #[must_use]
    pub fn standing(&self, now: Moment) -> Standing {
        match &self.holder {
            Holder::LinkedAccount(_) => Standing::Known,
            Holder::SessionToken { refused_until, .. } if now.as_nanos() < refused_until.load(Ordering::Acquire) => {
                Standing::Refused
            }
            Holder::SessionToken { accepted, .. } if accepted.load(Ordering::Acquire) => Standing::Known,
            Holder::SessionToken { .. } => Standing::Unproven,
        }
    }
}

/// Whether the holder of a partition is known to be who it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Verified here, or accepted by the upstream a short time ago.
    Known,
    /// A session token that the upstream has not seen yet.
    Unproven,
    /// A session token that the upstream refused a moment ago.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_gets_an_id_that_nobody_had_when_its_entries_are_dropped() {
        let rate = crate::config::Rate { per_second: std::num::NonZeroU32::MIN, burst: std::num::NonZeroU32::MIN };
        let partition = |id: &str| {
            Partition::new(Holder::LinkedAccount(id.into()), rate, Clock::manual(jiff::Timestamp::UNIX_EPOCH))
        };
        let (one, other) = (partition("a"), partition("a"));
        let mut seen = vec![one.id(), other.id()];
        one.drop_entries();
        other.drop_entries();
        seen.extend([one.id(), other.id()]);
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
    }
}
