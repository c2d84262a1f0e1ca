//! A randomised run of a fleet with faults: once a drop is answered, no connected replica serves anything older.
//!
//! Readers ask all replicas for pages, writers change pages and announce it by webhooks. Besides, each fault has a canary: a page
//! that all replicas hold before the fault and that is dropped once during it. No reader asks for it meanwhile, since what a replica
//! fetches then takes the place of what it should have dropped; afterwards each replica is asked for it once it counts what it
//! holds as current.
//!
//! `.ci/full.d/staleness` runs it, and runs it against flawed versions of Postern, for each of which it has to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::replicas::Replicas;
use crate::support::{Dice, http_upstream, page_of, pass};

/// Accounts that writers change.
const ACCOUNTS: usize = 12;
/// Accounts that only faults change, after those.
const CANARIES: usize = 8;
/// Accounts, the first ones, whose pages take longer to arrive than a drop to be answered.
const SLOW: usize = 2;
const SLOW_RESPONSE: Duration = Duration::from_millis(450);
const READERS: u64 = 8;
const WRITERS: u64 = 3;

/// An account's versions: the one that Refold has, and the latest one whose drop was answered.
#[derive(Default)]
struct Account {
    present: AtomicU64,
    announced: AtomicU64,
    /// Readers leave it alone for a moment.
    is_quiet: AtomicBool,
}

/// The counts of a run.
#[derive(Default)]
struct Counts {
    drops: AtomicU64,
    refused_drops: AtomicU64,
    answers: AtomicU64,
    local: AtomicU64,
    shared: AtomicU64,
    fetched: AtomicU64,
    cut_off: AtomicU64,
    failed: AtomicU64,
}

/// A fleet in a run.
struct Run {
    fleet: Replicas,
    accounts: Arc<[Account; ACCOUNTS + CANARIES]>,
    counts: Counts,
    /// The replica that writers leave alone for a moment: one that has dropped something by itself trusts nothing.
    spared: AtomicUsize,
    seed: u64,
    end: Instant,
}

#[derive(Clone, Copy)]
enum Fault {
    /// A replica is cut off for so long, in milliseconds.
    Cut(u64),
    /// A replica can't read the log, and reaches Redis all the same.
    LogCut,
    /// A replica is cut off, and the log is lost meanwhile, but goes on: it never ends before what the replica has read.
    LogLost,
    /// The log is lost.
    LogDeleted,
    /// All generations are lost before a page is fetched, and again after it is dropped.
    GenerationsLost,
    /// The server stands still.
    Paused,
    /// The server loses everything.
    Flushed,
}

const FAULTS: [Fault; 8] = [
    Fault::Cut(100),
    Fault::Cut(700),
    Fault::LogCut,
    Fault::LogLost,
    Fault::LogDeleted,
    Fault::GenerationsLost,
    Fault::Paused,
    Fault::Flushed,
];

const NOBODY: usize = usize::MAX;
const LOG: &str = "pst:b1:{postern}:log";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn account(number: usize) -> String {
    format!("account-{number}")
}

#[tokio::test]
#[ignore = "runs for as long as POSTERN_STALENESS_SECONDS says"]
async fn no_connected_replica_serves_anything_older_than_an_answered_drop() {
    let replicas = usize::try_from(setting("POSTERN_STALENESS_REPLICAS", 4)).expect("few");
    let accounts: Arc<[Account; ACCOUNTS + CANARIES]> = Arc::default();
    let shown = Arc::clone(&accounts);
    let upstream = http_upstream(move |request| {
        let shown = Arc::clone(&shown);
        async move {
            let account = request.headers()["linked_account_id"].to_str().expect("ASCII").to_owned();
            let number: usize = account.trim_start_matches("account-").parse().expect("a number");
            let version = shown[number].present.load(Ordering::SeqCst);
            // The response takes a while to arrive, and the page may have changed by then.
            pass(if number < SLOW { SLOW_RESPONSE } else { Duration::from_millis(version % 7) }).await;
            page_of(&json!({ "status": "COMPLETED", "version": version }))
        }
    })
    .await;
    let Some(fleet) = Replicas::start_before(replicas, upstream).await else { return };
    let end = Instant::now() + Duration::from_secs(setting("POSTERN_STALENESS_SECONDS", 30));
    let seed = setting("POSTERN_STALENESS_SEED", 7);
    let run = Arc::new(Run { fleet, accounts, counts: Counts::default(), spared: NOBODY.into(), seed, end });
    let readers = (1..=READERS).map(|number| tokio::spawn(Arc::clone(&run).read(Dice::new(seed + number))));
    let writers = (1..=WRITERS).map(|number| tokio::spawn(Arc::clone(&run).write(Dice::new(seed + 100 + number))));
    let tasks: Vec<_> = readers.chain(writers).collect();
    run.disturb(&tasks).await;
    for task in tasks {
        task.await.expect("no answer was older than a drop");
    }
    run.counts.report();
}

impl Run {
    /// Asks for pages until the end.
    async fn read(self: Arc<Self>, dice: Dice) {
        while Instant::now() < self.end {
            let index = usize::from(dice.byte()) % self.fleet.gateways.len();
            let number = usize::from(dice.byte()) % self.accounts.len();
            if !self.accounts[number].is_quiet.load(Ordering::SeqCst) {
                self.ask(index, number).await;
            }
        }
    }

    /// Asks a replica for a page, and compares its version with the one that was announced before, unless the answer promises nothing,
    /// since the replica was not connected.
    async fn ask(&self, index: usize, number: usize) {
        let announced = self.accounts[number].announced.load(Ordering::SeqCst);
        let connected_until = self.fleet.connected_until(index);
        let answer = self.fleet.gateways[index].list(&account(number), "").await;
        add(&self.counts.answers);
        if answer.status != StatusCode::OK {
            add(&self.counts.failed);
            return;
        }
        let status = answer.cache_status();
        let is_stale = status.contains("detail=stale");
        add(if is_stale {
            &self.counts.cut_off
        } else if status.contains("detail=fleet") {
            &self.counts.shared
        } else if answer.is_hit() {
            &self.counts.local
        } else {
            &self.counts.fetched
        });
        let version = answer.first_document()["version"].as_u64().expect("a version");
        // A replica that is cut off marks what it serves as stale; one that reaches Redis has no excuse, also if it can't read the log.
        let is_promised = connected_until
            .is_some_and(|until| self.fleet.clock.now() < until || (!is_stale && self.fleet.is_connected(index)));
        assert!(
            !is_promised || version >= announced,
            "seed {}: replica {index} served version {version} of account {number} after {announced} was announced: {status}",
            self.seed
        );
    }

    /// Changes pages until the end, and announces the changes.
    async fn write(self: Arc<Self>, dice: Dice) {
        while Instant::now() < self.end {
            let index = usize::from(dice.byte()) % self.fleet.gateways.len();
            if index != self.spared.load(Ordering::SeqCst) {
                self.change(index, usize::from(dice.byte()) % ACCOUNTS).await;
            }
            pass(Duration::from_millis(u64::from(dice.byte()) / 8)).await;
        }
    }

    /// Changes a page, and announces the change by a webhook to a replica. Returns false if that was not possible.
    async fn change(&self, index: usize, number: usize) -> bool {
        let Account { present, announced, .. } = &self.accounts[number];
        let version = present.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = self.fleet.deliver(index, &account(number)).await;
        let is_announced = answer.status == StatusCode::NO_CONTENT;
        if is_announced {
            announced.fetch_max(version, Ordering::SeqCst);
        }
        add(if is_announced { &self.counts.drops } else { &self.counts.refused_drops });
        is_announced
    }

    /// Changes the page of a canary, until that is announced: on a busy machine Redis may be too slow at first.
    async fn drop_canary(&self, index: usize, canary: usize) {
        for _ in 0..100 {
            if self.change(index, canary).await {
                return;
            }
            pass(Duration::from_millis(5)).await;
        }
    }

    /// Asks each replica for a canary, once it counts what it holds as current.
    async fn ask_all(&self, canary: usize) {
        for index in 0..self.fleet.gateways.len() {
            let over = Instant::now() + Duration::from_secs(3);
            while !self.fleet.is_current(index) && Instant::now() < over {
                pass(Duration::from_millis(1)).await;
            }
            self.ask(index, canary).await;
        }
    }

    /// Plays all faults, in an order and at replicas that the seed decides, again and again until the end. Ends early if a task has
    /// failed.
    async fn disturb(&self, tasks: &[JoinHandle<()>]) {
        let dice = Dice::new(self.seed + 1000);
        let mut canary = 0;
        loop {
            let mut faults = FAULTS.to_vec();
            while !faults.is_empty() {
                let fault = faults.swap_remove(usize::from(dice.byte()) % faults.len());
                if Instant::now() >= self.end || tasks.iter().any(JoinHandle::is_finished) {
                    return;
                }
                let index = usize::from(dice.byte()) % self.fleet.gateways.len();
                canary = (canary + 1) % CANARIES;
                let is_quiet = &self.accounts[ACCOUNTS + canary].is_quiet;
                is_quiet.store(true, Ordering::SeqCst);
                // What readers have begun to ask ends meanwhile.
                pass(Duration::from_millis(30)).await;
                self.ask_all(ACCOUNTS + canary).await;
                self.play(fault, index, ACCOUNTS + canary).await;
                self.ask_all(ACCOUNTS + canary).await;
                is_quiet.store(false, Ordering::SeqCst);
                pass(Duration::from_millis(50 + u64::from(dice.byte()))).await;
            }
        }
    }

    /// Plays a fault at a replica, with a canary.
    async fn play(&self, fault: Fault, index: usize, canary: usize) {
        let (cable, redis) = (&self.fleet.cables[index], &self.fleet.redis);
        let other = (index + 1) % self.fleet.gateways.len();
        match fault {
            Fault::Cut(millis) => {
                if millis >= 300 {
                    self.spared.store(index, Ordering::SeqCst);
                }
                cable.cut();
                self.drop_canary(other, canary).await;
                pass(Duration::from_millis(millis)).await;
                cable.mend();
                self.spared.store(NOBODY, Ordering::SeqCst);
            }
            Fault::LogCut => {
                cable.cut_log();
                self.drop_canary(other, canary).await;
                self.ask(index, canary).await;
                // A fetch that is still under way when the drop is answered.
                let drop_meanwhile = async {
                    pass(Duration::from_millis(20)).await;
                    self.change(other, 0).await;
                    self.ask(index, 0).await;
                };
                tokio::join!(self.ask(index, 0), drop_meanwhile);
                cable.mend();
            }
            Fault::LogLost => {
                cable.cut();
                self.drop_canary(other, canary).await;
                redis.query(&["DEL", LOG]);
                self.change(other, ACCOUNTS - 1).await;
                cable.mend();
            }
            Fault::LogDeleted => {
                redis.query(&["DEL", LOG]);
                self.drop_canary(other, canary).await;
            }
            Fault::GenerationsLost => self.lose_generations(other, canary).await,
            Fault::Paused => {
                redis.signal("STOP");
                pass(Duration::from_millis(400)).await;
                redis.signal("CONT");
                self.drop_canary(other, canary).await;
            }
            Fault::Flushed => {
                // So that the replica hears of it by its next beat only.
                cable.cut_log();
                redis.query(&["FLUSHALL"]);
                self.drop_canary(other, canary).await;
                self.ask(index, canary).await;
                cable.mend();
            }
        }
    }

    async fn lose_generations(&self, index: usize, canary: usize) {
        self.drop_canary(index, canary).await;
        self.delete_generations();
        self.ask(index, canary).await;
        // Until it is stored for all.
        pass(Duration::from_millis(30)).await;
        self.drop_canary(index, canary).await;
        self.delete_generations();
    }

    fn delete_generations(&self) {
        let keys = self.fleet.redis.query(&["KEYS", "pst:b1:{postern}:g:*"]);
        for key in redis::from_redis_value::<Vec<String>>(keys).expect("a list of keys") {
            self.fleet.redis.query(&["DEL", &key]);
        }
    }
}

impl Counts {
    #[expect(clippy::print_stdout, reason = "the figures of a run")]
    fn report(&self) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (local, shared, fetched) = (read(&self.local), read(&self.shared), read(&self.fetched));
        let answered = (local + shared + fetched).max(1);
        println!(
            "{} answers: {local} local, {shared} of the second level ({} %), {fetched} fetched, {} cut off, {} failed; {} drops, {} refused",
            read(&self.answers),
            shared * 100 / answered,
            read(&self.cut_off),
            read(&self.failed),
            read(&self.drops),
            read(&self.refused_drops),
        );
        assert!(read(&self.drops) > 20, "too few drops");
        assert!(read(&self.cut_off) > 0, "no replica has served as one that is cut off");
        assert!(shared * 20 > answered, "the second level has hardly served");
    }
}
