//! The data of the status page: client keys, events, errors apart, and the resources of the explorer.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{ClientKey, Configuration, EXECUTIONS, KEY, World, as_account};

async fn status(world: &World) -> Value {
    world.gateway.admin("/status", &[]).await.json()
}

/// The names and details of the events, newest first.
fn events(status: &Value) -> Vec<(&str, &str)> {
    let events = status["events"].as_array().expect("a list").iter();
    events.map(|event| (event["event"].as_str().unwrap_or(""), event["details"].as_str().unwrap_or(""))).collect()
}

#[tokio::test]
async fn the_status_shows_the_use_of_each_client_key() {
    let keys = [
        ClientKey::new("dashboard", KEY),
        ClientKey::new("batch", "pst_batch").limit(1, 2),
        ClientKey::new("old", "pst_old").expires("2020-01-01"),
        ClientKey::new("idle", "pst_idle"),
    ];
    let world = World::builder().config(|config| config.admin().client_keys(keys)).start().await;
    for (key, requests) in [(KEY, 2), ("pst_batch", 5), ("pst_old", 1), ("pst_unknown", 3)] {
        for _ in 0..requests {
            world.gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "acme-1")]).await;
        }
    }
    world.clock.advance(Duration::from_secs(7));
    let of = |status: &Value, name: &str, field: &str| {
        let keys = status["client_keys"].as_array().expect("a list");
        keys.iter().find(|key| key["name"] == name).expect("the key")[field].clone()
    };
    let shown = status(&world).await;
    for (name, requests, limited, last_used) in
        [("dashboard", 2, 0, json!(7)), ("batch", 5, 3, json!(7)), ("old", 1, 0, json!(7)), ("idle", 0, 0, Value::Null)]
    {
        let counts = ["requests", "limited", "last_used_seconds_ago"].map(|field| of(&shown, name, field));
        assert_eq!(counts, [json!(requests), json!(limited), last_used], "{name}");
    }
    assert_eq!((of(&shown, "batch", "per_second"), of(&shown, "idle", "per_second")), (json!(1), Value::Null));
    assert_eq!(of(&shown, "old", "expires"), "2020-01-01T00:00:00Z");
    // The counts of a key outlive a reload.
    world.gateway.reload(&world.config().set("cache.freshness.recent", "9s"));
    assert_eq!(of(&status(&world).await, "batch", "requests"), json!(5));
}

#[tokio::test]
async fn the_status_shows_reloads_purges_and_circuits_as_events() {
    let world = World::builder().config(|config| config.admin().breaker(1, "5s").retries(0)).start().await;
    assert_eq!(events(&status(&world).await), []);
    world.gateway.reload(&world.config().set("cache.freshness.recent", "9s"));
    let json = ("content-type", "application/json");
    for body in [r#"{"tenant":"t","linked_account":"acme-1"}"#, r#"{"all":true}"#] {
        assert_eq!(world.gateway.admin_post("/purge", &[json], body).await.status, StatusCode::OK);
    }
    world.refold.set_fault(Some("status=503".parse().expect("a fault")));
    world.list("acme-1", "").await;
    let shown = status(&world).await;
    let seen = events(&shown);
    let names: Vec<_> = seen.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["upstream_circuit_opened", "purged", "purged", "config_reloaded"]);
    assert_eq!((seen[1].1, seen[2].1), ("", "acme-1"));
    assert!(seen[3].1.contains("recent"), "{seen:?}");
    assert_eq!((&shown["events"][0]["tenant"], &shown["events"][1]["tenant"]), (&json!("t"), &Value::Null));
    assert!(shown["host"].as_str().is_some_and(|host| !host.is_empty()));
}

#[tokio::test]
async fn a_flood_of_refused_requests_does_not_displace_a_failure() {
    let world = World::builder().config(|config| config.admin().retries(0)).start().await;
    world.refold.set_fault(Some("status=503".parse().expect("a fault")));
    let failed = world.list("acme-1", "").await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..60 {
        world.list("acme-1", "limit=0").await;
    }
    world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_unknown"), ("linked_account_id", "acme-1")]).await;
    let shown = status(&world).await;
    let errors = shown["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 51);
    assert_eq!((&errors[0]["status"], &errors[0]["request_id"]), (&json!(503), &json!(failed.header("x-request-id"))));
    assert_eq!((&errors[0]["caller"], &errors[2]["caller"]), (&json!("all"), &json!("all")));
    assert_eq!((&errors[1]["status"], &errors[1]["caller"]), (&json!(401), &Value::Null));
    assert!(errors[1]["reason"].is_string(), "{}", errors[1]);
}

#[tokio::test]
async fn the_explorer_reads_documents_and_batches() {
    let world = World::builder().config(Configuration::admin).start().await;
    let explore = async |target: &str| {
        let answer = world.gateway.admin(&format!("/explore{target}"), &as_account("acme-1")).await;
        (answer.status, answer.json())
    };
    let (_, list) = explore("?limit=1").await;
    let id = list["body"]["docs"][0]["_id"].as_str().expect("an id").to_owned();
    let (_, document) = explore(&format!("{EXECUTIONS}/{id}")).await;
    assert_eq!((&document["status"], &document["body"]["_id"]), (&json!(200), &json!(id)));
    assert_eq!(document["question"]["canonical"], json!(format!("{EXECUTIONS}/{id}")));
    let (_, batches) = explore(&format!("{EXECUTIONS}/{id}/nodes/n1/batches?limit=2")).await;
    let canonical = batches["question"]["canonical"].as_str().unwrap_or_default();
    assert!(canonical.starts_with(&format!("{EXECUTIONS}/{id}/nodes/n1/batches?page=1&limit=2")), "{batches}");
    assert_eq!(world.gateway.requests_of("acme-1"), 3, "the explanation of a request is no request");
    let (_, missing) = explore(&format!("{EXECUTIONS}/unknown")).await;
    assert_eq!((&missing["status"], missing["body"]["error_code"].is_string()), (&json!(404), true));
    for other in [
        format!("{EXECUTIONS}/{id}/stop"),
        "/api/v2/public/slug".to_owned(),
        "/hooks/refold/t".to_owned(),
        "/".to_owned(),
        format!("{EXECUTIONS}/{id}/nodes/n1"),
    ] {
        assert_eq!(explore(&other).await.0, StatusCode::NOT_FOUND, "{other}");
    }
}
