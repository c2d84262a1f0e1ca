//! The simulated Refold: what it refuses, and the responses that it can be told to give.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::{Answer, Client, EXECUTIONS, ORG_KEY, World, as_account};

/// Sends a request to the simulated Refold itself.
async fn send(world: &World, method: Method, target: &str) -> Answer {
    let headers = [("x-api-key", ORG_KEY), ("linked_account_id", "acme-1")];
    Client::new(world.refold_address()).send(method, target, &headers).await
}

/// The status that the simulated Refold itself answers with.
async fn status_of(world: &World, target: &str) -> u16 {
    send(world, Method::GET, target).await.status.as_u16()
}

async fn simulate(world: &World, behaviour: &str) {
    let answer = send(world, Method::POST, &format!("/simulate/{behaviour}")).await;
    assert_eq!(answer.status.as_u16(), 200, "{behaviour}: {:?}", answer.body);
}

#[tokio::test]
async fn a_path_beside_the_executions_is_not_the_collection() {
    let world = World::start().await;
    for path in [format!("{EXECUTIONS}X"), format!("{EXECUTIONS}s/1"), format!("{EXECUTIONS}-1"), "/".to_owned()] {
        assert_eq!(status_of(&world, &path).await, 404, "{path}");
    }
    assert_eq!(world.refold.requests(), 0, "none of them is a request for executions");
    assert_eq!(status_of(&world, EXECUTIONS).await, 200);
}

#[tokio::test]
async fn the_last_page_that_a_number_can_name_is_empty() {
    let world = World::start().await;
    for page in [u64::MAX, u64::MAX - 1, u64::MAX / 10 + 1] {
        let answer = send(&world, Method::GET, &format!("{EXECUTIONS}?page={page}")).await;
        assert_eq!(answer.status.as_u16(), 200, "{page}");
        assert_eq!(answer.json()["docs"], json!([]), "{page}");
    }
}

#[tokio::test]
async fn a_fault_without_a_final_status_is_refused() {
    let world = World::start().await;
    for behaviour in [
        "status=99",
        "status=100",
        "status=199",
        "status=600",
        "status=65535",
        "status=",
        "status=2OO",
        "html=0",
        "empty=1000",
        "variant=-1",
        "action=404",
        "action=99",
        "retry-date=soon",
        "bom=1",
        "bad-ids=200",
        "unknown-tokens=",
        "unknown-tokens=500,",
        "connections=slow",
        "connections",
        "something",
    ] {
        let refused = send(&world, Method::POST, &format!("/simulate/{behaviour}")).await;
        assert_eq!(refused.status.as_u16(), 400, "{behaviour}");
        assert_eq!(status_of(&world, EXECUTIONS).await, 200, "{behaviour}");
    }
    for status in [204, 418, 599] {
        simulate(&world, &format!("empty={status}")).await;
        assert_eq!(status_of(&world, EXECUTIONS).await, status);
    }
}

#[tokio::test]
async fn a_fault_for_one_account_is_refused() {
    let world = World::start().await;
    for behaviour in ["status=503?linked_account=acme-1", "none?", "arrivals?page=1"] {
        let refused = send(&world, Method::POST, &format!("/simulate/{behaviour}")).await;
        assert_eq!(refused.status.as_u16(), 400, "{behaviour}");
        assert!(String::from_utf8_lossy(&refused.body).contains("all linked accounts"), "{:?}", refused.body);
        assert_eq!(status_of(&world, EXECUTIONS).await, 200, "{behaviour}");
    }
}

#[tokio::test]
async fn variations_of_its_responses_are_served() {
    let world = World::start().await;
    let account = as_account("acme-1");
    let plain = world.list("acme-1", "limit=5").await;
    simulate(&world, "encoded-304").await;
    world.clock.advance(Duration::from_secs(6));
    let renewed = world.list("acme-1", "limit=5").await;
    assert_eq!((renewed.status.as_u16(), renewed.header("age")), (200, "0"));
    simulate(&world, "bom").await;
    let marked = world.list("acme-1", "limit=4").await;
    assert_eq!((marked.status.as_u16(), &marked.body[..1]), (200, &b"{"[..]));
    for status in [202, 204, 200] {
        simulate(&world, &format!("action={status}")).await;
        let target = format!("{EXECUTIONS}/{}/rerun", plain.first_id());
        let rerun = world.gateway.send(Method::POST, &target, &account).await;
        assert_eq!((rerun.status.as_u16(), rerun.body.len()), (status, 0));
    }
    simulate(&world, "retry-date=30s").await;
    let refused = world.list("acme-1", "limit=3").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "30"));
}

#[tokio::test]
async fn open_connections_end_on_demand() {
    for behaviour in ["connections=reset", "connections=timeout", "connections=black-hole"] {
        let world = World::builder().config(|config| config.set("upstream.suspect_after", "50ms")).start().await;
        assert_eq!(world.list("acme-1", "page=1").await.status.as_u16(), 200);
        simulate(&world, behaviour).await;
        assert_eq!(world.list("acme-1", "page=2").await.status.as_u16(), 200, "{behaviour}: on a new connection");
        assert_eq!(world.refold.requests(), 2, "{behaviour}: Refold has not seen the one that was lost");
        assert_eq!(world.list("acme-1", "page=3").await.status.as_u16(), 200, "{behaviour}: new connections stay");
    }
}

#[tokio::test]
async fn bad_ids_and_unknown_tokens_are_answered_as_it_is_told() {
    let world = World::start().await;
    let documents = [("65000000000000000000ffff", 404), ("1", 500), ("65000000000000000000fffg", 500), ("%20", 500)];
    for behaviour in ["bad-ids=500", "unknown-tokens=500,429"] {
        simulate(&world, behaviour).await;
    }
    for (id, status) in documents {
        assert_eq!(status_of(&world, &format!("{EXECUTIONS}/{id}")).await, status, "{id}");
    }
    assert_eq!(statuses_of_tokens(&world).await, BTreeSet::from([200, 429, 500]));
    simulate(&world, "none").await;
    for (id, _) in documents {
        assert_eq!(status_of(&world, &format!("{EXECUTIONS}/{id}")).await, 404, "{id}");
    }
    assert_eq!(statuses_of_tokens(&world).await, BTreeSet::from([200, 401]));
}

/// The statuses for twenty made-up session tokens and a good one; a 429 has a `Retry-After`.
async fn statuses_of_tokens(world: &World) -> BTreeSet<u16> {
    let client = Client::new(world.refold_address());
    let mut statuses = BTreeSet::new();
    for token in (0..20).map(|number| format!("made-up-{number}")).chain([world.refold.session_token("acme-1")]) {
        let answer = client.get(EXECUTIONS, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(answer.header("retry-after"), if answer.status == 429 { "60" } else { "" });
        statuses.insert(answer.status.as_u16());
    }
    statuses
}
