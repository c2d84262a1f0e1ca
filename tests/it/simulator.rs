//! The simulated Refold: what it refuses, and the responses that it can be told to give.

use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{EXECUTIONS, ORG_KEY, World, as_account};

/// Sends a request to the simulated Refold itself; returns status and body.
async fn ask(world: &World, method: &str, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(world.refold_address).await.expect("it listens");
    let credential = format!("x-api-key: {ORG_KEY}\r\nlinked_account_id: acme-1");
    let request = format!("{method} {target} HTTP/1.1\r\nhost: refold\r\nconnection: close\r\n{credential}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("UTF-8");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

async fn simulate(world: &World, behaviour: &str) {
    let (status, body) = ask(world, "POST", &format!("/simulate/{behaviour}")).await;
    assert_eq!(status, 200, "{behaviour}: {body}");
}

#[tokio::test]
async fn a_path_beside_the_executions_is_not_the_collection() {
    let world = World::start().await;
    for path in [format!("{EXECUTIONS}X"), format!("{EXECUTIONS}s/1"), format!("{EXECUTIONS}-1"), "/".to_owned()] {
        assert_eq!(ask(&world, "GET", &path).await.0, 404, "{path}");
    }
    assert_eq!(world.refold.requests(), 0, "none of them is a request for executions");
    assert_eq!(ask(&world, "GET", EXECUTIONS).await.0, 200);
}

#[tokio::test]
async fn the_last_page_that_a_number_can_name_is_empty() {
    let world = World::start().await;
    for page in [u64::MAX, u64::MAX - 1, u64::MAX / 10 + 1] {
        let (status, body) = ask(&world, "GET", &format!("{EXECUTIONS}?page={page}")).await;
        assert_eq!(status, 200, "{page}");
        assert!(body.contains("\"docs\":[]"), "{page}: {body}");
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
        assert_eq!(ask(&world, "POST", &format!("/simulate/{behaviour}")).await.0, 400, "{behaviour}");
        assert_eq!(ask(&world, "GET", EXECUTIONS).await.0, 200, "{behaviour}");
    }
    for status in [204, 418, 599] {
        simulate(&world, &format!("empty={status}")).await;
        assert_eq!(ask(&world, "GET", EXECUTIONS).await.0, status);
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
    let id = plain.json()["docs"][0]["_id"].as_str().expect("an id").to_owned();
    for status in [202, 204, 200] {
        simulate(&world, &format!("action={status}")).await;
        let target = format!("{EXECUTIONS}/{id}/rerun");
        let rerun = world.gateway.send(Method::POST, &target, &account).await;
        assert_eq!((rerun.status.as_u16(), rerun.body.len()), (status, 0));
    }
    simulate(&world, "retry-date=30s").await;
    let refused = world.list("acme-1", "limit=3").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "30"));
}
