//! Trust in derived responses, for one tenant. A kind of derivation is used only while it is known to be right about the
//! tenant's upstream.
//!
//! A kind begins as *unproven*. It is used once enough derived responses have been equal to the fetched ones. While it is used,
//! some of its responses are still compared. One confirmed difference disables the kind for an hour; then it is unproven again.
//!
//! This module decides and counts. `fetch` makes the comparisons.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::checks::{Checks, QuestionId};
use super::comparison_limit::{ComparisonLimit, ComparisonPermit};
use super::partition::Witness;
use crate::clock::Moment;
use crate::executions::{DerivationKind, DerivationKinds};

/// Agreements that put a kind to use.
const AGREEMENTS: u32 = 20;
/// Linked accounts that the agreements have to come from, if the tenant has so many.
const ACCOUNTS: usize = 3;
/// Time for which a kind is out of use after a confirmed difference.
const OUT_OF_USE: Duration = Duration::from_hours(1);

const KINDS: usize = DerivationKind::ALL.len();

/// The use that may be made of a derived response.
#[derive(Debug)]
pub enum DerivationUse {
    /// Served.
    Serve,
    /// Served, and compared with a fetched one in the background.
    ServeAndCheck(ComparisonPermit),
    /// Not served, but compared with the one that is fetched.
    Compare(ComparisonPermit),
    /// Neither served nor compared.
    Refuse,
}

/// The kinds of an entry's derivation, and their epochs at that time. The entry may be served while these are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivationMark {
    epoch: u32,
    kinds: DerivationKinds,
    origin: SourceOrigin,
}

/// The origin of the pages that an entry was derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceOrigin {
    /// All of them were in the cache.
    Stored,
    /// One was fetched to derive the entry.
    Fetched,
}

impl DerivationMark {
    /// The kinds.
    #[must_use]
    pub fn kinds(self) -> DerivationKinds {
        self.kinds
    }

    /// The origin of the entry's sources.
    #[must_use]
    pub fn origin(self) -> SourceOrigin {
        self.origin
    }
}

/// The epochs of all kinds at one moment.
#[derive(Clone, Copy, Debug)]
pub struct DerivationEpochs([u32; KINDS]);

impl DerivationEpochs {
    /// The mark of an entry whose sources were looked up after this moment.
    #[must_use]
    pub fn mark(&self, kinds: DerivationKinds, origin: SourceOrigin) -> DerivationMark {
        DerivationMark { epoch: sum(kinds, |kind| self.0[kind as usize]), kinds, origin }
    }
}

/// The trust of one tenant in each kind of derivation.
#[derive(Debug, Default)]
pub struct Trust {
    kinds: [KindTrust; KINDS],
    limit: Arc<ComparisonLimit>,
}

#[derive(Debug, Default)]
struct KindTrust {
    /// Advances with each confirmed difference, so that entries derived before are not served. Read by hits.
    epoch: AtomicU32,
    differences: AtomicU64,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
enum Phase {
    Unproven { agreements: u32, accounts: HashSet<Witness> },
    InUse(Checks),
    OutOfUse { until: Moment },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Unproven { agreements: 0, accounts: HashSet::new() }
    }
}

/// The state of a tenant's trust, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrustStatus {
    /// Comparisons under way.
    pub comparisons: u32,
    /// All kinds of derivation.
    pub kinds: Vec<KindStatus>,
}

/// The state of a kind, as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindStatus {
    /// `slice`, or the parameter of a filter.
    pub kind: &'static str,
    /// `unproven`, `in_use` or `out_of_use`.
    pub state: &'static str,
    /// Agreements so far, of an unproven kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreements: Option<u32>,
    /// Seconds until a kind that is out of use can be proven again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Confirmed differences since the process started.
    pub differences: u64,
}

impl Trust {
    /// Decides on the derived response to a question. All of its kinds have to allow it; a check is made if one is due for any of
    /// them. `callers_wait` says whether callers wait for the upstream budget.
    #[must_use]
    pub fn decide(
        &self,
        kinds: DerivationKinds,
        question: QuestionId,
        callers_wait: bool,
        now: Moment,
    ) -> DerivationUse {
        match self.readiness(kinds, now) {
            Readiness::OutOfUse => DerivationUse::Refuse,
            Readiness::Unproven => match self.limit.begin_proof(now, callers_wait) {
                Some(permit) => DerivationUse::Compare(permit),
                None => DerivationUse::Refuse,
            },
            Readiness::InUse if self.count_answer(kinds, question, now) => match self.limit.begin_check() {
                Some(permit) => {
                    self.note_check(kinds, question, now);
                    DerivationUse::ServeAndCheck(permit)
                }
                // The check stays due.
                None => DerivationUse::Serve,
            },
            Readiness::InUse => DerivationUse::Serve,
        }
    }

    /// Returns whether responses of these kinds are served.
    #[must_use]
    pub fn serves(&self, kinds: DerivationKinds, now: Moment) -> bool {
        self.readiness(kinds, now) == Readiness::InUse
    }

    /// A permit to prove these kinds, if one of them is unproven and none is out of use.
    #[must_use]
    pub fn begin_proof(&self, kinds: DerivationKinds, callers_wait: bool, now: Moment) -> Option<ComparisonPermit> {
        (self.readiness(kinds, now) == Readiness::Unproven).then(|| self.limit.begin_proof(now, callers_wait)).flatten()
    }

    /// Counts a fetch that a caller or a renewal needed: comparisons for a proof cost at most a share of them.
    pub fn count_fetch(&self) {
        self.limit.count_fetch();
    }

    /// Counts a comparison without a difference; `accounts_there_are` is the number of the tenant's linked accounts. Returns
    /// the kinds that it puts to use.
    pub fn agree(
        &self,
        kinds: DerivationKinds,
        account: &Witness,
        accounts_there_are: usize,
        now: Moment,
    ) -> Vec<DerivationKind> {
        let mut put_to_use = Vec::new();
        for kind in kinds.iter() {
            let mut phase = self.phase(kind);
            if let Phase::Unproven { agreements, accounts } = &mut *phase {
                *agreements = agreements.saturating_add(1);
                if accounts.len() < ACCOUNTS {
                    accounts.insert(account.clone());
                }
                if *agreements >= AGREEMENTS && accounts.len() >= ACCOUNTS.min(accounts_there_are) {
                    *phase = Phase::InUse(Checks::new(now));
                    put_to_use.push(kind);
                }
            }
        }
        put_to_use
    }

    /// Records a confirmed difference: the kinds are out of use, and what was derived by them is not served any more. Returns
    /// the kinds that were not out of use before.
    pub fn contradict(&self, kinds: DerivationKinds, now: Moment) -> Vec<DerivationKind> {
        let mut put_out_of_use = Vec::new();
        for kind in kinds.iter() {
            let mut phase = self.phase(kind);
            if !matches!(&*phase, Phase::OutOfUse { until } if now < *until) {
                *phase = Phase::OutOfUse { until: now + OUT_OF_USE };
                self.kinds[kind as usize].epoch.fetch_add(1, Ordering::Release);
                self.kinds[kind as usize].differences.fetch_add(1, Ordering::Relaxed);
                put_out_of_use.push(kind);
            }
        }
        put_out_of_use
    }

    /// Returns whether an entry may be served, as far as its derivation is concerned. Part of the hit path of derived entries.
    #[must_use]
    pub fn is_current(&self, mark: DerivationMark) -> bool {
        // Epochs only advance, so the sum is equal only if each of them is.
        mark.epoch == sum(mark.kinds, |kind| self.kinds[kind as usize].epoch.load(Ordering::Acquire))
    }

    /// The present epochs.
    #[must_use]
    pub fn epochs(&self) -> DerivationEpochs {
        DerivationEpochs(std::array::from_fn(|kind| self.kinds[kind].epoch.load(Ordering::Acquire)))
    }

    /// The present state.
    #[must_use]
    pub fn status(&self, now: Moment) -> TrustStatus {
        let of = |kind: DerivationKind| {
            let (state, agreements, seconds_left) = match &*self.phase(kind) {
                Phase::Unproven { agreements, .. } => ("unproven", Some(*agreements), None),
                Phase::InUse(_) => ("in_use", None, None),
                Phase::OutOfUse { until } => ("out_of_use", None, Some(until.since(now).as_secs())),
            };
            let differences = self.kinds[kind as usize].differences.load(Ordering::Relaxed);
            KindStatus { kind: kind.name(), state, agreements, seconds_left, differences }
        };
        TrustStatus { comparisons: self.limit.under_way(), kinds: DerivationKind::ALL.into_iter().map(of).collect() }
    }

    /// The least ready of the kinds decides. A kind whose hour out of use is over becomes unproven.
    fn readiness(&self, kinds: DerivationKinds, now: Moment) -> Readiness {
        let of = |kind| {
            let mut phase = self.phase(kind);
            match &*phase {
                Phase::OutOfUse { until } if now < *until => Readiness::OutOfUse,
                Phase::OutOfUse { .. } => {
                    *phase = Phase::default();
                    Readiness::Unproven
                }
                Phase::Unproven { .. } => Readiness::Unproven,
                Phase::InUse(_) => Readiness::InUse,
            }
        };
        kinds.iter().map(of).min().unwrap_or(Readiness::OutOfUse)
    }

    /// Counts a derived response; true if a check is due for one of its kinds.
    fn count_answer(&self, kinds: DerivationKinds, question: QuestionId, now: Moment) -> bool {
        kinds.iter().fold(false, |is_due, kind| match &mut *self.phase(kind) {
            Phase::InUse(checks) => checks.count(question, now) || is_due,
            Phase::Unproven { .. } | Phase::OutOfUse { .. } => is_due,
        })
    }

    fn note_check(&self, kinds: DerivationKinds, question: QuestionId, now: Moment) {
        for kind in kinds.iter() {
            if let Phase::InUse(checks) = &mut *self.phase(kind) {
                checks.note(question, now);
            }
        }
    }

    fn phase(&self, kind: DerivationKind) -> MutexGuard<'_, Phase> {
        // Each change is one assignment, so a panic leaves the phase valid.
        self.kinds[kind as usize].phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The readiness of a set of kinds, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Readiness {
    OutOfUse,
    Unproven,
    InUse,
}

fn sum(kinds: DerivationKinds, epoch: impl Fn(DerivationKind) -> u32) -> u32 {
    kinds.iter().map(epoch).fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(0);

    fn slice() -> DerivationKinds {
        DerivationKinds::default().with(DerivationKind::Slice)
    }

    fn status() -> DerivationKinds {
        DerivationKinds::default().with(DerivationKind::Status)
    }

    fn account(number: u32) -> Witness {
        Witness::LinkedAccount(number.to_string().into())
    }

    fn proven(kinds: DerivationKinds) -> Trust {
        let trust = Trust::default();
        for number in 0..AGREEMENTS {
            trust.agree(kinds, &account(number % 3), 10, START);
        }
        trust
    }

    fn decided(trust: &Trust, kinds: DerivationKinds, at: Moment) -> &'static str {
        match trust.decide(kinds, 1, false, at) {
            DerivationUse::Serve => "serve",
            DerivationUse::ServeAndCheck(_) => "check",
            DerivationUse::Compare(_) => "compare",
            DerivationUse::Refuse => "refuse",
        }
    }

    #[test]
    fn twenty_agreements_of_three_accounts_put_a_kind_to_use() {
        let trust = Trust::default();
        for number in 0..40 {
            assert!(trust.agree(slice(), &account(number % 2), 10, START).is_empty());
        }
        assert_eq!(decided(&trust, slice(), START), "compare");
        assert_eq!(trust.agree(slice(), &account(2), 10, START), [DerivationKind::Slice]);
        assert_eq!(decided(&trust, slice(), START), "serve");
        assert_eq!(decided(&trust, slice().and(status()), START), "compare", "the other kind is unproven");
        assert!(trust.serves(slice(), START) && !trust.serves(slice().and(status()), START));
    }

    #[test]
    fn a_tenant_with_two_accounts_needs_both() {
        let trust = Trust::default();
        for _ in 0..30 {
            assert!(trust.agree(slice(), &account(0), 2, START).is_empty());
        }
        assert_eq!(trust.agree(slice(), &account(1), 2, START), [DerivationKind::Slice]);
    }

    #[test]
    fn a_contradicted_kind_is_out_of_use_for_an_hour_and_proven_anew() {
        let both = slice().and(status());
        let trust = proven(both);
        let (mark, slice_mark) =
            (trust.epochs().mark(both, SourceOrigin::Stored), trust.epochs().mark(slice(), SourceOrigin::Stored));
        assert!(trust.is_current(mark));
        assert_eq!(trust.contradict(status(), START), [DerivationKind::Status]);
        assert!(trust.contradict(status(), START).is_empty());
        assert!(!trust.is_current(mark) && trust.is_current(slice_mark));
        assert!(trust.is_current(trust.epochs().mark(both, SourceOrigin::Stored)));
        assert_eq!(decided(&trust, slice(), START), "serve");
        let at = |minutes| decided(&trust, both, START + Duration::from_mins(minutes));
        assert_eq!((at(0), at(59)), ("refuse", "refuse"));
        assert_eq!(trust.status(START).kinds[1].seconds_left, Some(3600));
        assert_eq!(at(60), "compare");
        for number in 0..AGREEMENTS {
            trust.agree(both, &account(number), 10, START + OUT_OF_USE);
        }
        assert_eq!(decided(&trust, status(), START + OUT_OF_USE), "serve");
        let KindStatus { state, differences, .. } = trust.status(START + OUT_OF_USE).kinds[1];
        assert_eq!((state, differences), ("in_use", 1));
    }

    #[test]
    fn a_difference_during_a_derivation_withdraws_its_entry() {
        let trust = proven(slice());
        let epochs = trust.epochs();
        assert_eq!(trust.contradict(slice(), START).len(), 1);
        assert!(!trust.is_current(epochs.mark(slice(), SourceOrigin::Stored)));
    }
}
