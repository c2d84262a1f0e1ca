//! The end of a gateway: what is in flight is answered, and nobody is cut off who was not told.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::encryption::Folder;
use crate::harness::{EXECUTIONS, Gateway, KEY, Setup, parsed, until};
use crate::reload::{Connection, Held, World, usual, with_key};

/// Tells a gateway to end, in a thread of its own; returns when it says so.
async fn stop(gateway: Gateway) -> std::thread::JoinHandle<()> {
    let lifecycle = Arc::clone(gateway.server().lifecycle());
    let stopping = std::thread::spawn(move || drop(gateway));
    until(|| lifecycle.is_draining()).await;
    stopping
}

fn draining_for(upstream: SocketAddr, time: &str) -> String {
    usual(upstream).replace("drain_timeout = \"200ms\"", &format!("drain_timeout = \"{time}\""))
}

#[tokio::test]
async fn a_connection_that_is_open_at_the_end_is_answered_once_more_and_told_so() {
    let World { gateway, refold: _refold, .. } = World::start(|upstream| draining_for(upstream, "20s")).await;
    let (mut idle, mut fresh) = (Connection::open(gateway.address).await, Connection::open(gateway.address).await);
    idle.ask(&with_key(KEY, "acme-1")).await;
    assert!(!idle.ask(&with_key(KEY, "acme-1")).await.contains("connection: close"));
    let stopping = stop(gateway).await;
    for connection in [&mut idle, &mut fresh] {
        let head = connection.ask(&with_key(KEY, "acme-1")).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nconnection: close\r\n"), "{head}");
    }
    assert!(idle.ends().await && fresh.ends().await);
    // Nobody is left, so nobody is waited for.
    stopping.join().expect("it has ended");
}

#[tokio::test]
async fn requests_in_flight_at_the_end_are_answered_in_both_versions_of_http() {
    let held = Held::start().await;
    let gateway = Gateway::start_with(&draining_for(held.upstream, "20s"), Setup::default().clock);
    let stream = TcpStream::connect(gateway.address).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{}{EXECUTIONS}", gateway.address));
    let request = request.header("x-api-key", KEY).header("linked_account_id", "acme-1");
    let answer = tokio::spawn(sender.send_request(request.body(Full::<Bytes>::default()).expect("a request")));
    let mut begun = Connection::open(gateway.address).await;
    begun.send(&with_key(KEY, "acme-2")).await;
    held.until_arrived(2).await;
    let stopping = stop(gateway).await;
    held.gate.add_permits(2);
    let answer = answer.await.expect("it ran").expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.expect("a body");
    let told = begun.receive().await;
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("\r\nconnection: close\r\n"), "{told}");
    assert!(begun.ends().await);
    // GOAWAY: it ends without an error though its client has not closed it.
    connection.await.expect("it ran").expect("a good end");
    stopping.join().expect("it has ended");
}

#[tokio::test]
async fn what_is_still_in_flight_when_the_drain_time_is_over_is_told_that_it_was_given_up() {
    let held = Held::start().await;
    let gateway = Gateway::start_with(&draining_for(held.upstream, "200ms"), Setup::default().clock);
    let mut begun = Connection::open(gateway.address).await;
    begun.send(&with_key(KEY, "acme-1")).await;
    held.until_arrived(1).await;
    let watched = gateway.server().gateway();
    let stopping = stop(gateway).await;
    let told = begun.receive().await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("\r\nretry-after: 1\r\n"), "{told}");
    assert!(begun.ends().await);
    stopping.join().expect("it has ended");
    let [error] = &watched.status().errors[..] else { panic!("it is one of the last errors, and the only one") };
    assert_eq!((error.status, error.error_code.as_str()), (503, "SHUTTING_DOWN"));
    assert_eq!(error.linked_account.as_deref(), Some("acme-1"));
    assert!(told.contains(&format!("\r\nx-request-id: {}\r\n", error.request_id)), "{told}");
}

#[tokio::test]
async fn a_request_whose_caller_leaves_is_told_of_as_all_others_are() {
    let held = Held::start().await;
    let gateway = Gateway::start_with(&draining_for(held.upstream, "200ms"), Setup::default().clock);
    let mut leaves = Connection::open(gateway.address).await;
    leaves.send(&with_key(KEY, "acme-1")).await;
    held.until_arrived(1).await;
    assert!(gateway.server().gateway().status().errors.is_empty());
    drop(leaves);
    until(|| !gateway.server().gateway().status().errors.is_empty()).await;
    let [error] = &gateway.server().gateway().status().errors[..] else { panic!("it is told of once") };
    assert_eq!((error.status, error.error_code.as_str()), (499, "CLIENT_CLOSED_REQUEST"));
    let metrics = gateway.metrics();
    for line in [
        "postern_errors_total{error_code=\"CLIENT_CLOSED_REQUEST\",tenant=\"t\"} 1",
        "postern_requests_total{cache=\"miss\",endpoint=\"list\",outcome=\"4xx\",tenant=\"t\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // What it has fetched is there for those who come after.
    held.gate.add_permits(1);
    let later = Connection::open(gateway.address).await.ask(&with_key(KEY, "acme-1")).await;
    assert!(later.starts_with("HTTP/1.1 200"), "{later}");
}

#[tokio::test]
async fn a_process_that_cannot_start_takes_no_place_of_one_that_serves() {
    let folder = Folder::new("cannot-start");
    let path = folder.path().join("admin.sock");
    let with_admin = |text: String| {
        let address = format!("[admin]\naddress = \"unix:{}\"", path.display());
        text.replacen("[admin]\naddress = \"off\"", &address, 1)
    };
    // Nobody asks it.
    let upstream = SocketAddr::from(([127, 0, 0, 1], 1));
    let _serves = Gateway::start_with(&with_admin(usual(upstream)), Setup::default().clock);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let second = parsed(&with_admin(usual(upstream).replace("127.0.0.1:0", &taken))).expect("it is good");
    let refused = postern::server::Server::start(second, Setup::default().clock).expect_err("it is taken");
    assert!(refused.to_string().contains(&taken), "{refused}");
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
}
