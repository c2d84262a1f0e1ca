//! Time limits of pass-through routes: their own, on each pause, and also on a caller that does not read.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::support::connection::{Connection, get, http_2_over, with_key};
use crate::support::{Gateway, KEY, World, as_account, spawn_upstream, within};

const TARGET: &str = "/api/v2/public/workflow/1";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

/// A gateway whose other routes time out soon, with these settings of the route that passes.
async fn gateway(upstream: SocketAddr, settings: &str) -> Gateway {
    let list = format!(
        "[[pass_through]]\nmethods = [\"GET\", \"POST\"]\npath = \"/api/v2/public/workflow/**\"\nscope = \"org\"\n{settings}"
    );
    let builder = World::builder().refold(upstream).config(|config| {
        config
            .toml(&list)
            .set("upstream.first_byte_timeout", "100ms")
            .set("upstream.total_timeout", "200ms")
            .set("server.body_timeout", "200ms")
    });
    builder.start().await.gateway
}

/// An upstream that serves each connection with a function after the head of its request.
async fn upstream<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    spawn_upstream(move |listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            tokio::spawn(serve(stream));
        }
    })
    .await
}

#[tokio::test]
async fn a_response_that_goes_on_is_not_cut_at_the_timeout_of_other_routes() {
    let slow = upstream(|mut stream| async move {
        // The head comes later than the other routes wait for one.
        let mut pace = interval(Duration::from_millis(150));
        pace.tick().await;
        pace.tick().await;
        let _ = stream.write_all(CHUNKED).await;
        for _ in 0..6 {
            pace.tick().await;
            let _ = stream.write_all(b"4\r\nbody\r\n").await;
        }
        let _ = stream.write_all(b"0\r\n\r\n").await;
    })
    .await;
    let answer = gateway(slow, "").await.get(TARGET, &as_account("acme-1")).await;
    assert_eq!((answer.status, answer.body), (StatusCode::OK, Bytes::from("body".repeat(6))));
}

#[tokio::test]
async fn a_response_that_pauses_or_never_begins_or_never_ends_is_cut_off() {
    let paused = upstream(|mut stream| async move {
        let _ = stream.write_all(&[CHUNKED, b"4\r\nbody\r\n"].concat()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let paused = gateway(paused, "idle_timeout = \"100ms\"").await;
    assert!(paused.try_send(Method::GET, TARGET, &as_account("acme-1")).await.is_err());

    let silent = upstream(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let answer = gateway(silent, "first_byte_timeout = \"100ms\"").await.get(TARGET, &as_account("acme-1")).await;
    assert_eq!(answer.error(), (504, "UPSTREAM_TIMEOUT".to_owned()));

    let endless = upstream(|mut stream| async move {
        let _ = stream.write_all(CHUNKED).await;
        let mut pace = interval(Duration::from_millis(10));
        while stream.write_all(b"4\r\nbody\r\n").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let endless = gateway(endless, "total_timeout = \"200ms\"").await;
    assert!(endless.try_send(Method::GET, TARGET, &as_account("acme-1")).await.is_err());
}

#[tokio::test]
async fn an_error_status_does_not_wait_for_its_body() {
    for (status, code) in
        [("404 Not Found", "NOT_FOUND"), ("503 Busy", "SERVICE_UNAVAILABLE"), ("500 Oops", "INTERNAL_SERVER_ERROR")]
    {
        for framing in
            ["content-length: 100", "transfer-encoding: chunked", "content-length: 5000", "connection: close"]
        {
            let pausing = upstream(move |mut stream| async move {
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n{framing}\r\n\r\n").as_bytes()).await;
                std::future::pending::<()>().await;
            })
            .await;
            let gateway = gateway(pausing, "idle_timeout = \"100ms\"\nmax_body = \"1KiB\"").await;
            let answer = within(gateway.get(TARGET, &as_account("acme-1"))).await;
            let expected = status[..3].parse().expect("a status");
            assert_eq!(answer.error(), (expected, code.to_owned()), "{framing}");
        }
    }
}

#[tokio::test]
async fn a_slow_or_large_upload_is_the_callers_error() {
    let silent =
        upstream(|mut stream| async move { while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} })
            .await;
    let settings = |max_body: &str| format!("idle_timeout = \"200ms\"\nmax_body = \"{max_body}\"");
    let lines = with_key(KEY, "a") + "content-type: application/octet-stream\r\n";
    let head = format!("POST {TARGET} HTTP/1.1\r\nHost: a\r\n{lines}");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let sized = |length: usize| format!("{head}content-length: {length}\r\n\r\n");
    for (max_body, upload, status) in [
        ("1KiB", format!("{chunked}5\r\nhello\r\n"), "408"),
        ("1KiB", chunked.clone(), "408"),
        ("1MiB", format!("{}hello", sized(100_000)), "408"),
        ("1KiB", format!("{}hello", sized(1000)), "408"),
        ("1KiB", format!("{chunked}800\r\n{}\r\n", "a".repeat(0x800)), "413"),
        // Known at once.
        ("1KiB", format!("{}hello", sized(100_000)), "413"),
        ("1KiB", sized(1025), "413"),
        ("1MiB", sized((1 << 20) + 1), "413"),
    ] {
        let gateway = gateway(silent, &settings(max_body)).await;
        let mut connection = Connection::open(gateway.address).await;
        connection.write(upload).await;
        let head = connection.receive_until("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{max_body}: {head}");
    }
}

/// An upstream whose responses never end; it reports each connection that is closed.
async fn endless() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (ended, ends) = mpsc::unbounded_channel();
    let address = upstream(move |mut stream| {
        let ended = ended.clone();
        async move {
            let _ = stream.write_all(CHUNKED).await;
            let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            let _ = ended.send(());
        }
    })
    .await;
    (address, ends)
}

const UNREAD: &str = "idle_timeout = \"200ms\"\nmax_body = \"1GiB\"";

#[tokio::test]
async fn a_response_that_is_not_read_gives_up_its_upstream_connection() {
    let (upstream, mut ends) = endless().await;
    let gateway = gateway(upstream, UNREAD).await;
    let mut connection = Connection::open(gateway.address).await;
    connection.write(get(TARGET, &with_key(KEY, "a"))).await;
    within(ends.recv()).await.expect("the upstream's connection ends");
}

#[tokio::test]
async fn nor_does_a_closed_http_2_window_keep_one() {
    let (upstream, mut ends) = endless().await;
    let gateway = gateway(upstream, UNREAD).await;
    let stream = TcpStream::connect(gateway.address).await.expect("the server listens");
    let (mut sender, _connection) = http_2_over(stream, Some(0)).await;
    let mut responses = Vec::new();
    for _ in 0..3 {
        let request = Request::get(format!("http://{}{TARGET}", gateway.address));
        let request = request.header("x-api-key", KEY).header("linked_account_id", "a");
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        responses.push(sender.send_request(request).await.expect("a response"));
    }
    for _ in 0..3 {
        within(ends.recv()).await.expect("the upstream's connection ends");
    }
}
