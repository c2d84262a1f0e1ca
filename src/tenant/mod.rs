//! The state of each Refold org while the gateway runs: its linked accounts, session tokens, org keys and budgets.
//!
//! A [`Partition`] is the unit of isolation: every cached entry belongs to exactly one, and partition ids are never reused. So
//! no request reads the entries of another partition, and dropping the entries of a linked account means giving its
//! partition a new id.

mod accounts;
mod budgets;
mod checks;
mod comparison_limit;
mod fleet_tenant;
mod in_fleet;
mod interned_id;
mod key_checks;
mod key_forms;
mod list_size;
mod org_keys;
mod partition;
mod policies;
mod reload;
mod session_tokens;
mod signature_check;
mod status;
mod token_table;
mod trust;
mod verification;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use self::accounts::Accounts;
pub use self::budgets::share_budgets;
pub use self::checks::QuestionId;
pub use self::comparison_limit::ComparisonPermit;
use self::fleet_tenant::FleetTenant;
pub use self::in_fleet::TenantDropper;
use self::interned_id::intern;
use self::key_checks::KeyChecks;
pub use self::key_checks::KeyVerdict;
pub use self::list_size::{ListSize, ListView, WHOLE_PAGE};
pub use self::org_keys::{OrgKey, OrgKeys};
use self::partition::{Epoch, Owner, flow_of};
pub use self::partition::{Partition, PartitionId, ProbationPermit, TokenStatus, Witness};
pub use self::policies::Policies;
pub use self::reload::{CachedEntries, shares_org_key};
use self::session_tokens::SessionTokens;
pub use self::session_tokens::UpstreamVerdict;
pub use self::signature_check::SignatureCheck;
pub use self::status::{BudgetAvailability, BusyAccount, TenantStatus};
pub use self::token_table::TokenDigest;
pub use self::trust::{DerivationEpochs, DerivationMark, DerivationUse, KindStatus, SourceOrigin, Trust, TrustStatus};
use crate::clock::{Clock, Moment};
use crate::config::{self, Rate, UpstreamLimits};
use crate::digest::sha256;
use crate::fleet::client_budgets::{BudgetOwner, ClientBudgets};
use crate::limit::{ClientBudget, Spending, UpstreamBudget};

/// A Refold org while the gateway runs.
#[derive(Debug)]
pub struct Tenant {
    /// The settings.
    pub config: Arc<config::TenantConfig>,
    /// The budget that strangers' session tokens share: those that are neither accepted nor were within the last day.
    pub probation_budget: UpstreamBudget,
    interned_id: usize,
    org_keys: OrgKeys,
    key_checks: Arc<KeyChecks>,
    policies: Policies,
    /// Opens the budgets that a fleet shares; `None` without one.
    client_budgets: Option<ClientBudgets>,
    clock: Clock,
    trust: Arc<Trust>,
    account_epoch: Arc<Epoch>,
    token_epoch: Arc<Epoch>,
    accounts: Arc<Accounts>,
    session_tokens: SessionTokens,
    fleet: Option<FleetTenant>,
}

impl Tenant {
    /// Creates a tenant with full budgets, and without linked accounts and session tokens.
    #[must_use]
    pub fn new(config: Arc<config::TenantConfig>, clock: Clock) -> Self {
        Self {
            probation_budget: UpstreamBudget::new(probation_limits(config.limits.upstream), clock.clone()),
            account_epoch: Arc::new(Epoch::new()),
            token_epoch: Arc::new(Epoch::new()),
            accounts: Arc::new(Accounts::new(capacity(config.limits.client.max_partitions))),
            session_tokens: SessionTokens::new(config.limits.client.max_partitions),
            interned_id: intern(&config.id),
            org_keys: OrgKeys::new(&config, &clock),
            key_checks: Arc::default(),
            trust: Arc::default(),
            policies: Policies::new(config.limits.client.rate(), config.limits.upstream.rate()),
            client_budgets: None,
            config,
            clock,
            fleet: None,
        }
    }

    /// A small number that stands for the tenant's id, unique and constant for the life of the process. An index for tables
    /// per tenant.
    #[must_use]
    pub fn interned_id(&self) -> usize {
        self.interned_id
    }

    /// The approximate number of linked accounts and session tokens in memory.
    #[must_use]
    pub fn partitions(&self) -> u64 {
        self.accounts.len() as u64 + self.session_tokens.len()
    }

    /// The trust in derived responses. Part of the hit path of derived entries.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The number of linked accounts and accepted session tokens in memory.
    #[must_use]
    pub fn witnesses(&self) -> usize {
        self.accounts.len() + capacity(self.session_tokens.accepted_len())
    }

    /// The org API keys.
    #[must_use]
    pub fn org_keys(&self) -> &OrgKeys {
        &self.org_keys
    }

    /// The budget at the upstream of the org key in use.
    #[must_use]
    pub fn upstream_budget(&self) -> &UpstreamBudget {
        self.org_keys.budget(self.org_keys.active())
    }

    /// The values of `RateLimit-Policy` for its callers.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Returns the partition of a linked account, and creates it if there is none. Call it only for an authenticated caller,
    /// since it takes memory. Part of the hit path.
    #[must_use]
    pub fn linked_account(&self, id: &str, now: Moment) -> Arc<Partition> {
        self.accounts.get(id, now, |id| {
            let name = self.fleet.as_ref().map(|tenant| tenant.partition_name(&id));
            let flow = flow_of(&sha256(id.as_bytes()));
            let budget = self.client_budget(self.config.limits.client.rate(), BudgetOwner::LinkedAccount(&id));
            Partition::new(Owner::LinkedAccount(id), flow, budget).named(name)
        })
    }

    /// Returns the partition of a session token, accepted or not, and creates it if there is none.
    #[must_use]
    pub fn session_token(&self, digest: &TokenDigest, now: Moment) -> Arc<Partition> {
        let budget = || self.client_budget(self.config.limits.client.rate(), BudgetOwner::SessionToken(digest));
        self.session_tokens.get(digest, budget, now)
    }

    /// Returns whether the upstream has accepted a session token lately.
    #[must_use]
    pub fn has_accepted(&self, digest: &TokenDigest, now: Moment) -> bool {
        self.session_tokens.is_accepted(digest, now)
    }

    /// Records the upstream's verdict on a session token. An accepted one counts as an authenticated caller for a while; a
    /// refused one loses its cached entries, and is refused here for a moment.
    pub fn record_token_verdict(&self, digest: TokenDigest, partition: &Arc<Partition>, verdict: UpstreamVerdict) {
        match verdict {
            UpstreamVerdict::Accepted => self.session_tokens.accept(digest, partition, self.clock.now()),
            UpstreamVerdict::Refused => self.session_tokens.refuse(digest, partition, self.clock.now()),
        }
    }

    /// Records that the upstream has answered 429 to a session token: no request of this token is sent for `duration`. If another
    /// accepted token was answered 429 in the last moments, it is the org that exceeds its budget, so all its requests pause.
    pub fn pause_token(&self, digest: TokenDigest, partition: &Partition, duration: Duration) {
        let now = self.clock.now();
        let status = partition.token_status(now);
        self.session_tokens.pause(digest, status, now + duration);
        // A token that Refold never accepted may be made up, and is no evidence about the org.
        if status == TokenStatus::Accepted {
            self.upstream_budget().pause_for_tokens(partition.flow_id(), duration);
        }
    }

    /// Returns the time for which no request of a session token is sent; `None` if it may be sent now.
    #[must_use]
    pub fn token_pause(&self, digest: &TokenDigest) -> Option<Duration> {
        let pause = self.session_tokens.paused_until(digest)?.since(self.clock.now());
        (!pause.is_zero()).then_some(pause)
    }

    /// Creates the budget of a client: in a fleet the one that all replicas share.
    #[must_use]
    pub fn client_budget(&self, rate: Rate, owner: BudgetOwner<'_>) -> ClientBudget {
        match &self.client_budgets {
            Some(budgets) => ClientBudget::shared(budgets.open(rate, &self.config.id, owner)),
            None => ClientBudget::new(rate),
        }
    }

    /// Takes one request off a partition's budget, if it has one left. Part of the hit path.
    #[must_use]
    pub fn spend(&self, partition: &Partition, now: Moment) -> Spending {
        partition.spend(self.config.limits.client.rate(), now)
    }

    /// Returns the part of a cache key that selects the entries of a partition: the partition's present id, and the epoch
    /// that it shares with all linked accounts or all session tokens.
    #[must_use]
    pub fn cache_scope(&self, partition: &Partition) -> (PartitionId, u64) {
        let epoch = match &partition.owner {
            Owner::LinkedAccount(_) => self.account_epoch.current(),
            Owner::SessionToken { .. } => self.token_epoch.current(),
        };
        (partition.id(), epoch)
    }
}

fn capacity(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Returns the limits of strangers' session tokens: a quarter of the org key's rate, so that made-up tokens leave the rest to known
/// callers.
fn probation_limits(limits: UpstreamLimits) -> UpstreamLimits {
    let quarter = |number: NonZeroU32| NonZeroU32::new(number.get().div_ceil(4)).unwrap_or(NonZeroU32::MIN);
    // An upstream budget keeps one request of its burst in reserve.
    let burst = quarter(limits.burst).saturating_add(1);
    UpstreamLimits { per_second: quarter(limits.per_second), burst, ..limits }
}
