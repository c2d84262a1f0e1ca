//! The rest of the API: what is on the allow-list passes, both ways as it comes in, and nothing else does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Gateway, KEY, NEXT_ORG_KEY, ORG_KEY, Setup, as_account, client_key, configuration, http_upstream, spawn_upstream,
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

/// Says what it was sent.
async fn mirror() -> SocketAddr {
    http_upstream(|request: Request<hyper::body::Incoming>| async move {
        let (head, body) = request.into_parts();
        let header = |name: &str| head.headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
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

fn gateway(upstream: SocketAddr, tenant: &str) -> Gateway {
    let Setup { clock, top, .. } = Setup::default();
    Gateway::start(upstream, &format!("{top}{LIST}"), tenant, clock)
}

#[tokio::test]
async fn what_is_listed_passes_with_the_key_put_in_and_the_rest_is_not_found() {
    let gateway = gateway(mirror().await, &Setup::default().tenant);
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
        let raw = format!(
            "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-api-key: {KEY}\r\nlinked_account_id: a\r\n\r\n"
        );
        let answer = gateway.raw(raw.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
    }
    let wrong = gateway.send(Method::DELETE, "/api/v2/public/workflow", &headers).await;
    assert_eq!((wrong.status, wrong.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, POST"));
    assert_eq!(gateway.get("/api/v2/public/workflow", &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_caller_who_may_only_read_can_change_nothing() {
    let gateway = gateway(mirror().await, &client_key("reader", KEY, "linked_accounts = [\"*\"]"));
    let target = "/api/v2/public/workflow/7/execute";
    let refused = gateway.send(Method::POST, target, &as_account("acme-1")).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (StatusCode::FORBIDDEN, "READ_ONLY_CREDENTIALS"));
}

#[tokio::test]
async fn bodies_stream_both_ways_within_their_bounds() {
    // An upstream that answers each piece as it comes in: were anything gathered up on the way, both would wait for ever.
    let upstream = spawn_upstream(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut more = [0; 1024];
                    let read = stream.read(&mut more).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    seen.extend_from_slice(&more[..read]);
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
                    .await;
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
            });
        }
    })
    .await;
    let gateway = gateway(upstream, &Setup::default().tenant);
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.expect("it listens");
    let head = format!(
        "POST /api/v2/public/workflow/7/execute HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nlinked_account_id: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    for _ in 0..3 {
        let mut seen = Vec::new();
        while !seen.windows(3).any(|found| found == b"ack") {
            let mut more = [0; 1024];
            let reading = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut more)).await;
            let read = reading.expect("it answers while the request goes on").expect("it reads");
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&more[..read]);
        }
        stream.write_all(b"5\r\nhello\r\n").await.expect("it reads");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_shows_the_org_key_is_cut_off() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let upstream = spawn_upstream(move |listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let shows = head[..read].windows(5).any(|word| word == b"/key ");
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                if shows {
                    // In pieces, so that no frame has all of it.
                    for piece in ORG_KEY.as_bytes().chunks(7) {
                        let chunk = format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece));
                        let _ = stream.write_all(chunk.as_bytes()).await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    let _ = stream.write_all(b"0\r\n\r\n").await;
                    return;
                }
                let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
                while stream.write_all(&chunk).await.is_ok() {
                    count.fetch_add(0x10000, Ordering::SeqCst);
                }
            });
        }
    })
    .await;
    let gateway = gateway(upstream, &Setup::default().tenant);
    let account = as_account("acme-1");
    assert!(gateway.try_send(Method::GET, "/api/v2/files/large", &account).await.is_err());
    assert!(sent.load(Ordering::SeqCst) < 64 << 20);
    let raw = format!(
        "GET /api/v2/files/key HTTP/1.1\r\nHost: a\r\nConnection: close\r\nx-api-key: {KEY}\r\nlinked_account_id: a\r\n\r\n"
    );
    let answer = gateway.raw(raw.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    // Lines of lengths and of pieces in turn.
    let pieces: String = answer.split("\r\n").skip_while(|line| !line.is_empty()).skip(2).step_by(2).collect();
    assert!(ORG_KEY.starts_with(&pieces) && pieces.len() < ORG_KEY.len(), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "it does not look whole: {answer}");
}

#[tokio::test]
async fn errors_have_the_one_shape_and_a_rotated_key_fails_no_request() {
    let good = Arc::new(Mutex::new(ORG_KEY));
    let taken = Arc::clone(&good);
    let upstream = http_upstream(move |request| {
        let taken = Arc::clone(&taken);
        async move {
            let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
            if request.uri().path().ends_with("/broken") {
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                *response.body_mut() = Full::new(Bytes::from_static(b"<html>"));
            } else if request.headers()["x-api-key"] != *taken.lock().expect("no panic") {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
            response
        }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let text = configuration(upstream, &format!("{top}{LIST}"), &tenant)
        .replace("org_key = ", "org_key_next = { env = \"NEXT_ORG_KEY\" }\norg_key = ");
    let gateway = Gateway::start_with(&text, clock);
    let account = as_account("acme-1");
    for key in [ORG_KEY, NEXT_ORG_KEY, ORG_KEY] {
        *good.lock().expect("no panic") = key;
        let answer = gateway.send(Method::POST, "/api/v2/public/workflow/7/execute", &account).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let broken = gateway.get("/api/v2/files/broken", &account).await;
    assert_eq!((broken.status, broken.error_code().as_str()), (StatusCode::BAD_GATEWAY, "BAD_GATEWAY"));
    *good.lock().expect("no panic") = "another";
    let refused = gateway.get("/api/v2/files/a", &account).await;
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (StatusCode::BAD_GATEWAY, "UPSTREAM_CREDENTIAL_REJECTED")
    );
}
