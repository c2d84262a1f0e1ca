//! Renewals that fail: their callers get stale pages, and operators see the reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::connection::with_key;
use crate::support::program::Program;
use crate::support::{Configuration, EXECUTIONS, KEY, ORG_KEY, PreparedRefold, World, eventually, http_upstream};

fn answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The groups of failed renewals after the renewal of a page of `acme-1` was answered 500 with this body.
async fn shown(body: Value, config: impl Fn(Configuration) -> Configuration) -> Vec<Value> {
    groups(&failed(body, config).await).await
}

async fn groups(world: &World<PreparedRefold>) -> Vec<Value> {
    let status = world.gateway.admin("/status", &[]).await.json();
    assert_eq!(status["errors"], json!([]), "no caller has seen an error");
    status["renewal_errors"].as_array().expect("a list").clone()
}

/// A world in which the renewal of a page of `acme-1` was answered 500 with this body.
async fn failed(body: Value, config: impl Fn(Configuration) -> Configuration) -> World<PreparedRefold> {
    let refold = PreparedRefold::new([answer(200, &json!({ "docs": [], "totalDocs": 0 })), answer(500, &body)]);
    let config = |all: Configuration| config(all.admin().stale("1h", "1h").retries(0));
    let world = World::builder().refold(refold).config(config).start().await;
    world.list("acme-1", "").await;
    world.clock.advance(Duration::from_secs(6));
    assert!(world.list("acme-1", "").await.cache_status().ends_with("detail=stale"));
    eventually(async || !groups(&world).await.is_empty()).await;
    world
}

#[tokio::test]
async fn a_failed_renewal_is_shown_with_the_words_of_refold() {
    let body = json!({ "error_code": "SHARD_LOST", "message": "no \u{1b}shard for acme-1", "request_id": "req-7" });
    let last = json!([{
        "seconds_ago": 0.0, "query": "/api/v2/public/execution?page=1&limit=10",
        "upstream_message": "no  shard for acme-1", "upstream_request_id": "req-7",
    }]);
    let group = json!({
        "error_code": "SHARD_LOST", "upstream_status": 500, "tenant": "t", "linked_account": "acme-1",
        "count": 1, "first_seconds_ago": 0.0, "seconds_ago": 0.0, "last": last,
    });
    assert_eq!(shown(body, |config| config).await, [group]);
}

#[tokio::test]
async fn a_hidden_account_does_not_appear_in_the_words_of_refold() {
    for message in ["no shard for acme-1", "no shard for ACME%2D1", "no shard, as for globex"] {
        let body = json!({ "message": message, "request_id": "req-7" });
        for naming in ["hashed", "none"] {
            let groups = shown(body.clone(), |config| config.set("log.linked_accounts", naming)).await;
            let [group] = &groups[..] else { panic!("one") };
            assert_ne!(group["linked_account"], "acme-1");
            let last = &group["last"][0];
            let words = (&last["upstream_message"], &last["upstream_request_id"]);
            assert_eq!(words, (&Value::Null, &json!("req-7")), "{message}");
        }
    }
    let body = json!({ "message": "no shard", "request_id": "Acme-1-7" });
    let groups = shown(body, |config| config.set("log.linked_accounts", "none")).await;
    assert_eq!(groups[0]["last"][0]["upstream_request_id"], Value::Null);
}

#[tokio::test]
async fn a_reload_hides_the_accounts_of_renewals_that_failed_before() {
    let body = json!({ "message": "no shard for acme-1", "request_id": "acme-1-7" });
    let world = failed(body, |config| config).await;
    assert_eq!(groups(&world).await[0]["linked_account"], "acme-1");
    for naming in ["hashed", "none"] {
        world.gateway.reload(&world.config().set("log.linked_accounts", naming));
        let groups = json!(groups(&world).await).to_string();
        assert!(!groups.contains("acme-1"), "{groups}");
    }
}

#[tokio::test]
async fn an_org_key_in_the_words_of_refold_is_not_shown() {
    let body = json!({ "error_code": ORG_KEY, "message": format!("key {ORG_KEY}"), "request_id": ORG_KEY });
    let groups = json!(shown(body, |config| config).await);
    assert!(!groups.to_string().contains(ORG_KEY), "{groups}");
    assert_eq!(groups[0]["error_code"], "INTERNAL_SERVER_ERROR");
}

#[tokio::test]
async fn a_session_token_in_the_words_of_refold_is_not_repeated() {
    let body = json!({ "message": "unknown token a-session-token", "request_id": "a-session-token" });
    let world =
        World::builder().refold(PreparedRefold::new([answer(500, &body)])).config(|all| all.retries(0)).start().await;
    let refused = world.gateway.get(EXECUTIONS, &[("authorization", "Bearer a-session-token")]).await;
    assert_eq!(refused.status, 500);
    assert!(!String::from_utf8_lossy(&refused.body).contains("a-session-token"), "{refused:?}");
}

#[tokio::test]
async fn a_failed_renewal_is_logged_with_the_words_of_refold() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let address = http_upstream(move |_| {
        let fails = failing.load(Ordering::SeqCst);
        async move {
            let error = json!({ "error_code": "SHARD_LOST", "message": "x".repeat(2000), "request_id": "req-7" });
            let body = if fails { error } else { json!({ "docs": [], "totalDocs": 0 }) };
            let mut response = Response::new(Full::new(body.to_string().into()));
            *response.status_mut() = if fails { http::StatusCode::INTERNAL_SERVER_ERROR } else { http::StatusCode::OK };
            response
        }
    })
    .await;
    let config = |config: Configuration| {
        let stale = config.retries(0).stale("1h", "1h");
        stale.set("cache.freshness.recent", "1ms").set("cache.freshness.live", "1ms")
    };
    let mut program = Program::start_before(address, config, None).await;
    let lines = with_key(KEY, "acme-1");
    program.ask(EXECUTIONS, &lines).await;
    fails.store(true, Ordering::SeqCst);
    eventually(async || program.ask(EXECUTIONS, &lines).await.contains("detail=stale")).await;
    program.0.until_logged("\"renewal_failed\"", 1).await;
    let logged = program.events().await.into_iter().find(|line| line["message"] == "renewal_failed").expect("a line");
    assert_eq!((&logged["error_code"], &logged["upstream_request_id"]), (&json!("SHARD_LOST"), &json!("req-7")));
    assert_eq!(logged["upstream_message"], json!(format!("{}…", "x".repeat(512))));
}
