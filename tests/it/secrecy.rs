//! The org key is in no output: a whole run against an upstream that shows it in every way.

use std::net::SocketAddr;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::connection::raw;
use crate::support::tokens::token_of;
use crate::support::{
    Configuration, EXECUTIONS, Folder, KEY, ORG_KEY, Process, World, as_account, command, http_upstream, leaks,
    run_script,
};

/// An upstream that shows the request's headers: in a page, in error fields, in HTML, in headers.
async fn indiscreet_upstream() -> SocketAddr {
    http_upstream(|request: Request<Incoming>| async move {
        let key = request.headers().get("x-api-key").map_or("", |key| key.to_str().expect("ASCII")).to_owned();
        let all = format!("{:?} {key}", request.headers());
        let page = request.uri().query().unwrap_or_default().split("page=").nth(1).unwrap_or_default();
        let (status, body) = match page.split('&').next() {
            Some("2") => (400, json!({ "error_code": "X", "message": all, "request_id": key }).to_string()),
            Some("3") => (500, format!("<html>{all}</html>")),
            Some("4") => (401, json!({ "message": all }).to_string()),
            Some("5") => (200, json!({ "docs": [{ "_id": key }], "totalDocs": 1 }).to_string()),
            Some("6") => (418, json!({ "error": key, "http_error_type": key, "message": key }).to_string()),
            Some("7") => (400, format!("{{\"message\":\"{}\"}}", key.replace('_', "\\u005f"))),
            _ => (200, json!({ "docs": [], "totalDocs": 0 }).to_string()),
        };
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response.headers_mut().insert("x-echo", key.parse().expect("a value"));
        response.headers_mut().insert("etag", format!("\"{key}\"").parse().expect("a value"));
        response
    })
    .await
}

#[tokio::test]
async fn the_org_key_is_in_no_output_of_a_whole_run() {
    let config = Configuration::new().upstream(indiscreet_upstream().await);
    let verbose = [("POSTERN_LOG", "trace"), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")];
    let process = Process::serve_configuration(&config, &verbose).await;
    let answers = send_everything(process.address()).await;
    let ended = process.terminate().await;
    let log = ended.log.join("\n");
    assert!(answers.contains("HTTP/1.1 200 OK") && answers.contains("UPSTREAM_CREDENTIAL_REJECTED"), "{answers}");
    assert!(log.contains("\"message\":\"request\""), "requests are logged: {log}");
    for (name, text) in [("the answers", &answers), ("standard output", &ended.output), ("the log", &log)] {
        assert!(!text.contains(ORG_KEY), "{name}: {text}");
        assert!(!text.contains(KEY), "{name} has the client key: {text}");
    }
}

/// Sends requests for every answer of the upstream, with every kind of credential; returns all responses.
async fn send_everything(address: SocketAddr) -> String {
    let mut answers = String::new();
    let credentials = [
        format!("x-api-key: {KEY}\r\nlinked_account_id: a"),
        "authorization: Bearer made-up".to_owned(),
        format!("x-api-key: {ORG_KEY}\r\nlinked_account_id: a"),
        format!("x-api-key: {KEY}\r\nauthorization: Bearer {ORG_KEY}"),
        format!("x-api-key: {KEY}\r\nlinked_account_id: a\r\nlinked-account-id: b"),
        "x-nothing: 1".to_owned(),
    ];
    for credential in &credentials {
        for page in 0..9 {
            for (method, target) in [
                ("GET", format!("{EXECUTIONS}?page={page}")),
                ("GET", format!("{EXECUTIONS}/{page}?page={page}")),
                ("POST", format!("{EXECUTIONS}/{page}/stop?page={page}")),
            ] {
                let lines = format!("Host: a\r\n{credential}\r\nConnection: close");
                let request = format!("{method} {target} HTTP/1.1\r\n{lines}\r\n\r\n");
                answers.push_str(&raw(address, request.as_bytes()).await);
            }
        }
    }
    answers
}

#[tokio::test]
async fn debug_output_of_a_running_gateway_shows_no_secret() {
    let gateway = World::builder().refold(indiscreet_upstream().await).start().await.gateway;
    gateway.get(EXECUTIONS, &as_account("a")).await;
    gateway.get(EXECUTIONS, &[("authorization", "Bearer some-session-token")]).await;
    let shown = format!("{:?}", gateway.server());
    assert!(shown.contains("Gateway") && shown.contains("redacted"), "{shown}");
    for secret in [ORG_KEY, KEY, "some-session-token"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn no_response_that_contains_the_org_key_is_cached() {
    let builder = World::builder().refold(indiscreet_upstream().await);
    let gateway = builder.config(Configuration::validating).start().await.gateway;
    let token = token_of("a");
    for page in 1..8 {
        // Fetched by a caller that has the org key itself, then requested by one that has not.
        for credential in [("x-api-key", ORG_KEY), ("authorization", &token)] {
            let headers = [credential, ("linked_account_id", "a")];
            let answer = gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await;
            assert!(!String::from_utf8_lossy(&answer.body).contains(ORG_KEY), "{page}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_captured_secret_would_be_found() {
    for secret in [ORG_KEY, KEY, crate::support::JWT_SECRET, crate::support::ADMIN_TOKEN, crate::support::NEXT_ORG_KEY]
    {
        assert_eq!(leaks::find(&format!("{{\"cause\":\"{secret}x\"}}")), Some(secret));
    }
    let key = include_str!("../data/server-1.key");
    assert!(leaks::find(key).is_some() && leaks::find("org_key = { env = \"ORG_KEY\" }").is_none());
}

#[test]
#[should_panic(expected = "contains the secret")]
fn a_secret_on_standard_error_fails_its_test() {
    run_script(std::process::Command::new("sh").args(["-c", "echo $SECRET >&2"]).env("SECRET", ORG_KEY));
}

#[tokio::test]
#[should_panic(expected = "receives the secret")]
async fn a_secret_in_two_parts_of_a_response_fails_its_test() {
    let (near, mut far) = tokio::io::duplex(1024);
    let mut watched = leaks::Watched::new(near);
    let (first, second) = ORG_KEY.split_at(10);
    for (before, part, after) in [("HTTP/1.1 200 OK\r\nx: ", first, ""), ("", second, "\r\n")] {
        far.write_all(format!("{before}{part}{after}").as_bytes()).await.expect("it fits");
        watched.read_buf(&mut bytes::BytesMut::new()).await.expect("it is there");
    }
}

#[tokio::test]
async fn a_process_that_holds_secrets_leaves_no_core_dump() {
    let limit = |id: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("Linux has it");
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let config = Configuration::new().upstream(indiscreet_upstream().await);
    let serve = Process::serve_configuration(&config, &[]).await;
    assert_eq!(limit(serve.id()), ["0", "0"]);
    // Also where the limits of the surroundings permit one.
    let folder = Folder::new();
    let file = folder.write("postern.toml", config.to_toml());
    for raise in ["ulimit -Sc $(ulimit -Hc)", "ulimit -c 1"] {
        assert_eq!(limit(Process::run(command(&file).in_shell(raise)).await.id()), ["0", "0"], "{raise}");
    }
}
