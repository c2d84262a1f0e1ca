//! A randomised run of a fleet with faults: once a drop is answered, no connected replica serves anything older.
//!
//! `.ci/full.d/staleness` runs it, and runs it against flawed versions of Postern, for each of which it has to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;

use crate::support::replicas::Replicas;
use crate::support::{Dice, http_upstream, page_of, pass};

const ACCOUNTS: usize = 6;
const READERS: u64 = 8;
const WRITERS: u64 = 3;

/// An account's versions: the one that Refold has, and the latest one whose drop was answered.
#[derive(Default)]
struct Account {
    present: AtomicU64,
    announced: AtomicU64,
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

const LOG: &str = "pst:b1:{postern}:log";

impl Replicas {
    fn delete_generations(&self) {
        let keys: Vec<String> =
            redis::from_redis_value(self.redis.query(&["KEYS", "pst:b1:{postern}:g:*"])).expect("a list of keys");
        for key in keys {
            self.redis.query(&["DEL", &key]);
        }
    }
}

type Accounts = Arc<[Account; ACCOUNTS]>;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test]
#[ignore = "runs for as long as POSTERN_STALENESS_SECONDS says"]
async fn no_connected_replica_serves_anything_older_than_an_answered_drop() {
    let replicas = usize::try_from(setting("POSTERN_STALENESS_REPLICAS", 4)).expect("few");
    let end = Instant::now() + Duration::from_secs(setting("POSTERN_STALENESS_SECONDS", 30));
    let accounts: Accounts = Arc::default();
    let shown = Arc::clone(&accounts);
    let upstream = http_upstream(move |request| {
        let shown = Arc::clone(&shown);
        async move {
            let account = request.headers()["linked_account_id"].to_str().expect("ASCII").to_owned();
            let number: usize = account.trim_start_matches("account-").parse().expect("a number");
            let version = shown[number].present.load(Ordering::SeqCst);
            // The response takes a while to arrive, and the page may have changed by then.
            pass(Duration::from_millis(version % 7)).await;
            page_of(&json!({ "status": "COMPLETED", "version": version }))
        }
    })
    .await;
    let Some(fleet) = Replicas::start_before(replicas, upstream).await else { return };
    let (fleet, counts) = (Arc::new(fleet), Arc::new(Counts::default()));
    let seed = setting("POSTERN_STALENESS_SEED", 7);
    let readers = (1..=READERS).map(|reader| {
        tokio::spawn(read(Arc::clone(&fleet), Arc::clone(&accounts), Arc::clone(&counts), (seed + reader, end)))
    });
    let writers = (1..=WRITERS).map(|writer| {
        let seed = seed + 100 + writer;
        tokio::spawn(change_pages(Arc::clone(&fleet), Arc::clone(&accounts), Arc::clone(&counts), (seed, end)))
    });
    let tasks: Vec<_> = readers.chain(writers).collect();
    disturb(&fleet, seed, end).await;
    for task in tasks {
        task.await.expect("no answer was older than a drop");
    }
    report(&counts);
}

/// Asks for pages, and compares their versions with those that were announced before.
async fn read(fleet: Arc<Replicas>, accounts: Accounts, counts: Arc<Counts>, (seed, end): (u64, Instant)) {
    let dice = Dice::new(seed);
    while Instant::now() < end {
        let index = usize::from(dice.byte()) % fleet.gateways.len();
        let number = usize::from(dice.byte()) % ACCOUNTS;
        let announced = accounts[number].announced.load(Ordering::SeqCst);
        let was_current = fleet.is_current(index);
        let answer = fleet.gateways[index].list(&format!("account-{number}"), "").await;
        add(&counts.answers);
        if answer.status != StatusCode::OK {
            add(&counts.failed);
            continue;
        }
        let status = answer.cache_status();
        let kind = if status.contains("detail=stale") {
            &counts.cut_off
        } else if status.contains("detail=fleet") {
            &counts.shared
        } else if answer.is_hit() {
            &counts.local
        } else {
            &counts.fetched
        };
        add(kind);
        let version = answer.first_document()["version"].as_u64().expect("a version");
        let is_promised = was_current && fleet.is_current(index) && !status.contains("detail=stale");
        assert!(
            !is_promised || version >= announced,
            "seed {seed}: replica {index} served version {version} of account {number} after {announced} was announced: {status}"
        );
    }
}

/// Changes pages, and announces the changes by webhooks.
async fn change_pages(fleet: Arc<Replicas>, accounts: Accounts, counts: Arc<Counts>, (seed, end): (u64, Instant)) {
    let dice = Dice::new(seed);
    while Instant::now() < end {
        let index = usize::from(dice.byte()) % fleet.gateways.len();
        let number = usize::from(dice.byte()) % ACCOUNTS;
        let version = accounts[number].present.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = fleet.deliver(index, &format!("account-{number}")).await;
        if answer.status == StatusCode::NO_CONTENT {
            accounts[number].announced.fetch_max(version, Ordering::SeqCst);
            add(&counts.drops);
        } else {
            add(&counts.refused_drops);
        }
        pass(Duration::from_millis(u64::from(dice.byte()) / 8)).await;
    }
}

/// Cuts replicas off, stops the server for a while, and deletes what it holds.
async fn disturb(fleet: &Replicas, seed: u64, end: Instant) {
    let dice = Dice::new(seed + 1000);
    while Instant::now() < end {
        pass(Duration::from_millis(200 + u64::from(dice.byte()) * 2)).await;
        let pause = Duration::from_millis(20 + u64::from(dice.byte()) * 4);
        let index = usize::from(dice.byte()) % fleet.cables.len();
        match dice.byte() % 9 {
            0..=2 => {
                fleet.cables[index].cut();
                pass(pause).await;
                fleet.cables[index].mend();
            }
            3 => {
                fleet.redis.signal("STOP");
                pass(pause).await;
                fleet.redis.signal("CONT");
            }
            4 => drop(fleet.redis.query(&["FLUSHALL"])),
            5 => drop(fleet.redis.query(&["DEL", LOG])),
            6 => {
                // The log goes on meanwhile, so the replica finds no end of it that is before what it has read.
                fleet.cables[index].cut();
                pass(pause / 2).await;
                fleet.redis.query(&["DEL", LOG]);
                pass(pause / 2).await;
                fleet.cables[index].mend();
            }
            _ => fleet.delete_generations(),
        }
    }
}

#[expect(clippy::print_stdout, reason = "the figures of a run")]
fn report(counts: &Counts) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} answers: {} local, {} shared, {} fetched, {} cut off, {} failed; {} drops, {} refused",
        read(&counts.answers),
        read(&counts.local),
        read(&counts.shared),
        read(&counts.fetched),
        read(&counts.cut_off),
        read(&counts.failed),
        read(&counts.drops),
        read(&counts.refused_drops),
    );
    let answered = read(&counts.local) + read(&counts.shared) + read(&counts.fetched);
    assert!(read(&counts.drops) > 20, "too few drops");
    assert!(read(&counts.shared) * 20 > answered, "the second level has hardly served");
}
