//! The request examples of the endpoint's documentation page, with the host and the key changed and nothing else.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{EXECUTIONS, World, as_account};

const PAGE_FIELDS: [&str; 10] = [
    "docs",
    "totalDocs",
    "limit",
    "totalPages",
    "page",
    "pagingCounter",
    "hasPrevPage",
    "hasNextPage",
    "prevPage",
    "nextPage",
];

const DOCUMENT_FIELDS: [&str; 9] = [
    "_id",
    "createdAt",
    "name",
    "associated_application",
    "status",
    "associated_workflow",
    "environment",
    "config_id",
    "associated_event_id",
];

#[tokio::test]
async fn every_request_example_gives_the_documented_response() {
    let world = World::start().await;
    for query in [
        "page=1&limit=10&status=All&execution_source=All",
        "page=1&limit=10&status=ERRORED",
        "page=1&limit=10&status=All&start_date=2026-03-10&end_date=2026-03-14",
    ] {
        let answer = world.list("globex", query).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
        assert_eq!(answer.header("content-type"), "application/json");
        let page = answer.json();
        let fields: Vec<&str> = page.as_object().expect("an object").keys().map(String::as_str).collect();
        for field in PAGE_FIELDS {
            assert!(fields.contains(&field), "{query}: {field}");
        }
        assert_eq!(fields.len(), PAGE_FIELDS.len(), "{query}: nothing else");
        let docs = page["docs"].as_array().expect("an array");
        assert_eq!(docs.len(), 10, "{query}");
        for document in docs {
            for field in DOCUMENT_FIELDS {
                assert!(!document[field].is_null(), "{query}: {field}");
            }
            if query.contains("ERRORED") {
                assert_eq!(document["status"], "ERRORED");
            }
            if query.contains("start_date") {
                let created = document["createdAt"].as_str().expect("a string");
                assert!(("2026-03-10"..="2026-03-14T23:59:59.999Z").contains(&created), "{created}");
            }
        }
        assert_eq!((&page["page"], &page["limit"], &page["pagingCounter"]), (&json!(1), &json!(10), &json!(1)));
        assert_eq!((&page["hasPrevPage"], &page["prevPage"]), (&json!(false), &json!(null)));
        assert_eq!((&page["hasNextPage"], &page["nextPage"]), (&json!(true), &json!(2)));
    }
}

#[tokio::test]
async fn the_documented_errors_are_reproduced_exactly() {
    let world = World::start().await;
    let (_, key) = as_account("acme-1")[0];
    let missing = world.gateway.get(EXECUTIONS, &[("x-api-key", key)]).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    let id = missing.header("x-request-id").to_owned();
    assert_eq!(
        missing.json(),
        json!({
            "status_code": 400,
            "error_code": "BAD_REQUEST",
            "http_error_type": "INVALID_LINKED_ACCOUNT_ID",
            "message": "linked_account_id or org_id is required",
            "request_id": id,
        })
    );
    let unknown = world.gateway.get(EXECUTIONS, &[("x-api-key", "no such key"), ("linked_account_id", "acme-1")]).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert!(!unknown.header("www-authenticate").is_empty());
    let id = unknown.header("x-request-id").to_owned();
    assert_eq!(
        unknown.json(),
        json!({
            "status_code": 401,
            "http_error_type": "UNAUTHORIZED",
            "error_code": "SERVER_ERROR",
            "message": "Invalid Credentials",
            "request_id": id,
        })
    );
    assert_eq!(world.refold.requests(), 0);
}

#[tokio::test]
async fn an_execution_and_its_batches_can_be_read() {
    let world = World::start().await;
    let id = world.list("acme-1", "limit=1").await.first_id();
    let one = world.gateway.get(&format!("{EXECUTIONS}/{id}"), &as_account("acme-1")).await;
    assert_eq!((one.status, one.json()["_id"].as_str()), (StatusCode::OK, Some(id.as_str())));
    let strange = world.gateway.get(&format!("{EXECUTIONS}/{id}?foo=1"), &as_account("acme-1")).await;
    assert_eq!((strange.status, strange.error_code().as_str()), (StatusCode::BAD_REQUEST, "UNKNOWN_PARAMETER"));
    let target = format!("{EXECUTIONS}/{id}/nodes/2/batches?limit=05&page=2");
    let batches = world.gateway.get(&target, &as_account("acme-1")).await.json();
    assert_eq!((&batches["limit"], &batches["page"], &batches["totalDocs"]), (&json!(5), &json!(2), &json!(12)));
    let none = world.gateway.get(&format!("{EXECUTIONS}/65ffffffffffffffffffffff"), &as_account("acme-1")).await;
    // The upstream names the field `error`; the documented contract names it `error_code`.
    assert_eq!((none.status, none.error_code().as_str()), (StatusCode::NOT_FOUND, "EXECUTION_NOT_FOUND"));
    assert_ne!(none.json()["request_id"], none.header("x-request-id"), "the upstream's id is kept");
}

#[tokio::test]
async fn after_a_stop_or_rerun_its_caller_sees_the_effect() {
    let world = World::start().await;
    let account = as_account("acme-1");
    world.clock.advance(Duration::from_secs(45));
    let id = world.list("acme-1", "status=RUNNING&limit=1").await.first_id();
    let before = world.list("acme-1", "").await.total();
    let stopped = world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/stop"), &account).await;
    assert_eq!(stopped.status, StatusCode::OK);
    let one = world.gateway.get(&format!("{EXECUTIONS}/{id}"), &account).await.json();
    assert_eq!(one["status"], "STOPPED");
    let rerun = world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/rerun"), &account).await;
    assert_eq!(rerun.status, StatusCode::OK);
    assert_eq!(world.list("acme-1", "").await.total(), before + 1);
}

#[tokio::test]
async fn both_dialects_are_spoken() {
    for dialect in ["documented", "v3"] {
        let world = World::builder().config(|config| config.set("upstream.dialect", dialect)).start().await;
        let query = "execution_source=api-call&start_date=2026-03-01&end_date=2026-03-14&execution_type=sync";
        let answer = world.list("acme-1", query).await;
        assert_eq!(answer.status, StatusCode::OK, "{dialect}: {:?}", answer.body);
        for document in answer.json()["docs"].as_array().expect("an array") {
            assert_eq!(document["execution_source"], "API Call");
        }
    }
}
