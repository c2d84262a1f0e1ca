//! The end of a gateway: requests in flight are answered, and connections end gracefully.

use http::StatusCode;
use http_body_util::BodyExt;
use postern::server::{OccupiedAddress, Server, StartOptions};

use crate::support::connection::{Connection, http_2, http_2_request, with_key};
use crate::support::{Configuration, Folder, KEY, ScriptedRefold, World, WorldBuilder, manual_clock, until};

/// A world to be drained, in front of an upstream that holds every request.
async fn gated(drain_timeout: &str) -> WorldBuilder<ScriptedRefold> {
    let builder = World::builder().refold(ScriptedRefold::gated().await);
    builder.config(|config| config.drain_timeout(drain_timeout))
}

#[tokio::test]
async fn a_draining_gateway_announces_the_end_in_one_last_response() {
    let world = World::builder().config(|config| config.drain_timeout("20s")).start().await;
    let address = world.gateway.address;
    let (mut idle, mut fresh) = (Connection::open(address).await, Connection::open(address).await);
    idle.ask(&with_key(KEY, "acme-1")).await;
    assert!(!idle.ask(&with_key(KEY, "acme-1")).await.contains("connection: close"));
    let stopping = world.gateway.stop().await;
    for connection in [&mut idle, &mut fresh] {
        let head = connection.ask(&with_key(KEY, "acme-1")).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nconnection: close\r\n"), "{head}");
    }
    assert!(idle.ends().await && fresh.ends().await);
    // No connection is left, so the gateway does not wait for its drain timeout.
    stopping.join().expect("no panic");
}

#[tokio::test]
async fn requests_in_flight_are_answered_in_both_http_versions() {
    let world = gated("20s").await.start().await;
    let address = world.gateway.address;
    let (mut sender, connection) = http_2(address).await;
    let answer = tokio::spawn(sender.send_request(http_2_request("GET", address, "acme-1")));
    let mut begun = Connection::open(address).await;
    begun.send(&with_key(KEY, "acme-2")).await;
    world.refold.until_received(2).await;
    let stopping = world.gateway.stop().await;
    world.refold.release();
    let answer = answer.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.expect("a body");
    let head = begun.receive().await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nconnection: close\r\n"), "{head}");
    assert!(begun.ends().await);
    // GOAWAY: the connection ends without an error though its client has not closed it.
    connection.await.expect("no panic").expect("a graceful end");
    stopping.join().expect("no panic");
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_timeout_gets_503() {
    let world = gated("200ms").await.start().await;
    let mut begun = Connection::open(world.gateway.address).await;
    begun.send(&with_key(KEY, "acme-1")).await;
    world.refold.until_received(1).await;
    let watched = world.gateway.server().gateway();
    let stopping = world.gateway.stop().await;
    let head = begun.receive().await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
    assert!(begun.ends().await);
    stopping.join().expect("no panic");
    let [error] = &watched.status().errors[..] else { panic!("one error is recorded") };
    assert_eq!((error.status, error.error_code.as_str()), (503, "SHUTTING_DOWN"));
    assert_eq!(error.linked_account.as_deref(), Some("acme-1"));
    assert!(head.contains(&format!("\r\nx-request-id: {}\r\n", error.occurrences.last[0].request_id)), "{head}");
}

#[tokio::test]
async fn a_request_whose_caller_disconnects_is_recorded_as_499() {
    let world = gated("200ms").await.start().await;
    let mut leaves = Connection::open(world.gateway.address).await;
    leaves.send(&with_key(KEY, "acme-1")).await;
    world.refold.until_received(1).await;
    assert!(world.gateway.recent_errors().is_empty());
    drop(leaves);
    until(|| !world.gateway.recent_errors().is_empty()).await;
    let [error] = &world.gateway.recent_errors()[..] else { panic!("one error is recorded") };
    assert_eq!((error.status, error.error_code.as_str()), (499, "CLIENT_CLOSED_REQUEST"));
    let metrics = world.gateway.metrics();
    for line in [
        "postern_errors_total{error_code=\"CLIENT_CLOSED_REQUEST\",tenant=\"t\"} 1",
        "postern_requests_total{cache=\"miss\",endpoint=\"list\",outcome=\"4xx\",tenant=\"t\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // Its fetch serves later callers.
    world.refold.release();
    let later = Connection::open(world.gateway.address).await.ask(&with_key(KEY, "acme-1")).await;
    assert!(later.starts_with("HTTP/1.1 200"), "{later}");
    assert_eq!(world.refold.requests(), 1);
}

#[tokio::test]
async fn a_process_that_cannot_start_leaves_running_listeners_alone() {
    let folder = Folder::new();
    let path = folder.join("admin.sock");
    let upstream = ScriptedRefold::start().await.address();
    let config = Configuration::new().upstream(upstream).set("admin.address", format!("unix:{}", path.display()));
    let _serves = World::builder().config(|_| config.clone()).refold(upstream).start().await;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = socket.local_addr().expect("the socket is bound").to_string();
    let second = config.listener(|listener| listener.address(&taken)).parse().expect("the configuration is good");
    let options = StartOptions { occupied: OccupiedAddress::TakeOver, ..StartOptions::default() };
    let refused = Server::start_with(second, manual_clock(), options).expect_err("the port is taken");
    assert!(refused.to_string().contains(&taken), "{refused}");
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
}
