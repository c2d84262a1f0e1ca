//! Drops at one replica of a fleet, which no other replica serves afterwards; and a replica that is cut off.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::support::replicas::Replicas;
use crate::support::{Configuration, EXECUTIONS, as_account, eventually, pass, until};

const ONE: usize = 0;
const OTHER: usize = 1;

#[tokio::test]
async fn after_a_webhook_at_one_replica_no_other_serves_an_older_page() {
    let Some(fleet) = Replicas::start(3).await else { return };
    for _ in 0..20 {
        for index in 0..3 {
            fleet.version(index, "acme-1").await;
            fleet.version(index, "beta-2").await;
        }
        let latest = u64::try_from(fleet.refold.requests()).expect("few");
        let kept = fleet.version(OTHER, "beta-2").await;
        assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
        for index in [OTHER, ONE, 2] {
            let version = fleet.version(index, "acme-1").await;
            assert!(version > latest, "replica {index} served {version}, which is no newer than {latest}");
        }
        assert_eq!(fleet.version(OTHER, "beta-2").await, kept, "the other account's pages stay");
    }
}

#[tokio::test]
async fn a_rerun_and_a_purge_at_one_replica_drop_the_pages_of_all() {
    let Some(fleet) = Replicas::start(2).await else { return };
    let rerun = format!("{EXECUTIONS}/e1/rerun");
    for step in 0..4 {
        fleet.version(ONE, "acme-1").await;
        fleet.version(OTHER, "acme-1").await;
        let latest = u64::try_from(fleet.refold.requests()).expect("few");
        let one = &fleet.gateways[ONE];
        let json = [("content-type", "application/json")];
        let answer = match step {
            0 => one.post(&rerun, &as_account("acme-1"), "").await,
            1 => one.admin_post("/purge", &json, r#"{"tenant":"t","linked_account":"acme-1"}"#).await,
            2 => one.admin_post("/purge", &json, r#"{"tenant":"t"}"#).await,
            _ => one.admin_post("/purge", &json, r#"{"all":true}"#).await,
        };
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert!(!answer.cache_status().contains("detail"), "{answer:?}");
        assert!(fleet.version(OTHER, "acme-1").await > latest, "step {step}");
    }
}

#[tokio::test]
async fn a_replica_that_is_cut_off_serves_what_it_holds_as_stale_and_says_so() {
    let Some(fleet) = Replicas::start_with(2, |config| config.stale("1h", "1h")).await else { return };
    let held = fleet.version(OTHER, "acme-1").await;
    fleet.cut_off(OTHER).await;
    let answer = fleet.gateways[OTHER].list("acme-1", "").await;
    assert_eq!(answer.first_document()["version"], held);
    assert!(answer.is_hit() && answer.cache_status().ends_with("; detail=stale-cut-off"), "{}", answer.cache_status());
    assert_eq!(answer.header("cache-control"), "private, max-age=0");
    // It is renewed in the background, and stays stale.
    fleet.refold.until_received(2).await;
    eventually(async || fleet.version(OTHER, "acme-1").await > held).await;
    let renewed = fleet.gateways[OTHER].list("acme-1", "").await;
    assert!(renewed.cache_status().ends_with("; detail=stale-cut-off"), "{}", renewed.cache_status());
    // While Refold fails too, it is served all the same.
    fleet.refold.answer_with(503);
    assert_eq!(fleet.gateways[OTHER].list("acme-1", "").await.status, StatusCode::OK);
    fleet.refold.answer_with(200);
    fleet.reconnect(OTHER).await;
    let after = fleet.gateways[OTHER].list("acme-1", "").await;
    assert!(after.is_hit() && !after.cache_status().contains("detail"), "{}", after.cache_status());
}

#[tokio::test]
async fn a_replica_that_refuses_when_cut_off_serves_nothing_it_holds() {
    let change = |config: Configuration| config.stale("1h", "1h").set("fleet.when_cut_off", "refuse");
    let Some(fleet) = Replicas::start_with(1, change).await else { return };
    let held = fleet.version(ONE, "acme-1").await;
    fleet.cut_off(ONE).await;
    assert!(fleet.version(ONE, "acme-1").await > held);
    fleet.refold.answer_with(503);
    let answer = fleet.gateways[ONE].list("acme-1", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
}

#[tokio::test]
async fn a_replica_that_is_cut_off_asks_for_a_webhook_again_and_marks_a_rerun() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(ONE, "acme-1").await;
    fleet.version(OTHER, "acme-1").await;
    fleet.version(OTHER, "beta-2").await;
    fleet.cut_off(OTHER).await;
    let latest = u64::try_from(fleet.refold.requests()).expect("few");
    let refused = fleet.deliver(OTHER, "acme-1").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(fleet.version(OTHER, "acme-1").await > latest, "its own pages are dropped");
    let rerun = fleet.gateways[OTHER].post(&format!("{EXECUTIONS}/e1/rerun"), &as_account("beta-2"), "").await;
    assert_eq!(rerun.cache_status(), "postern; fwd=method; detail=dropped-on-this-replica-only");
    let purge = fleet.gateways[OTHER].admin_post(
        "/purge",
        &[("content-type", "application/json")],
        r#"{"tenant":"t","linked_account":"beta-2"}"#,
    );
    assert_eq!(purge.await.json()["only_this_replica"], true);
    // Back again, it tells the others before it trusts anything itself.
    fleet.reconnect(OTHER).await;
    fleet.until_together().await;
    assert!(fleet.version(ONE, "acme-1").await > latest);
    assert_eq!(fleet.deliver(OTHER, "acme-1").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_replica_that_missed_drops_serves_nothing_older_when_it_is_back() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(OTHER, "acme-1").await;
    let kept = fleet.version(OTHER, "beta-2").await;
    fleet.cut_off(OTHER).await;
    // The others do not wait for it longer than it trusts what it holds.
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    let latest = u64::try_from(fleet.refold.requests()).expect("few");
    fleet.reconnect(OTHER).await;
    assert!(fleet.version(OTHER, "acme-1").await > latest);
    assert_eq!(fleet.version(OTHER, "beta-2").await, kept, "the log has no gap, so other pages stay");
}

#[tokio::test]
async fn a_connected_replica_without_the_log_serves_nothing_older_than_a_drop() {
    let Some(fleet) = Replicas::start_with(2, |config| config.stale("1h", "1h")).await else { return };
    let held = fleet.version(OTHER, "acme-1").await;
    fleet.cables[OTHER].cut_log();
    // The other one does not confirm it, so it takes as long as trust lasts.
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    assert!(!fleet.is_current(OTHER));
    // On a busy machine its beats may be late, and then it is cut off.
    eventually(async || {
        let connected_until = fleet.connected_until(OTHER);
        let answer = fleet.gateways[OTHER].list("acme-1", "").await;
        let is_newer = answer.first_document()["version"].as_u64() > Some(held);
        let is_connected = connected_until.is_some_and(|until| fleet.clock.now() < until);
        assert!(is_newer || !is_connected, "{}", answer.cache_status());
        is_newer
    })
    .await;
    // It is no answer to an error either.
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    fleet.refold.answer_with(503);
    assert_eq!(fleet.gateways[OTHER].list("acme-1", "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    fleet.refold.answer_with(200);
    fleet.reconnect(OTHER).await;
    let latest = fleet.version(OTHER, "acme-1").await;
    assert_eq!(fleet.version(OTHER, "acme-1").await, latest);
}

#[tokio::test]
async fn a_connected_replica_without_the_log_joins_no_fetch_from_before_a_drop() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.refold.hold();
    let before = fleet.gateways[OTHER].spawn_list("acme-1", "");
    fleet.refold.until_received(1).await;
    fleet.cables[OTHER].cut_log();
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    // On a busy machine its beats may be late, and then it is cut off.
    let mut later = Vec::new();
    eventually(async || {
        later.push(fleet.gateways[OTHER].spawn_list("acme-1", ""));
        pass(Duration::from_millis(20)).await;
        fleet.refold.requests() >= 2
    })
    .await;
    fleet.refold.release();
    assert_eq!(before.answer().await.first_document()["version"], 1);
    let last = later.pop().expect("one was asked").answer().await;
    assert!(last.first_document()["version"].as_u64() > Some(1), "{last:?}");
}

#[tokio::test]
async fn what_a_replica_holds_is_no_answer_to_an_error_beyond_its_stale_window_while_it_is_cut_off() {
    let Some(fleet) = Replicas::start(2).await else { return };
    fleet.version(OTHER, "acme-1").await;
    fleet.cut_off(OTHER).await;
    fleet.refold.answer_with(503);
    let answer = fleet.gateways[OTHER].list("acme-1", "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
}

#[tokio::test]
async fn a_page_that_was_dropped_during_a_fetch_is_no_answer_to_its_error() {
    let Some(fleet) = Replicas::start_with(2, |config| config.stale("0s", "1h")).await else { return };
    fleet.version(OTHER, "acme-1").await;
    fleet.cut_off(OTHER).await;
    fleet.refold.hold();
    let pending = fleet.gateways[OTHER].spawn_list("acme-1", "");
    fleet.refold.until_received(2).await;
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    fleet.reconnect(OTHER).await;
    fleet.refold.answer_with(503);
    fleet.refold.release();
    let answer = pending.answer().await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
}

#[tokio::test]
async fn a_drop_after_the_server_has_lost_its_members_is_not_taken_for_known() {
    const CONFIRMED: &str = "postern_fleet_drops_total{reach=\"confirmed\"}";
    let Some(fleet) = Replicas::start(2).await else { return };
    // Until the gap between beats that a start is has passed.
    eventually(async || {
        fleet.deliver(ONE, "beta-2").await;
        fleet.has_counted(ONE, CONFIRMED)
    })
    .await;
    let before = fleet.metric(ONE, CONFIRMED);
    fleet.redis.query(&["FLUSHALL"]);
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    assert!(fleet.metric(ONE, CONFIRMED) < before + 0.5, "the server does not know who holds the page");
    eventually(async || {
        fleet.deliver(ONE, "beta-2").await;
        fleet.metric(ONE, CONFIRMED) > before + 0.5
    })
    .await;
}

#[tokio::test]
async fn the_status_says_why_the_log_is_not_read() {
    let Some(fleet) = Replicas::start(2).await else { return };
    let problem = async || fleet.gateways[OTHER].admin("/status", &[]).await.json()["fleet"]["problem"].clone();
    assert_eq!(problem().await, Value::Null);
    fleet.cables[OTHER].cut_log();
    eventually(async || problem().await.as_str().is_some_and(|text| text.starts_with("the log can't be read: "))).await;
    fleet.cables[OTHER].mend();
    eventually(async || problem().await == Value::Null).await;
}

#[tokio::test]
async fn an_entry_of_the_log_that_no_replica_wrote_is_passed_over() {
    const FORGOTTEN: &str = "postern_fleet_cache_forgotten_total";
    const CONNECTIONS: &str = "postern_fleet_connections_total";
    let Some(fleet) = Replicas::start(2).await else { return };
    let before = [FORGOTTEN, CONNECTIONS].map(|name| fleet.metric(OTHER, name));
    let foreign: [&[&str]; 4] = [
        &["it", "is"],
        &["after", "0-0", "tenant", "t", "dropped", "*", "generation", "many"],
        &["after", "somewhere", "landed", "question", "outcome", "again"],
        &["after", "0-0", "tenant", "t", "dropped", "*", "generation", "9007199254740993"],
    ];
    for (count, fields) in (1..).zip(foreign) {
        fleet.version(OTHER, "acme-1").await;
        fleet.redis.query(&[&["XADD", "pst:b1:{postern}:log", "*"], fields].concat());
        // It may have meant a drop.
        until(|| fleet.metric(OTHER, FORGOTTEN) >= before[0] + f64::from(count)).await;
        until(|| fleet.is_current(OTHER)).await;
        assert!(fleet.metric(OTHER, FORGOTTEN) < before[0] + f64::from(count) + 0.5, "once");
    }
    let latest = fleet.version(OTHER, "acme-1").await;
    assert_eq!(fleet.deliver(ONE, "acme-1").await.status, StatusCode::NO_CONTENT);
    assert!(fleet.version(OTHER, "acme-1").await > latest);
    assert!(fleet.metric(OTHER, CONNECTIONS) < before[1] + 0.5, "it stays connected");
}

#[tokio::test]
async fn all_pages_are_forgotten_when_the_server_has_lost_its_state() {
    let Some(mut fleet) = Replicas::start(2).await else { return };
    for step in 0..2 {
        fleet.version(ONE, "acme-1").await;
        fleet.version(OTHER, "acme-1").await;
        let latest = u64::try_from(fleet.refold.requests()).expect("few");
        if step == 0 {
            fleet.redis.query(&["FLUSHALL"]);
        } else {
            fleet.redis.kill();
            fleet.redis.restart_empty().await;
        }
        // A beat of each replica, at least: the epoch is another one.
        eventually(async || fleet.version(OTHER, "acme-1").await > latest).await;
        eventually(async || fleet.version(ONE, "acme-1").await > latest).await;
        fleet.until_together().await;
    }
}
