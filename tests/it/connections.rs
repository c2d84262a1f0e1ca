//! Bytes on the wire: what HTTP allows and forbids, both versions, and the end of connections.

use std::net::SocketAddr;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::harness::{EXECUTIONS, KEY, World, as_account};

fn head(target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-api-key: {KEY}\r\nlinked_account_id: acme-2\r\n{lines}\r\n").into_bytes()
}

#[tokio::test]
async fn what_is_too_large_or_could_be_read_in_two_ways_is_refused_in_the_documented_shape() {
    let world = World::start().await;
    let long = format!("{EXECUTIONS}?slug={}", "a".repeat(9000));
    let large = format!("cookie: {}\r\n", "a".repeat(17_000));
    let get = "GET /api/v2/public/execution HTTP/1.1\r\nConnection: close\r\n";
    for (bytes, status, code) in [
        (head(&long, ""), 414, "URI_TOO_LONG"),
        (head(EXECUTIONS, &large), 431, "HEADERS_TOO_LARGE"),
        (format!("{get}\r\n").into_bytes(), 400, "MALFORMED_REQUEST"),
        (format!("{get}Host: a\r\nHost: b\r\n\r\n").into_bytes(), 400, "MALFORMED_REQUEST"),
        (
            format!("{get}Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").into_bytes(),
            400,
            "MALFORMED_REQUEST",
        ),
        (head(&format!("{EXECUTIONS}/%2e%2e"), ""), 400, "INVALID_PARAMETER"),
        (head("/api/v2/public/workflow", ""), 404, "NOT_FOUND"),
    ] {
        let answer = world.gateway.raw(&bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("\"error_code\":\"{code}\"")), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
    }
    let not_allowed = world.gateway.send(http::Method::DELETE, EXECUTIONS, &as_account("acme-2")).await;
    assert_eq!((not_allowed.status, not_allowed.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    assert_eq!(world.refold.requests(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let world = World::start().await;
    let request = format!(
        "POST {EXECUTIONS}/1/stop HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-api-key: {KEY}\r\nlinked_account_id: a\r\nContent-Length: 2000000\r\n\r\n"
    );
    let answer = world.gateway.raw(&[request.into_bytes(), vec![b'x'; 1_100_000]].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
    assert_eq!(world.refold.requests(), 0);
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let world = World::start().await;
    let one = |page: u32| {
        format!(
            "GET {EXECUTIONS}?limit=1&page={page} HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nlinked_account_id: acme-2\r\n"
        )
    };
    let pipelined = format!("{}\r\n{}\r\n{}Connection: close\r\n\r\n", one(3), one(1), one(2));
    let answer = world.gateway.raw(pipelined.as_bytes()).await;
    let pages: Vec<_> = answer.match_indices("\"page\":").map(|(at, _)| &answer[at + 7..=at + 7]).collect();
    assert_eq!(pages, ["3", "1", "2"]);
}

/// A connection that speaks HTTP/2 by prior knowledge, and how it ends.
async fn http_2(address: SocketAddr) -> (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    (sender, tokio::spawn(connection))
}

fn request(method: &str, address: SocketAddr, account: &str) -> http::Request<Full<Bytes>> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{EXECUTIONS}"))
        .header("x-api-key", KEY)
        .header("linked_account_id", account)
        .body(Full::default())
        .expect("a request")
}

#[tokio::test]
async fn http_2_by_prior_knowledge_is_served_on_the_same_port() {
    let world = World::start().await;
    let (mut sender, _connection) = http_2(world.gateway.address).await;
    // HTTP/1.1 would have cut the space off.
    let spaced = request("GET", world.gateway.address, "acme-2 ");
    assert_eq!(sender.send_request(spaced).await.expect("an answer").status(), StatusCode::BAD_REQUEST);
    for (method, cache_status) in [("GET", "postern; fwd=uri-miss; stored"), ("HEAD", "postern; hit; ttl=5")] {
        let request = request(method, world.gateway.address, "acme-2");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
        assert_eq!(response.headers()["cache-status"], cache_status);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.is_empty(), method == "HEAD");
    }
}

#[tokio::test]
async fn an_http_2_connection_that_nothing_is_asked_over_is_closed_though_it_answers_every_ping() {
    let setup = crate::harness::Setup::default();
    let top = format!(
        "{}[server]\nworkers = 1\ndrain_timeout = \"1s\"\nheader_timeout = \"50ms\"\nidle_timeout = \"300ms\"\n",
        setup.top
    );
    let world = crate::harness::Setup { top, ..setup }.start().await;
    let (mut sender, connection) = http_2(world.gateway.address).await;
    let request = request("GET", world.gateway.address, "acme-2");
    let response = sender.send_request(request).await.expect("an answer");
    assert!(!response.into_body().collect().await.expect("a body").to_bytes().is_empty());
    // With GOAWAY, so without an error; its client holds on to it.
    connection.await.expect("it ran").expect("a good end");
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_head_that_comes_in_too_slowly_is_answered_408_and_a_silent_connection_is_closed() {
    let setup = crate::harness::Setup::default();
    let top = format!(
        "{}[server]\nworkers = 1\ndrain_timeout = \"1s\"\nheader_timeout = \"100ms\"\nidle_timeout = \"300ms\"\n",
        setup.top
    );
    let world = crate::harness::Setup { top, ..setup }.start().await;
    let begun = format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\nx-api-");
    let answer = world.gateway.raw(begun.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("the documented shape");
    assert_eq!((&body["status_code"], &body["error_code"]), (&408.into(), &"REQUEST_TIMEOUT".into()));
    assert!(answer.contains(&format!("x-request-id: {}\r\n", body["request_id"].as_str().expect("an id"))));
    assert_eq!(world.gateway.raw(b"").await, "");
    // Also the second head of a connection.
    let whole =
        format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nlinked_account_id: acme-2\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(world.gateway.address).await.expect("it listens");
    stream.write_all(whole.as_bytes()).await.expect("it reads");
    let mut first = vec![0; 100];
    stream.read_exact(&mut first).await.expect("an answer");
    stream.write_all(begun.as_bytes()).await.expect("it reads");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("UTF-8");
    assert!(first.starts_with(b"HTTP/1.1 200 OK") && rest.contains("HTTP/1.1 408 Request Timeout"), "{rest}");
    // One answer, and nothing after it.
    let answer = world.gateway.raw(whole.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
