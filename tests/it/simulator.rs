//! The simulated Refold: what it refuses, and the responses that it can be told to give.

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
