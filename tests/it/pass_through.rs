//! The rest of the API: requests on the allow-list pass through, streamed in both directions; all others are refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::connection::{Connection, get, once_as, with_key};
use crate::support::{
    ClientKey, Configuration, Gateway, KEY, NEXT_ORG_KEY, ORG_KEY, ScriptedRefold, World, as_account, http_upstream,
    spawn_upstream,
};

const LIST: &str = r#"
[[pass_through]]
methods = ["GET", "POST"]
path = "/api/v2/public/workflow"
request_headers = ["slug"]
[[pass_through]]
methods = ["POST"]
path = "/api/v2/public/workflow/*/execute"
[[pass_through]]
methods = ["GET"]
path = "/api/v2/files/**"
max_body = "1MiB"
"#;

/// An upstream that describes each request in its response.
async fn mirror() -> SocketAddr {
    http_upstream(|request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        let seen = json!({
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "slug": header("slug"),
            "cookie": header("cookie"),
            "account": header("linked_account_id"),
            "keyed": header("x-api-key").as_deref() == Some(ORG_KEY),
            "type": header("content-type"),
            "body": String::from_utf8_lossy(&body),
        });
        let mut response = Response::new(Full::new(Bytes::from(seen.to_string())));
        response.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
        response.headers_mut().insert("set-cookie", "a=b".parse().expect("a value"));
        response
    })
    .await
}

fn with_list(config: Configuration) -> Configuration {
    config.toml(LIST)
}

async fn gateway(upstream: SocketAddr) -> Gateway {
    World::builder().refold(upstream).config(with_list).start().await.gateway
}

#[tokio::test]
async fn listed_requests_pass_with_the_org_key_and_others_do_not() {
    let gateway = gateway(mirror().await).await;
    let headers = [as_account("acme-1").as_slice(), &[("slug", "slack"), ("cookie", "secret=1")]].concat();
    let answer = gateway.get("/api/v2/public/workflow?page=2&x=%20y", &headers).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.json(),
        json!({ "method": "GET", "target": "/api/v2/public/workflow?page=2&x=%20y", "slug": "slack", "cookie": null,
            "account": "acme-1", "keyed": true, "type": null, "body": "" })
    );
    assert_eq!((answer.header("cache-control"), answer.header("cache-status")), ("no-store", "postern; fwd=bypass"));
    assert!(!answer.headers.contains_key("set-cookie") && !answer.header("ratelimit").is_empty());
    for target in [
        "/api/v2/public/workflows",
        "/api/v2/public/workflow/",
        "/api/v2/public/workflow/1",
        "/api/v2/public/workflow/1/2/execute",
        "/api/v2/files",
        "/api/v2",
        "/api/v2/public/linked-account",
    ] {
        assert_eq!(gateway.get(target, &headers).await.status, StatusCode::NOT_FOUND, "{target}");
    }
    for target in [
        "/api/v2/files/../public/linked-account",
        "/api/v2/files/%2e%2e/x",
        "/api/v2/files/a%2Fb",
        "/api/v2/files//a",
        "/api/v2/files/%00",
    ] {
        let answer = gateway.raw(get(target, &once_as("a"))).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
    }
    let wrong = gateway.send(Method::DELETE, "/api/v2/public/workflow", &headers).await;
    assert_eq!((wrong.status, wrong.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, POST"));
    assert_eq!(gateway.get("/api/v2/public/workflow", &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_read_only_caller_changes_nothing() {
    let builder = World::builder().refold(mirror().await).config(with_list);
    let gateway = builder.client_keys([ClientKey::new("reader", KEY)]).start().await.gateway;
    let target = "/api/v2/public/workflow/7/execute";
    let refused = gateway.send(Method::POST, target, &as_account("acme-1")).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (StatusCode::FORBIDDEN, "READ_ONLY_CREDENTIALS"));
}

/// Reads a request's head; returns the bytes that have come in, or `None` if the connection has ended.
async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut more = [0; 1024];
        let read = stream.read(&mut more).await.ok().filter(|read| *read > 0)?;
        seen.extend_from_slice(&more[..read]);
    }
    Some(seen)
}

/// Answers each piece of the request's body as it comes in.
async fn acknowledge(mut stream: TcpStream) {
    let Some(seen) = read_head(&mut stream).await else { return };
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = stream.write_all(head).await;
    if !seen.ends_with(b"\r\n\r\n") {
        // The first piece came with the head.
        let _ = stream.write_all(b"3\r\nack\r\n").await;
    }
    let mut piece = [0; 1024];
    while let Ok(read) = stream.read(&mut piece).await {
        if read == 0 || stream.write_all(b"3\r\nack\r\n").await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    // If the gateway gathered either body, both sides would wait for ever.
    let upstream = spawn_upstream(|listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(acknowledge(stream));
        }
    })
    .await;
    let gateway = gateway(upstream).await;
    let mut connection = Connection::open(gateway.address).await;
    let lines = with_key(KEY, "a") + "transfer-encoding: chunked\r\n";
    let head = format!("POST /api/v2/public/workflow/7/execute HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    connection.write(head + "5\r\nhello\r\n").await;
    for _ in 0..3 {
        connection.receive_until("ack").await;
        connection.write("5\r\nhello\r\n").await;
    }
}

#[tokio::test]
async fn an_oversized_response_is_cut_off() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let upstream = spawn_upstream(move |listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
                while stream.write_all(&chunk).await.is_ok() {
                    count.fetch_add(0x10000, Ordering::SeqCst);
                }
            });
        }
    })
    .await;
    let gateway = gateway(upstream).await;
    assert!(gateway.try_send(Method::GET, "/api/v2/files/large", &as_account("acme-1")).await.is_err());
    assert!(sent.load(Ordering::SeqCst) < 64 << 20);
}

#[tokio::test]
async fn a_response_that_contains_the_org_key_is_cut_off() {
    let gate = watch::Sender::new(false);
    let opened = gate.clone();
    let upstream = spawn_upstream(move |listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut opened = opened.subscribe();
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                // In pieces, the first with the head, so that no read of the gateway's has all of the key.
                for piece in ORG_KEY.as_bytes().chunks(7) {
                    let chunk = format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece));
                    let _ = stream.write_all(chunk.as_bytes()).await;
                    opened.wait_for(|open| *open).await.expect("the test holds the gate");
                }
                let _ = stream.write_all(b"0\r\n\r\n").await;
            });
        }
    })
    .await;
    let gateway = gateway(upstream).await;
    let mut connection = Connection::open(gateway.address).await;
    connection.write(get("/api/v2/files/key", &once_as("a"))).await;
    let head = connection.receive_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    gate.send_replace(true);
    let body = connection.rest().await;
    // The lengths and the pieces come in turn.
    let pieces: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert!(ORG_KEY.starts_with(&pieces) && pieces.len() < ORG_KEY.len(), "{body}");
    assert!(!body.ends_with("0\r\n\r\n"), "the body must not look complete: {body}");
}

#[tokio::test]
async fn upstream_errors_have_the_documented_shape() {
    let upstream = http_upstream(|_| async {
        let mut response = Response::new(Full::new(Bytes::from_static(b"<html>")));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
    .await;
    let broken = gateway(upstream).await.get("/api/v2/files/broken", &as_account("acme-1")).await;
    assert_eq!(broken.error(), (502, "BAD_GATEWAY".to_owned()));
}

#[tokio::test]
async fn a_rotated_org_key_fails_no_request() {
    let builder = World::builder().refold(ScriptedRefold::start().await).config(with_list);
    let world = builder.tenant(|tenant| tenant.org_key_next("NEXT_ORG_KEY")).start().await;
    for key in [ORG_KEY, NEXT_ORG_KEY, ORG_KEY] {
        world.refold.accept_only(key);
        let target = "/api/v2/public/workflow/7/execute";
        let answer = world.gateway.send(Method::POST, target, &as_account("acme-1")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    world.refold.accept_only("another");
    let refused = world.gateway.get("/api/v2/files/a", &as_account("acme-1")).await;
    assert_eq!(refused.error(), (502, "UPSTREAM_CREDENTIAL_REJECTED".to_owned()));
}
