//! Answers that follow from others in the cache with certainty cost no request.

use std::time::Duration;

use http::Method;

use crate::harness::{EXECUTIONS, Setup, World, as_account};

/// Seven executions, and a new one every minute.
const SMALL: &str = "umbrella@example.com";

const DERIVED: &str = "postern; hit; ttl=5; detail=derived";

#[tokio::test]
async fn a_filter_of_a_list_that_is_known_whole_is_derived_and_kept() {
    let world = World::start().await;
    let list = world.list(SMALL, "").await.json();
    for query in ["status=COMPLETED", "execution_source=Event", "limit=3&page=2", "limit=5&execution_type=ASYNC"] {
        let answer = world.list(SMALL, query).await;
        assert_eq!(answer.header("cache-status"), DERIVED, "{query}");
        assert_eq!(world.list(SMALL, query).await.header("cache-status"), "postern; hit; ttl=5", "{query}");
        for document in answer.json()["docs"].as_array().expect("an array") {
            assert!(list["docs"].as_array().expect("an array").contains(document));
        }
    }
    assert_eq!(world.refold.requests(), 1);
    // What does not follow is asked.
    assert_eq!(world.list(SMALL, "workflow_name=x").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "status=ERRORED").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "limit=50").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "limit=10&page=5").await.header("cache-status"), DERIVED);
}

#[tokio::test]
async fn what_an_answer_follows_from_is_renewed_in_its_place_for_both() {
    let world = World::start().await;
    world.list(SMALL, "").await;
    world.list(SMALL, "status=ERRORED").await;
    world.clock.advance(Duration::from_secs(6));
    let renewed = world.list(SMALL, "status=ERRORED").await;
    assert_eq!((renewed.header("cache-status"), renewed.header("age")), (DERIVED, "0"));
    assert_eq!(world.list(SMALL, "").await.header("cache-status"), "postern; hit; ttl=5");
    assert_eq!(world.refold.requests(), 2);
    // When the list has outgrown the page, the answer follows from it no longer.
    world.clock.advance(Duration::from_mins(30));
    let fetched = world.list(SMALL, "status=ERRORED").await;
    assert_eq!(fetched.header("cache-status"), "postern; fwd=stale; stored");
    assert_eq!(world.refold.requests(), 4);
}

#[tokio::test]
async fn what_was_dropped_or_is_not_wanted_from_the_cache_derives_nothing() {
    let setup = Setup::default();
    let tenant = format!("request_directives = [\"no-cache\"]\n{}", setup.tenant);
    let world = Setup { tenant, ..setup }.start().await;
    world.list(SMALL, "").await;
    let headers = [as_account(SMALL).as_slice(), &[("cache-control", "no-cache")]].concat();
    let asked = world.gateway.get(&format!("{EXECUTIONS}?status=ERRORED"), &headers).await;
    assert_eq!(asked.header("cache-status"), "postern; fwd=uri-miss; stored");
    let id = world.list(SMALL, "").await.json()["docs"][0]["_id"].as_str().expect("an id").to_owned();
    world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/rerun"), &as_account(SMALL)).await;
    let running = world.list(SMALL, "status=RUNNING").await;
    assert_eq!(running.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(running.json()["totalDocs"], 1);
}

#[tokio::test]
async fn a_tenant_that_wants_no_derived_answers_gets_none() {
    let setup = Setup::default();
    let world = Setup { top: format!("{}[cache]\nderive = false\n", setup.top), ..setup }.start().await;
    world.list(SMALL, "").await;
    assert_eq!(world.list(SMALL, "status=ERRORED").await.header("cache-status"), "postern; fwd=uri-miss; stored");
}
