//! The content of requests that have no use for it, and the end of a connection whose input is not read whole.

use std::io;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::connection::{Connection, get, once_as, with_key};
use crate::support::leaks::Watched;
use crate::support::{
    Configuration, EXECUTIONS, KEY, ScriptedRefold, World, as_account, eventually, http_upstream, page_of, within,
};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// The header lines of a request with chunked content.
fn chunked() -> String {
    with_key(KEY, "acme-2") + CHUNKED
}

#[tokio::test]
async fn a_read_with_chunked_content_is_answered_at_once() {
    let world = World::start().await;
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    for content in ["0\r\n\r\n".to_owned(), chunk(5) + "0\r\n\r\n", chunk(30_000) + &chunk(30_000) + "0\r\n\r\n"] {
        let mut connection = Connection::open(world.gateway.address).await;
        for _ in 0..2 {
            // The answer comes before the content, or its end, is sent.
            let head = connection.ask(&chunked()).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("connection: close"), "{head}");
            connection.write(&content).await;
        }
        // Content and head in one packet.
        connection.write(get(EXECUTIONS, &chunked()) + &content).await;
        assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
        connection.write(get("/elsewhere", CHUNKED) + &content).await;
        assert!(connection.receive().await.starts_with("HTTP/1.1 404 "));
        assert!(connection.ask(&with_key(KEY, "acme-2")).await.starts_with("HTTP/1.1 200 "));
    }
    let head = format!("HEAD {EXECUTIONS} HTTP/1.1\r\nHost: a\r\n{}\r\n0\r\n\r\n", once_as("acme-2") + CHUNKED);
    assert!(world.gateway.raw(head).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn content_beyond_the_bound_ends_the_connection_after_the_answer() {
    let world = World::start().await;
    let block = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for content in [block.repeat(2), block.repeat(20)] {
        let answer = world.gateway.raw(get(EXECUTIONS, &chunked()) + &content + "0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'), "{answer}");
    }
    // It is known at once.
    let answer = world.gateway.raw(get(EXECUTIONS, &(with_key(KEY, "acme-2") + "Content-Length: 65537\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'), "{answer}");
}

#[tokio::test]
async fn a_read_with_both_framings_is_refused() {
    let world = World::start().await;
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\ncontent-length: 0\r\n",
        "Transfer-Encoding: chunked\r\nCONTENT-LENGTH: 5\r\nAccept: a\r\n",
    ] {
        for method in ["GET", "HEAD"] {
            let request =
                format!("{method} {EXECUTIONS} HTTP/1.1\r\nHost: a\r\n{}{lines}\r\n0\r\n\r\n", once_as("acme-2"));
            assert!(world.gateway.raw(&request).await.starts_with("HTTP/1.1 400 "), "{request}");
            // In two packets.
            let (first, second) = request.split_at(request.len() - 25);
            let mut connection = Connection::open(world.gateway.address).await;
            connection.write(first).await;
            connection.write(second).await;
            assert!(connection.rest().await.starts_with("HTTP/1.1 400 "), "{request}");
        }
    }
    // The next request of a connection is judged by its own head.
    let mut connection = Connection::open(world.gateway.address).await;
    let sized = format!("{}Content-Length: 2\r\n", with_key(KEY, "acme-2"));
    connection.write(get(EXECUTIONS, &sized) + "{}").await;
    assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    connection.write(get(EXECUTIONS, &chunked()) + "0\r\n\r\n").await;
    assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(world.refold.requests(), 1);
}

#[tokio::test]
async fn each_pipelined_request_is_judged_by_its_own_head() {
    let world = World::start().await;
    let plain = get(EXECUTIONS, &with_key(KEY, "acme-2"));
    let sized = get(EXECUTIONS, &(with_key(KEY, "acme-2") + "Content-Length: 2\r\n")) + "{}";
    let chunked = |lines: &str| get(EXECUTIONS, &(chunked() + lines)) + "2\r\n{}\r\n0\r\n\r\n";
    let (chunked, both) = (chunked(""), chunked("Content-Length: 12\r\n"));
    for (first, last, status) in [
        (vec![&sized], &chunked, 200),
        (vec![&sized, &plain], &chunked, 200),
        (vec![&plain], &both, 400),
        (vec![&chunked, &plain, &sized], &both, 400),
        (vec![&plain; 100], &plain, 200),
    ] {
        let mut connection = Connection::open(world.gateway.address).await;
        connection.write(first.iter().map(|request| request.as_str()).collect::<String>() + last).await;
        for request in &first {
            assert!(connection.receive().await.starts_with("HTTP/1.1 200 "), "{request}");
        }
        assert!(connection.receive().await.starts_with(&format!("HTTP/1.1 {status} ")), "{first:?} {last}");
    }
}

#[tokio::test]
async fn a_request_behind_one_that_waits_is_judged_by_its_own_head() {
    let world = World::builder().refold(ScriptedRefold::gated().await).start().await;
    let mut connection = Connection::open(world.gateway.address).await;
    connection.write(get(EXECUTIONS, &with_key(KEY, "acme-1"))).await;
    world.refold.until_received(1).await;
    connection.write(get(EXECUTIONS, &(chunked() + "Content-Length: 5\r\n")) + "0\r\n\r\n").await;
    world.refold.release();
    assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    assert!(connection.receive().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_refused_request_with_content_keeps_its_connection() {
    let world = World::start().await;
    let mut connection = Connection::open(world.gateway.address).await;
    for (target, status) in
        [(format!("{EXECUTIONS}/1/stop"), 401), ("/hooks/refold/t".to_owned(), 401), (EXECUTIONS.to_owned(), 405)]
    {
        let content = "x".repeat(20_000);
        connection.write(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")).await;
        let head = connection.receive().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        connection.write(content).await;
    }
    assert!(connection.ask(&with_key(KEY, "acme-2")).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_passed_read_with_chunked_content_has_none_upstream() {
    let upstream = http_upstream(|request| async move {
        let framed = ["transfer-encoding", "content-length"].map(|name| request.headers().contains_key(name));
        page_of(&json!({ "framed": framed }))
    })
    .await;
    let routes = "[[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/workflow\"\n";
    let world = World::builder().refold(upstream).config(|config| config.toml(routes)).start().await;
    let answer = world.gateway.raw(get("/api/v2/public/workflow", &(once_as("acme-1") + CHUNKED)) + "0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("[false,false]"), "{answer}");
}

/// Sends a request and, only when it was answered, more input; then reads to the end of the connection.
async fn answer_before_the_rest(world: &World, first: String, rest: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(world.gateway.address).await?;
    within(stream.write_all(first.as_bytes())).await?;
    within(stream.readable()).await?;
    let mut stream = Watched::new(stream);
    let block = vec![b'x'; 1 << 16];
    for _ in 0..rest / block.len() {
        within(stream.write_all(&block)).await?;
    }
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn an_answer_arrives_though_its_peer_is_still_sending() {
    let world = World::start().await;
    let upload = |target: &str, length: usize| {
        let lines = with_key(KEY, "acme-2") + &format!("Content-Length: {length}\r\n");
        format!("POST {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    };
    for (first, status) in [
        (upload("/hooks/refold/t", 100_000_000), 401),
        (upload("/elsewhere", 100_000_000), 404),
        (upload(&format!("{EXECUTIONS}/1/stop"), 100_000_000) + &"x".repeat(1_100_000), 413),
        (get(EXECUTIONS, &format!("cookie: {}", "x".repeat(60_000))), 431),
        (get(&format!("/{}", "x".repeat(70_000)), ""), 414),
        (get(EXECUTIONS, &once_as("acme-2")), 200),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
    ] {
        let answer = answer_before_the_rest(&world, first, 3 << 20).await;
        let answer = answer.unwrap_or_else(|error| panic!("{status}: {error}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with('}'), "{answer}");
    }
}

/// Sends a request on a connection, and ends its output.
async fn half_closed(world: &World<ScriptedRefold>, target: &str) -> Connection {
    let mut connection = Connection::open(world.gateway.address).await;
    connection.write(get(target, &with_key(KEY, "acme-1"))).await;
    connection.half_close().await;
    connection
}

#[tokio::test]
async fn a_peer_that_has_ended_its_output_gets_its_answer() {
    let routes = "[[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/workflow\"\n";
    let single = |config: Configuration| config.one_worker().toml(routes);
    let world = World::builder().refold(ScriptedRefold::gated().await).config(single).start().await;
    let leads = half_closed(&world, EXECUTIONS).await;
    world.refold.until_received(1).await;
    let follows = half_closed(&world, EXECUTIONS).await;
    let passes = half_closed(&world, "/api/v2/public/workflow").await;
    world.refold.until_received(2).await;
    world.gateway.until_requested("acme-1", 3).await;
    world.refold.release();
    for connection in [leads, follows, passes] {
        let answer = connection.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with('}'), "{answer:?}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // A hit is answered as before.
    let answer = half_closed(&world, EXECUTIONS).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("postern; hit"), "{answer}");
}

#[tokio::test]
async fn a_queued_fetch_of_a_peer_that_ended_its_output_is_answered_503() {
    let builder = World::builder().refold(ScriptedRefold::start().await);
    let world = builder.config(|config| config.one_worker().upstream_limit(1, 1).max_wait("10s")).start().await;
    assert_eq!(world.list("acme-1", "").await.status, 200);
    let answer = half_closed(&world, &format!("{EXECUTIONS}?page=2")).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"OVERLOADED\""), "{answer:?}");
    let [error] = &world.gateway.recent_errors()[..] else { panic!("one error is recorded") };
    assert_eq!((error.status, error.error_code.as_str()), (499, "CLIENT_CLOSED_REQUEST"));
    // A peer that ends its output within its content has sent no request.
    let mut connection = Connection::open(world.gateway.address).await;
    let lines = with_key(KEY, "acme-1") + "Content-Length: 20\r\n";
    connection.write(format!("POST {EXECUTIONS}/1/stop HTTP/1.1\r\nHost: a\r\n{lines}\r\n{{")).await;
    connection.half_close().await;
    let _ = connection.rest().await;
    eventually(async || world.gateway.get("/", &as_account("acme-1")).await.status == 404).await;
    assert_eq!(world.refold.requests(), 1);
}

#[tokio::test]
async fn nothing_is_served_behind_trailers_that_others_read_differently() {
    let world = World::start().await;
    let next = get(EXECUTIONS, &once_as("acme-2"));
    for trailers in ["0\r\n\nX\r\nContent-Length: 999999999\r\n\r\n", "0\r\na: b\n\r\n\r\n", "0\r\na: b\r\nc: d\n\r\n"]
    {
        for (target, status) in [("/elsewhere", "404"), (&*format!("{EXECUTIONS}/1/stop"), "400")] {
            let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{}\r\n", chunked());
            let answer = world.gateway.raw(format!("{head}{trailers}{next}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
        // The response was there before the trailers.
        let mut connection = Connection::open(world.gateway.address).await;
        connection.write(get(EXECUTIONS, &chunked())).await;
        assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
        connection.write(format!("{trailers}{next}")).await;
        assert_eq!(connection.rest().await, "");
    }
}
