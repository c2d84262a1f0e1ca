//! The org key appears nowhere: a whole run against an upstream that does its best to give it away.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use http_body_util::Full;
use serde_json::json;

use crate::harness::{EXECUTIONS, Gateway, KEY, ORG_KEY, Setup, configuration, http_upstream};
use crate::issuer::{token_of, validating};

/// Tells everybody what it was sent: in a page, in error fields, in HTML, in headers.
async fn indiscreet_upstream() -> std::net::SocketAddr {
    http_upstream(|request| async move {
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
        let mut response = http::Response::new(Full::new(body.into()));
        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
        response.headers_mut().insert("x-echo", key.parse().expect("a value"));
        response.headers_mut().insert("etag", format!("\"{key}\"").parse().expect("a value"));
        response
    })
    .await
}

#[tokio::test]
async fn the_org_key_appears_in_no_output_of_a_whole_run() {
    let upstream = indiscreet_upstream().await;
    let Setup { top, tenant, .. } = Setup::default();
    let folder = std::env::temp_dir().join(format!("postern-secrecy-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let text = configuration(upstream, &top, &tenant).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let file = folder.join("postern.toml");
    std::fs::write(&file, text).expect("a temporary file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["serve", "--config", file.to_str().expect("UTF-8")])
        .env("ORG_KEY", ORG_KEY)
        .env("POSTERN_LOG", "trace")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let answers = tokio::task::spawn_blocking(move || ask_everything(port)).await.expect("the questions are asked");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let (mut out, mut log) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("UTF-8");
    child.stderr.take().expect("piped").read_to_string(&mut log).expect("UTF-8");
    child.wait().expect("it ends");
    std::fs::remove_dir_all(&folder).expect("it is ours");
    assert!(answers.contains("HTTP/1.1 200 OK") && answers.contains("UPSTREAM_CREDENTIAL_REJECTED"), "{answers}");
    assert!(log.contains("\"message\":\"request\""), "requests are logged: {log}");
    for (name, text) in [("the answers", &answers), ("standard output", &out), ("the log", &log)] {
        assert!(!text.contains(ORG_KEY), "{name}: {text}");
        assert!(!text.contains(KEY), "{name} has the client key: {text}");
    }
}

fn ask_everything(port: u16) -> String {
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
                answers.push_str(&ask(
                    port,
                    &format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{credential}\r\nConnection: close\r\n\r\n"),
                ));
            }
        }
    }
    answers
}

fn ask(port: u16, request: &str) -> String {
    // It may not listen yet.
    let mut stream = (0..200)
        .find_map(|_| {
            let stream = TcpStream::connect(("127.0.0.1", port)).ok();
            if stream.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            stream
        })
        .expect("it listens in the end");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[tokio::test]
async fn debug_output_of_a_running_gateway_shows_no_secret() {
    let upstream = indiscreet_upstream().await;
    let Setup { top, tenant, clock, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &top, &tenant, clock);
    gateway.get(EXECUTIONS, &[("x-api-key", KEY), ("linked_account_id", "a")]).await;
    gateway.get(EXECUTIONS, &[("authorization", "Bearer some-session-token")]).await;
    let shown = format!("{:?}", gateway.server());
    assert!(shown.contains("Gateway") && shown.contains("redacted"), "{shown}");
    for secret in [ORG_KEY, KEY, "some-session-token"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn what_shows_the_org_key_is_kept_for_nobody_also_if_it_was_fetched_by_who_has_it() {
    let upstream = indiscreet_upstream().await;
    let Setup { clock, top, .. } = Setup::default();
    let gateway = Gateway::start_with(&validating(&configuration(upstream, &top, "")), clock);
    let token = token_of("a");
    for page in 1..8 {
        for credential in [("x-api-key", ORG_KEY), ("authorization", &token)] {
            let headers = [credential, ("linked_account_id", "a")];
            let answer = gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await;
            assert!(!String::from_utf8_lossy(&answer.body).contains(ORG_KEY), "{page}: {answer:?}");
        }
    }
}
