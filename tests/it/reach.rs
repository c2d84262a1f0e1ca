//! Refold behind a proxy, or below a path of another server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Method;
use postern::clock::Clock;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Configuration, EMPTY_PAGE, EXECUTIONS, Gateway, as_account, read_head, spawn_upstream};

const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

/// Records the first line and the `Host` of each request; answers CONNECT with `tunnel` and all others with an empty page.
async fn recorder(tunnel: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&lines);
    let address = spawn_upstream(|listener: TcpListener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(record(stream, Arc::clone(&recorded), tunnel));
        }
    })
    .await;
    (address, lines)
}

async fn record(mut stream: TcpStream, lines: Arc<Mutex<Vec<String>>>, tunnel: &'static str) {
    while let Some(head) = read_head(&mut stream).await {
        let host = head.lines().find(|line| line.to_ascii_lowercase().starts_with("host:")).expect("a host");
        let first = head.lines().next().expect("a line");
        lines.lock().expect("no panic").push(format!("{first} {}", host["host:".len()..].trim()));
        let response = if first.starts_with("CONNECT") { tunnel } else { EMPTY_PAGE };
        stream.write_all(response.as_bytes()).await.expect("it is read");
    }
}

fn gateway(base_url: &str, change: impl FnOnce(Configuration) -> Configuration) -> Gateway {
    let config = Configuration::new().set("upstream.base_url", base_url);
    Gateway::start(&change(config), &Clock::system())
}

#[tokio::test]
async fn every_request_is_sent_below_the_path_of_the_base_url() {
    for (path, prefix) in [("/refold", "/refold"), ("/a/b/", "/a/b"), ("/", "")] {
        let (address, lines) = recorder(OPEN).await;
        let gateway = gateway(&format!("http://{address}{path}"), |config| config);
        assert_eq!(gateway.list("a", "").await.status, 200);
        let stopped = gateway.send(Method::POST, &format!("{EXECUTIONS}/1/stop"), &as_account("a")).await;
        assert_eq!(stopped.status, 200, "{:?}", stopped.body);
        assert_eq!(
            *lines.lock().expect("no panic"),
            [
                format!("GET {prefix}/api/v2/public/execution?page=1&limit=10 HTTP/1.1 {address}"),
                format!("POST {prefix}/api/v2/public/execution/1/stop HTTP/1.1 {address}"),
            ]
        );
    }
}

#[tokio::test]
async fn refold_is_reached_through_the_configured_proxy() {
    for (base_url, target, host) in [
        ("http://refold.invalid", "refold.invalid:80", "refold.invalid"),
        ("http://refold.invalid:8080", "refold.invalid:8080", "refold.invalid:8080"),
        ("http://[2001:db8::1]:81", "[2001:db8::1]:81", "[2001:db8::1]:81"),
    ] {
        let (address, lines) = recorder(OPEN).await;
        let gateway = gateway(base_url, |config| config.set("upstream.proxy", format!("http://{address}/")));
        let answer = gateway.list("a", "").await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(
            *lines.lock().expect("no panic"),
            [
                format!("CONNECT {target} HTTP/1.1 {target}"),
                format!("GET /api/v2/public/execution?page=1&limit=10 HTTP/1.1 {host}"),
            ]
        );
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_or_is_silent_makes_refold_unreachable() {
    for tunnel in ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "HTTP/1.1 502 Bad Gateway\r\n\r\n", ""] {
        let (address, _lines) = recorder(tunnel).await;
        let gateway = gateway("http://refold.invalid", |config| {
            config.set("upstream.connect_timeout", "50ms").set("upstream.proxy", format!("http://{address}/"))
        });
        let answer = gateway.list("a", "").await;
        assert_eq!(answer.error(), (502, "UPSTREAM_UNREACHABLE".to_owned()), "{tunnel}");
    }
}
