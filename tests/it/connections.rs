//! Bytes on the wire: malformed requests, both versions of HTTP, and the end of connections.

use http::{Method, StatusCode, Version};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::connection::{Connection, get, http_2, http_2_request, once_as, with_key};
use crate::support::{Configuration, EXECUTIONS, KEY, World, as_account};

fn once(target: &str, lines: &str) -> String {
    get(target, &(once_as("acme-2") + lines))
}

#[tokio::test]
async fn oversized_and_ambiguous_requests_are_refused_with_documented_errors() {
    let world = World::start().await;
    let long = format!("{EXECUTIONS}?slug={}", "a".repeat(9000));
    let large = format!("cookie: {}\r\n", "a".repeat(17_000));
    let begun = "GET /api/v2/public/execution HTTP/1.1\r\nConnection: close\r\n";
    for (bytes, status, code) in [
        (once(&long, ""), 414, "URI_TOO_LONG"),
        (once(EXECUTIONS, &large), 431, "HEADERS_TOO_LARGE"),
        (format!("{begun}\r\n"), 400, "MALFORMED_REQUEST"),
        (format!("{begun}Host: a\r\nHost: b\r\n\r\n"), 400, "MALFORMED_REQUEST"),
        (
            format!("{begun}Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400,
            "MALFORMED_REQUEST",
        ),
        (once(&format!("{EXECUTIONS}/%2e%2e"), ""), 400, "INVALID_PARAMETER"),
        (once("/api/v2/public/workflow", ""), 404, "NOT_FOUND"),
    ] {
        let answer = world.gateway.raw(bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("\"error_code\":\"{code}\"")), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
    }
    let not_allowed = world.gateway.send(Method::DELETE, EXECUTIONS, &as_account("acme-2")).await;
    assert_eq!((not_allowed.status, not_allowed.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    assert_eq!(world.refold.requests(), 0);
}

#[tokio::test]
async fn an_oversized_body_is_refused() {
    let world = World::start().await;
    let lines = once_as("a") + "Content-Length: 2000000\r\n";
    let request = format!("POST {EXECUTIONS}/1/stop HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let answer = world.gateway.raw(request + &"x".repeat(1_100_000)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
    assert_eq!(world.refold.requests(), 0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::start().await;
    let one = |page: u32, lines: String| get(&format!("{EXECUTIONS}?limit=1&page={page}"), &lines);
    let kept = with_key(KEY, "acme-2");
    let pipelined = one(3, kept.clone()) + &one(1, kept) + &one(2, once_as("acme-2"));
    let answer = world.gateway.raw(pipelined).await;
    let pages: Vec<_> = answer.match_indices("\"page\":").map(|(at, _)| &answer[at + 7..=at + 7]).collect();
    assert_eq!(pages, ["3", "1", "2"]);
}

/// A world with short timeouts for connections.
async fn impatient() -> World {
    let builder = World::builder().config(|config| config.one_worker().drain_timeout("1s"));
    let timeouts =
        |config: Configuration| config.set("server.header_timeout", "500ms").set("server.idle_timeout", "1s");
    builder.config(timeouts).start().await
}

#[tokio::test]
async fn http_2_by_prior_knowledge_is_served_on_the_same_port() {
    let world = World::start().await;
    let (mut sender, _connection) = http_2(world.gateway.address).await;
    // HTTP/1.1 would have trimmed the space.
    let spaced = http_2_request("GET", world.gateway.address, "acme-2 ");
    assert_eq!(sender.send_request(spaced).await.expect("an answer").status(), StatusCode::BAD_REQUEST);
    for (method, cache_status) in [("GET", "postern; fwd=uri-miss; stored"), ("HEAD", "postern; hit; ttl=5")] {
        let request = http_2_request(method, world.gateway.address, "acme-2");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!((response.status(), response.version()), (StatusCode::OK, Version::HTTP_2));
        assert_eq!(response.headers()["cache-status"], cache_status);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.is_empty(), method == "HEAD");
    }
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed_though_it_answers_pings() {
    let world = impatient().await;
    let (mut sender, connection) = http_2(world.gateway.address).await;
    let request = http_2_request("GET", world.gateway.address, "acme-2");
    let response = sender.send_request(request).await.expect("an answer");
    assert!(!response.into_body().collect().await.expect("a body").to_bytes().is_empty());
    // The gateway ends it with GOAWAY, so there is no error though the client keeps it open.
    connection.await.expect("no panic").expect("a graceful end");
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_slow_head_gets_408_and_a_silent_connection_closes() {
    let world = impatient().await;
    let begun = format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\nx-api-");
    let answer = world.gateway.raw(&begun).await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let body: Value = serde_json::from_str(body).expect("the documented shape");
    assert_eq!((&body["status_code"], &body["error_code"]), (&408.into(), &"REQUEST_TIMEOUT".into()));
    assert!(answer.contains(&format!("x-request-id: {}\r\n", body["request_id"].as_str().expect("an id"))));
    assert_eq!(world.gateway.raw(b"").await, "");
    // The timeout also holds for the second head of a connection.
    let mut connection = Connection::open(world.gateway.address).await;
    let first = connection.ask(&with_key(KEY, "acme-2")).await;
    connection.write(&begun).await;
    let rest = connection.rest().await;
    assert!(first.starts_with("HTTP/1.1 200 OK") && rest.contains("HTTP/1.1 408 Request Timeout"), "{rest}");
    // It holds for the part of a head that arrives with the request before it, too.
    for lines in [String::new(), "Content-Length: 2\r\n".to_owned()] {
        let content = if lines.is_empty() { "" } else { "{}" };
        let whole = get(EXECUTIONS, &(with_key(KEY, "acme-2") + &lines)) + content;
        let answer = world.gateway.raw(whole + &begun).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("HTTP/1.1 408 Request Timeout"), "{answer}");
    }
    // An idle connection is closed without a second response.
    let answer = world.gateway.raw(get(EXECUTIONS, &with_key(KEY, "acme-2"))).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
