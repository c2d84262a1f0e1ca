//! The second level of the cache, which the replicas of a fleet share on Redis.

use http::{Method, StatusCode};
use redis::Value;

use crate::support::replicas::Replicas;
use crate::support::{Client, Configuration, EXECUTIONS, KEY, ORG_KEY, Process, as_account, eventually, until};

const ONE: usize = 0;
const OTHER: usize = 1;

const ENTRIES: &str = "pst:e1:{postern}:e:*";
const GENERATIONS: &str = "pst:b1:{postern}:g:*";
const WAITERS: &str = "pst:b1:{postern}:w:*";
const LOCKS: &str = "pst:b1:{postern}:l:*";
const MEMBERS: &str = "pst:b1:{postern}:m";

impl Replicas {
    fn keys(&self, pattern: &str) -> Vec<String> {
        redis::from_redis_value(self.redis.query(&["KEYS", pattern])).expect("a list of keys")
    }

    /// Waits until what a fetch leaves on the server is there.
    async fn until_stored(&self, entries: usize) {
        until(|| self.keys(ENTRIES).len() == entries && self.keys(LOCKS).is_empty()).await;
    }

    /// The keys that match a pattern and are not among earlier ones.
    fn only_new_key(&self, pattern: &str, earlier: &[String]) -> String {
        let mut new: Vec<_> = self.keys(pattern).into_iter().filter(|key| !earlier.contains(key)).collect();
        assert_eq!(new.len(), 1, "{new:?}");
        new.remove(0)
    }

    fn copy(&self, from: &str, to: &str) {
        assert_eq!(self.redis.query(&["COPY", from, to, "REPLACE"]), Value::Int(1));
    }
}

#[tokio::test]
async fn a_page_that_one_replica_has_fetched_is_served_by_all() {
    let Some(mut fleet) = Replicas::start(2).await else { return };
    let page = fleet.gateways[ONE].list("acme-1", "").await;
    fleet.until_stored(1).await;
    let shared = fleet.gateways[OTHER].list("acme-1", "").await;
    assert_eq!((&shared.body, shared.header("etag")), (&page.body, page.header("etag")));
    assert!(shared.is_hit() && shared.cache_status().ends_with("; detail=fleet"), "{}", shared.cache_status());
    let local = fleet.gateways[OTHER].list("acme-1", "").await;
    assert!(local.is_hit() && !local.cache_status().contains("detail"), "{}", local.cache_status());
    // So does a replica that starts later.
    fleet.add_replica().await;
    fleet.until_together().await;
    assert_eq!(fleet.gateways[2].list("acme-1", "").await.body, page.body);
    assert_eq!(fleet.refold.requests(), 1);
}

#[tokio::test]
async fn whoever_asks_for_a_stale_page_gets_the_newer_one_of_another_replica() {
    let change = |config: Configuration| config.set("cache.freshness.recent", "300ms").stale("1h", "1h");
    let Some(fleet) = Replicas::start_with(2, change).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    assert_eq!(fleet.version(OTHER, "acme-1").await, 1);
    eventually(async || fleet.version(ONE, "acme-1").await == 2).await;
    fleet.until_stored(1).await;
    fleet.refold.hold();
    assert_eq!(fleet.version(OTHER, "acme-1").await, 2);
    assert_eq!(fleet.refold.requests(), 2);
}

#[tokio::test]
async fn the_newer_page_of_another_replica_is_served_though_it_is_stale_too() {
    let change = |config: Configuration| config.set("cache.freshness.recent", "1ms").stale("1h", "1h");
    let Some(fleet) = Replicas::start_with(3, change).await else { return };
    for (index, version) in [(ONE, 1), (OTHER, 2), (2, 3)] {
        assert_eq!(fleet.version(index, "acme-1").await, version);
        fleet.until_stored(1).await;
    }
    fleet.refold.hold();
    // The first of them renews it, the other waits for that.
    for index in [ONE, OTHER] {
        let stale = fleet.gateways[index].list("acme-1", "").await;
        assert_eq!(stale.first_document()["version"], 3);
        assert!(stale.cache_status().ends_with("; detail=stale"), "{}", stale.cache_status());
    }
    fleet.refold.until_received(4).await;
    fleet.refold.release();
    eventually(async || fleet.version(OTHER, "acme-1").await >= 4).await;
}

#[tokio::test]
async fn replicas_that_want_a_page_at_once_share_one_fetch() {
    let Some(fleet) = Replicas::start(3).await else { return };
    fleet.refold.hold();
    let pending: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.spawn_list("acme-1", "")).collect();
    fleet.refold.until_received(1).await;
    until(|| !fleet.keys(WAITERS).is_empty()).await;
    fleet.refold.release();
    for pending in pending {
        assert_eq!(pending.answer().await.first_document()["version"], 1);
    }
    assert_eq!(fleet.refold.requests(), 1);
}

#[tokio::test]
async fn a_failed_fetch_is_told_to_all_replicas_once() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.refold.hold();
    fleet.refold.answer_with(500);
    let one = fleet.gateways[ONE].spawn_list("acme-1", "");
    fleet.refold.until_received(1).await;
    let other = fleet.gateways[OTHER].spawn_list("acme-1", "");
    until(|| !fleet.keys(WAITERS).is_empty()).await;
    fleet.refold.release();
    for pending in [one, other] {
        assert_eq!(pending.answer().await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(fleet.refold.requests(), 1);
    fleet.refold.answer_with(200);
    assert_eq!(fleet.version(OTHER, "acme-1").await, 2, "the next request tries again");
}

#[tokio::test]
async fn the_waiters_for_a_replica_that_is_gone_fetch_when_its_lease_is_over() {
    let Some(fleet) = Replicas::start(3).await else { return };
    fleet.refold.hold();
    let gone = fleet.gateways[ONE].spawn_list("acme-1", "");
    fleet.refold.until_received(1).await;
    fleet.cables[ONE].cut();
    let waiting: Vec<_> = fleet.gateways[1..].iter().map(|gateway| gateway.spawn_list("acme-1", "")).collect();
    until(|| fleet.refold.requests() == 2).await;
    fleet.refold.release();
    for waiting in waiting {
        assert_eq!(waiting.answer().await.status, StatusCode::OK);
    }
    assert_eq!(gone.answer().await.status, StatusCode::OK);
    assert_eq!(fleet.refold.requests(), 2, "one of them fetches for both");
}

#[tokio::test]
async fn a_page_that_was_asked_for_before_a_drop_is_shared_with_nobody() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(OTHER, "acme-1").await;
    fleet.deliver(ONE, "acme-1").await;
    fleet.refold.hold();
    let before = fleet.gateways[ONE].spawn_list("acme-1", "");
    fleet.refold.until_received(2).await;
    let dropped = fleet.deliver(OTHER, "acme-1").await;
    assert_eq!(dropped.status, StatusCode::NO_CONTENT);
    fleet.refold.release();
    assert_eq!(before.answer().await.first_document()["version"], 2);
    for index in [OTHER, ONE] {
        assert_eq!(fleet.version(index, "acme-1").await, 3);
    }
}

#[tokio::test]
async fn an_entry_in_the_place_of_another_accounts_is_a_miss() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    let (entries, generations) = (fleet.keys(ENTRIES), fleet.keys(GENERATIONS));
    fleet.version(ONE, "beta-2").await;
    fleet.until_stored(2).await;
    let (to, generation) = (fleet.only_new_key(ENTRIES, &entries), fleet.only_new_key(GENERATIONS, &generations));
    fleet.copy(&entries[0], &to);
    // One of the two is the tenant's.
    for other in &generations {
        fleet.copy(other, &generation);
        let answer = fleet.gateways[OTHER].list("beta-2", "").await;
        assert!(answer.first_document()["version"].as_u64() > Some(1), "{answer:?}");
        fleet.deliver(OTHER, "beta-2").await;
        fleet.copy(&entries[0], &to);
    }
}

#[tokio::test]
async fn an_entry_that_is_put_back_after_a_drop_is_a_miss() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    fleet.version(OTHER, "acme-1").await;
    let (entries, generations) = (fleet.keys(ENTRIES), fleet.keys(GENERATIONS));
    let all: Vec<_> = entries.iter().chain(&generations).collect();
    for key in &all {
        fleet.copy(key, &format!("saved:{key}"));
    }
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    for key in &all {
        fleet.copy(&format!("saved:{key}"), key);
    }
    for index in [OTHER, ONE] {
        assert!(fleet.version(index, "acme-1").await > 1, "replica {index}");
    }
}

#[tokio::test]
async fn pages_are_shared_again_after_generations_were_set_back() {
    let Some(fleet) = Replicas::start(2).await else { return };
    for step in 0..4 {
        let first = fleet.version(ONE, "acme-1").await;
        assert_eq!(fleet.version(OTHER, "acme-1").await, first);
        let generations = fleet.keys(GENERATIONS);
        for key in &generations {
            fleet.copy(key, &format!("saved:{key}"));
        }
        if step == 1 {
            // The tenant's generation too.
            let json = [("content-type", "application/json")];
            fleet.gateways[ONE].admin_post("/purge", &json, r#"{"tenant":"t"}"#).await;
        } else {
            assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
        }
        for key in &generations {
            match step {
                2 => drop(fleet.redis.query(&["SET", key, "yesterday"])),
                3 => drop(fleet.redis.query(&["SET", key, "9007199254740993"])),
                _ => fleet.copy(&format!("saved:{key}"), key),
            }
        }
        let second = fleet.version(ONE, "acme-1").await;
        assert!(second > first, "step {step}");
        let shared = fleet.gateways[OTHER].list("acme-1", "").await;
        assert_eq!(shared.first_document()["version"], second, "step {step}");
        assert!(shared.cache_status().ends_with("; detail=fleet"), "step {step}: {}", shared.cache_status());
        // And a drop still is one.
        assert_eq!(fleet.deliver(OTHER, "acme-1").await.status, StatusCode::NO_CONTENT);
        assert!(fleet.version(ONE, "acme-1").await > second, "step {step}");
        fleet.deliver(OTHER, "acme-1").await;
    }
}

#[tokio::test]
async fn replicas_with_other_lifetimes_share_no_pages() {
    let Some(mut fleet) = Replicas::start(2).await else { return };
    let changes: [fn(Configuration) -> Configuration; 4] = [
        |config| config.set("cache.freshness.recent", "1m"),
        |config| config.stale("1h", "2h"),
        |config| config.set("cache.honour_no_store", false),
        |config| config,
    ];
    for (step, change) in (1..).zip(changes) {
        fleet.replace(OTHER, change).await;
        fleet.until_together().await;
        let expected = if step == 4 { 1 } else { step + 1 };
        assert_eq!(fleet.version(ONE, "acme-1").await, 1);
        fleet.until_stored(usize::try_from(step).expect("few")).await;
        assert_eq!(fleet.version(OTHER, "acme-1").await, expected, "step {step}");
    }
}

#[tokio::test]
async fn replicas_with_another_version_of_the_format_share_the_budget_and_serve() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    let entry = fleet.keys(ENTRIES).remove(0);
    // As a replica of a later version would have stored it.
    let later = entry.replace("pst:e1:", "pst:e2:");
    fleet.redis.query(&["RENAME", &entry, &later]);
    assert_eq!(fleet.version(OTHER, "acme-1").await, 2);
    fleet.until_stored(1).await;
    assert_eq!(fleet.redis.query(&["EXISTS", &later]), Value::Int(1));
    // Or as a later version that keeps the name would.
    fleet.deliver(ONE, "acme-1").await;
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    for text in ["2", "2 a b c d e", "2 1 1 1 1 1 1"] {
        fleet.redis.query(&["SET", &entry, text]);
        assert_eq!(
            fleet.version(OTHER, "acme-1").await,
            u64::try_from(fleet.refold.requests()).expect("few"),
            "{text}"
        );
        fleet.deliver(ONE, "acme-1").await;
    }
    assert_eq!(fleet.keys("pst:b1:{postern}:up:*").len(), 1, "one budget");
}

#[tokio::test]
async fn the_waiters_for_a_process_that_is_killed_fetch_when_its_lease_is_over() {
    let Some(fleet) = Replicas::start(2).await else { return };
    let config = fleet.configuration(&fleet.redis.url()).one_worker();
    let process = Process::serve_configuration(&config, &[]).await;
    until(|| fleet.redis.query(&["ZCARD", MEMBERS]) == Value::Int(3)).await;
    fleet.refold.hold();
    let client = Client::new(process.address());
    let gone =
        tokio::spawn(async move { client.try_send(Method::GET, EXECUTIONS, &as_account("acme-1")).await.is_err() });
    fleet.refold.until_received(1).await;
    let waiting: Vec<_> = fleet.gateways.iter().map(|gateway| gateway.spawn_list("acme-1", "")).collect();
    until(|| !fleet.keys(WAITERS).is_empty()).await;
    process.signal("KILL");
    let lease: i64 = redis::from_redis_value(fleet.redis.query(&["PTTL", &fleet.keys(LOCKS)[0]])).expect("a number");
    assert!((1..=3000).contains(&lease), "{lease} ms");
    fleet.refold.until_received(2).await;
    fleet.refold.release();
    for waiting in waiting {
        assert_eq!(waiting.answer().await.first_document()["version"], 2);
    }
    assert_eq!(fleet.refold.requests(), 2, "one of them fetches for both");
    assert!(gone.await.expect("no panic"), "the process is gone");
}

#[tokio::test]
async fn an_entry_whose_life_or_content_was_changed_is_a_miss() {
    let Some(fleet) = Replicas::start(2).await else { return };
    for (account, is_head) in [("acme-1", true), ("beta-2", false)] {
        let before = fleet.keys(ENTRIES);
        let version = fleet.version(ONE, account).await;
        fleet.until_stored(before.len() + 1).await;
        let entry = fleet.only_new_key(ENTRIES, &before);
        let head: Vec<u8> =
            redis::from_redis_value(fleet.redis.query(&["GETRANGE", &entry, "0", "127"])).expect("bytes");
        let spaces: Vec<_> = head.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at).collect();
        // The time until which it is fresh begins after the second space, and what is sealed after the third.
        let (at, text) = if is_head { (spaces[1] + 1, "9") } else { (spaces[2] + 40, "?!?!") };
        fleet.redis.query(&["SETRANGE", &entry, &at.to_string(), text]);
        let answer = fleet.gateways[OTHER].list(account, "").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.first_document()["version"].as_u64() > Some(version), "{answer:?}");
    }
}

#[tokio::test]
async fn an_entry_whose_life_is_no_time_is_replaced() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    let entry = fleet.keys(ENTRIES).remove(0);
    let get = || redis::from_redis_value::<Vec<u8>>(fleet.redis.query(&["GET", &entry])).expect("bytes");
    let head = |text: Vec<u8>| String::from_utf8_lossy(&text).splitn(4, ' ').map(str::to_owned).collect::<Vec<_>>();
    let [generation, asked, ..] = &head(get())[..] else { panic!("an entry has a head") };
    let until = "9".repeat(30);
    fleet.redis.query(&["SET", &entry, &format!("{generation} {asked} {until} text")]);
    assert_eq!(fleet.version(OTHER, "acme-1").await, 2);
    fleet.until_stored(1).await;
    assert!(head(get())[2] != until, "the next replica finds the new one");
}

#[tokio::test]
async fn a_dump_of_the_server_tells_no_account_key_or_page() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.until_stored(1).await;
    fleet.version(OTHER, "acme-1").await;
    fleet.refold.hold();
    fleet.refold.answer_with(404);
    let failing = [ONE, OTHER].map(|index| fleet.gateways[index].spawn_list("beta-2", ""));
    until(|| !fleet.keys(WAITERS).is_empty()).await;
    fleet.refold.release();
    for failing in failing {
        assert_eq!(failing.answer().await.status, StatusCode::NOT_FOUND);
    }
    fleet.deliver(ONE, "acme-1").await;
    let mut dump = Vec::new();
    for key in fleet.keys("*") {
        dump.extend_from_slice(key.as_bytes());
        let kind: String = redis::from_redis_value(fleet.redis.query(&["TYPE", &key])).expect("a type");
        let value = match kind.as_str() {
            "string" => fleet.redis.query(&["GET", &key]),
            "hash" => fleet.redis.query(&["HGETALL", &key]),
            "zset" => fleet.redis.query(&["ZRANGE", &key, "0", "-1"]),
            "stream" => fleet.redis.query(&["XRANGE", &key, "-", "+"]),
            other => panic!("{key} is a {other}"),
        };
        collect(&value, &mut dump);
    }
    let has = |text: &str| dump.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("dropped") && has("landed"), "the log is part of it");
    for secret in ["acme", "beta", KEY, ORG_KEY, "docs", "COMPLETED", "execution", "tenant\0t", "api/v2"] {
        assert!(!has(secret), "{secret}");
    }
}

/// The texts in an answer of Redis.
fn collect(value: &Value, texts: &mut Vec<u8>) {
    match value {
        Value::BulkString(text) => texts.extend_from_slice(text),
        Value::Array(values) => values.iter().for_each(|value| collect(value, texts)),
        _ => {}
    }
    texts.push(0);
}

#[tokio::test]
async fn a_server_without_free_memory_stores_nothing_and_fails_no_request() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.redis.query(&["CONFIG", "SET", "maxmemory", "1"]);
    for (index, expected) in [(ONE, 1), (OTHER, 2)] {
        assert_eq!(fleet.version(index, "acme-1").await, expected);
    }
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT, "drops still work");
    assert_eq!(fleet.version(OTHER, "acme-1").await, 3);
    assert!(fleet.is_current(ONE) && fleet.is_current(OTHER));
}
