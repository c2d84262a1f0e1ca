//! Upstreams whose lists contradict each other, as the documentation allows: derived answers are served only until the first
//! confirmed contradiction.

use std::time::Duration;

use postern::simulator::{Contrary, ContrarySet, Fault};

use crate::support::{Answer, World, seeded};

/// Linked accounts with up to 100 executions, and one with more. All but `acme-2` get a new execution at every full minute.
const ACCOUNTS: [&str; 6] = ["acme-2", "umbrella@example.com", "a-1", "a-2", "a-3", "acme-1"];
const QUESTIONS: [&str; 9] = [
    "limit=100",
    "limit=50",
    "",
    "limit=10&page=2",
    "status=COMPLETED",
    "status=STOPPED",
    "status=RUNNING",
    "execution_source=Event",
    "execution_type=SYNC",
];
const KINDS: [&str; 4] = ["slice", "status", "execution_source", "execution_type"];
/// Rounds within which a kind is proven, or a contradiction is found.
const MOST_ROUNDS: u32 = 60;
/// Rounds after the contradiction.
const ROUNDS_AFTER: u32 = 3;

/// A gateway that verifies derivation, in front of a simulated Refold that is asked in rounds, one a minute.
struct Verified {
    world: World,
    random: fastrand::Rng,
    contrary: ContrarySet,
    /// Answers that differed from Refold's own while their kind was in use.
    wrong: u32,
    /// Contradicted kinds for which no answer may differ any more.
    contradicted: Vec<String>,
}

impl Verified {
    async fn start() -> Self {
        let world = World::builder().config(|config| config.derive("verified").one_worker()).start().await;
        // New executions begin at full minutes, so each round comes a second after one.
        world.clock.advance(Duration::from_secs(1));
        let (random, contrary) = (seeded(0xc0), ContrarySet::default());
        Self { world, random, contrary, wrong: 0, contradicted: Vec::new() }
    }

    /// A gateway that has proven all kinds in front of a Refold without contradictions.
    async fn proven() -> Self {
        let mut verified = Self::start().await;
        for _ in 0..MOST_ROUNDS {
            if KINDS.iter().all(|kind| verified.state_of(kind) == "in_use") {
                assert_eq!(verified.wrong, 0);
                return verified;
            }
            verified.round().await;
        }
        panic!("not all kinds are proven: {:?}", verified.world.gateway.trust());
    }

    fn contradict(&mut self, way: Contrary) {
        self.contrary = ContrarySet::from_iter([way]);
        self.world.refold.set_fault(Some(Fault::Contrary(self.contrary)));
    }

    fn state_of(&self, kind: &str) -> &'static str {
        let kinds = self.world.gateway.trust().kinds;
        kinds.iter().find(|state| state.kind == kind).expect("a kind").state
    }

    /// Asks all questions of all accounts, in another order each time, and waits until all comparisons have ended.
    async fn round(&mut self) {
        self.world.clock.advance(Duration::from_mins(1));
        let mut accounts = ACCOUNTS;
        self.random.shuffle(&mut accounts);
        for account in accounts {
            let mut questions = QUESTIONS;
            self.random.shuffle(&mut questions);
            for question in questions {
                let answer = self.world.list(account, question).await;
                if !self.is_refolds_own(account, question, &answer) {
                    let kinds = kinds(question);
                    assert!(
                        !kinds.iter().any(|kind| self.contradicted.contains(kind)),
                        "{account}?{question}: {answer:?}"
                    );
                    self.wrong += 1;
                }
                self.world.gateway.until_compared().await;
                let out_of_use = KINDS.into_iter().filter(|kind| self.state_of(kind) == "out_of_use");
                self.contradicted = out_of_use.map(str::to_owned).collect();
            }
        }
    }

    /// True if Refold would have answered so at the moment that `Age` names.
    fn is_refolds_own(&self, account: &str, question: &str, answer: &Answer) -> bool {
        let age = answer.header("age").parse().map_or(Duration::ZERO, Duration::from_secs);
        let at = self.world.clock.wall() - age;
        let own = self.world.refold.peek_at(account, Some(question), at, self.contrary);
        match own {
            Some(own) => answer.status == 200 && answer.body == own,
            None => answer.status == 400,
        }
    }

    async fn until_contradicted(&mut self, kinds: &[&str]) {
        for _ in 0..MOST_ROUNDS {
            if kinds.iter().all(|kind| self.state_of(kind) == "out_of_use") {
                return;
            }
            self.round().await;
        }
        panic!("{kinds:?} are not contradicted: {:?}", self.world.gateway.trust());
    }
}

/// The kinds by which an answer has to follow: its filters, or a part of a larger page.
fn kinds(question: &str) -> Vec<String> {
    let filters = question.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
    let filters: Vec<String> = filters.filter(|name| KINDS.contains(name)).map(str::to_owned).collect();
    if filters.is_empty() { vec!["slice".to_owned()] } else { filters }
}

/// After the first confirmed contradiction, no answer of these kinds differs from Refold's own: neither if Refold was so from
/// the start, nor if it has changed when all kinds were in use.
async fn is_found(way: Contrary, kinds: &[&str]) {
    let mut from_the_start = Verified::start().await;
    from_the_start.contradict(way);
    is_found_by(from_the_start, kinds).await;
    is_found_later(way, kinds).await;
}

async fn is_found_later(way: Contrary, kinds: &[&str]) {
    let mut later = Verified::proven().await;
    later.contradict(way);
    is_found_by(later, kinds).await;
}

async fn is_found_by(mut verified: Verified, kinds: &[&str]) {
    verified.until_contradicted(kinds).await;
    for _ in 0..ROUNDS_AFTER {
        verified.round().await;
    }
    let metrics = verified.world.gateway.metrics();
    for kind in kinds {
        let count = format!("postern_derivation_contradicted_total{{kind=\"{kind}\",tenant=\"t\"}} 1");
        assert!(metrics.contains(&count), "{metrics}");
    }
}

#[tokio::test]
async fn stopped_that_finds_stopping_ones_is_contradicted() {
    is_found(Contrary::StoppingAsStopped, &["status"]).await;
}

#[tokio::test]
async fn filters_that_find_child_executions_are_contradicted() {
    is_found(Contrary::ChildExecutions, &["status", "execution_source", "execution_type"]).await;
}

#[tokio::test]
async fn a_count_beside_an_insert_is_contradicted() {
    is_found(Contrary::EarlyCount, &["slice"]).await;
}

#[tokio::test]
async fn a_filtered_list_in_another_order_is_contradicted() {
    is_found(Contrary::FilteredOrder, &["status", "execution_source", "execution_type"]).await;
}

#[tokio::test]
async fn ties_that_the_limit_orders_are_contradicted() {
    is_found(Contrary::TiesByLimit, &["slice", "status", "execution_source", "execution_type"]).await;
}

#[tokio::test]
async fn an_empty_list_without_pages_is_contradicted() {
    is_found(Contrary::ZeroPages, &["status"]).await;
}

#[tokio::test]
async fn large_pages_of_shorter_documents_are_contradicted() {
    is_found(Contrary::AbridgedPages, &["slice", "status", "execution_source", "execution_type"]).await;
}

#[tokio::test]
async fn filters_of_a_late_index_are_contradicted() {
    is_found(Contrary::LateFilters, &["status"]).await;
}

#[tokio::test]
async fn a_filter_that_is_refused_is_contradicted() {
    // From the start, there is no answer that could prove the kind.
    is_found_later(Contrary::RefusedFilter, &["execution_type"]).await;
}
