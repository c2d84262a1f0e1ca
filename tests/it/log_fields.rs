//! The fields of log lines that say where a request comes from, and the lines of writes, which are always there.

use std::time::Duration;

use postern::clock::Clock;
use postern::simulator::{Fault, Simulator, SimulatorSettings};
use serde_json::{Value, json};

use crate::support::connection::{get, raw, with_key};
use crate::support::program::Program;
use crate::support::{ClientKey, Configuration, EXECUTIONS, KEY, ORG_KEY, ScriptedRefold, eventually, spawn_upstream};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const READER: &str = "pst_reader";
const EXECUTION: &str = "0123456789abcdef01234567";

/// Sends a request as a caller with this key and these header lines.
async fn send(program: &Program, request: &str, key: &str, lines: &str) -> String {
    let (method, target) = request.split_once(' ').expect("a method and a target");
    let request = get(target, &format!("Connection: close\r\n{}{lines}", with_key(key, "acme-1")));
    raw(program.address(), request.replacen("GET", method, 1).as_bytes()).await
}

fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    line.get(name).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn a_line_names_the_sender_and_the_size_of_the_answer() {
    let program = Program::start(|config| config, None).await;
    let lines =
        format!("User-Agent: app/1\r\nX-Request-ID: theirs-7\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n");
    let answer = send(&program, &format!("GET {EXECUTIONS}"), KEY, &lines).await;
    raw(program.address(), b"GET / HTTP/1.1\r\nHost: a\r\nno field\r\n\r\n").await;
    let logged = program.end().await;
    let line = logged.iter().find(|line| line["status"] == 200).expect("a line");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    for (name, value) in [
        ("peer", json!("127.0.0.1")),
        ("user_agent", json!("app/1")),
        ("caller_request_id", json!("theirs-7")),
        ("trace_id", json!(TRACE)),
        ("bytes", json!(body.len())),
        ("forwarded_for", Value::Null),
        ("audit", Value::Null),
    ] {
        assert_eq!(*field(line, name), value, "{name} in {line}");
    }
    // A head that can't be parsed leaves the address.
    let unparsed = logged.iter().find(|line| line["status"] == 400).expect("a line");
    assert_eq!(*field(unparsed, "peer"), json!("127.0.0.1"), "{unparsed}");
}

#[tokio::test]
async fn texts_of_the_sender_are_bounded_and_escaped() {
    let program = Program::start(|config| config, None).await;
    let long = "x".repeat(1000);
    for lines in [
        format!("User-Agent: {long}\r\nX-Request-ID: {long}\r\n"),
        "User-Agent: a\"b\\c\u{202e}\r\nX-Request-ID: \u{e9}\r\n".to_owned(),
        "traceparent: 00-nonsense\r\n".to_owned(),
    ] {
        send(&program, &format!("GET {EXECUTIONS}?limit=0"), KEY, &lines).await;
    }
    let lines = program.end().await;
    let named = |name: &str| {
        let mut values: Vec<_> = lines.iter().filter_map(|line| line[name].as_str()).collect();
        values.sort_unstable_by_key(|value| value.len());
        values
    };
    assert_eq!(named("user_agent"), ["a\"b\\c\u{202e}", &"x".repeat(256)]);
    assert_eq!(named("caller_request_id"), ["\u{e9}", &"x".repeat(128)]);
    assert!(named("trace_id").is_empty());
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_line_names_its_client() {
    for (trusted, lines, expected) in [
        ("[\"127.0.0.0/8\"]", "X-Forwarded-For: 192.0.2.1\r\n", json!("192.0.2.1")),
        ("[\"127.0.0.0/8\"]", "Forwarded: for=\"[2001:db8::7]:80\"\r\n", json!("2001:db8::7")),
        ("[\"127.0.0.0/8\"]", "", Value::Null),
        ("[\"10.0.0.0/8\"]", "X-Forwarded-For: 192.0.2.1\r\n", Value::Null),
    ] {
        let toml = format!("[server]\ntrusted_proxies = {trusted}\n");
        let program = Program::start(|config| config.toml(&toml), None).await;
        send(&program, &format!("GET {EXECUTIONS}"), KEY, lines).await;
        let logged = program.end().await;
        assert_eq!(field(&logged[0], "peer"), &json!("127.0.0.1"));
        assert_eq!(*field(&logged[0], "forwarded_for"), expected, "{trusted} {lines}");
    }
}

fn silent(config: Configuration) -> Configuration {
    let keys = [ClientKey::new("writer", KEY).write(), ClientKey::new("reader", READER)];
    let quiet = config.client_keys(keys).toml("[log]\nrequests = \"none\"\nsample = 0\n");
    quiet.toml("[[pass_through]]\nmethods = [\"GET\", \"POST\"]\npath = \"/api/v2/public/workflow\"\n")
}

#[tokio::test]
async fn writes_are_logged_whatever_the_settings_say() {
    let program = Program::start(silent, None).await;
    let (stop, rerun) = (format!("POST {EXECUTIONS}/{EXECUTION}/stop"), format!("POST {EXECUTIONS}/{EXECUTION}/rerun"));
    let workflow = "/api/v2/public/workflow";
    for (request, key) in [
        (&*stop, KEY),
        (&*rerun, READER),
        (&*stop, "made-up"),
        (&*format!("POST {workflow}"), KEY),
        (&*format!("GET {workflow}"), KEY),
        (&*format!("GET {EXECUTIONS}"), KEY),
        (&*format!("GET {EXECUTIONS}?limit=0"), KEY),
    ] {
        send(&program, request, key, "Content-Length: 0\r\n").await;
    }
    let mut lines = program.end().await;
    assert!(lines.iter().all(|line| line["audit"] == true && line["peer"] == "127.0.0.1"), "{lines:#?}");
    let summary = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
        [text("endpoint"), text("caller"), text("execution"), text("path"), line["status"].to_string()].join(" ")
    };
    lines.sort_by_key(summary);
    assert_eq!(
        lines.iter().map(summary).collect::<Vec<_>>(),
        [
            "pass_through writer - /api/v2/public/workflow 200".to_owned(),
            format!("rerun reader {EXECUTION} - 403"),
            format!("stop - {EXECUTION} - 401"),
            format!("stop writer {EXECUTION} - 200"),
        ]
    );
}

#[tokio::test]
async fn purges_are_logged_with_their_peer() {
    let directives = |config: Configuration| silent(config).admin_with_token();
    let mut program = Program::start(directives, None).await;
    let admin = program.admin_address().await;
    let token = format!("Authorization: Bearer {}\r\n", crate::support::ADMIN_TOKEN);
    let body = r#"{"tenant":"t","linked_account":"acme-1"}"#;
    for (lines, status) in [(&*token, "200"), ("", "401")] {
        let request = format!(
            "POST /purge HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{lines}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw(admin, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let events = program.events().await;
    let event = |message: &str| events.iter().find(|event| event["message"] == message).expect("an event").clone();
    let purged = event("purged");
    assert_eq!([&purged["tenant"], &purged["linked_account"], &purged["peer"]], ["t", "acme-1", "127.0.0.1"]);
    let refused = event("purge_refused");
    assert_eq!((&refused["peer"], &refused["level"]), (&json!("127.0.0.1"), &json!("WARN")));
}

/// Pages are stale at once, and renewed in the background.
fn renewed(config: Configuration) -> Configuration {
    let stale = config.retries(0).stale("1h", "1h");
    stale.set("cache.freshness.recent", "1ms").set("cache.freshness.live", "1ms")
}

/// Asks for a page, lets Refold `change`, and asks again until the page's renewal is logged as this event; returns the line.
async fn logged_renewal(mut program: Program, change: impl FnOnce(), event: &str) -> Value {
    let lines = with_key(KEY, "acme-1");
    assert!(program.ask(EXECUTIONS, &lines).await.contains("fwd=uri-miss"));
    change();
    eventually(async || program.ask(EXECUTIONS, &lines).await.contains("detail=stale")).await;
    program.0.until_logged(&format!("\"{event}\""), 1).await;
    let line = program.events().await.into_iter().find(|line| line["message"] == event).expect("the line");
    assert_eq!([&line["tenant"], &line["linked_account"]], ["t", "acme-1"], "{line}");
    line
}

#[tokio::test]
async fn a_failed_renewal_is_logged_with_the_status_of_refold() {
    let refold = ScriptedRefold::start().await;
    let program = Program::start_before(refold.address(), renewed, None).await;
    let failed = logged_renewal(program, || refold.answer_with(503), "renewal_failed").await;
    assert_eq!(failed["upstream_status"], 503, "{failed}");
}

#[tokio::test]
async fn a_renewal_without_an_answer_has_no_status() {
    let refold = ScriptedRefold::start().await;
    let config = |config| renewed(config).set("upstream.total_timeout", "1s");
    let program = Program::start_before(refold.address(), config, None).await;
    let failed = logged_renewal(program, || refold.hold(), "renewal_failed").await;
    assert_eq!(
        [&failed["error_code"], &failed["upstream_status"]],
        [&json!("UPSTREAM_TIMEOUT"), &Value::Null],
        "{failed}"
    );
}

#[tokio::test]
async fn a_slow_renewal_is_logged_with_the_time_that_refold_took() {
    let settings = SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], ..SimulatorSettings::default() };
    let refold = Simulator::new(settings, Clock::system());
    let served = refold.clone();
    let address = spawn_upstream(|listener| async move { served.serve(listener).await.expect("it serves") }).await;
    let program = Program::start_before(address, renewed, None).await;
    let slow = Fault::Latency(Duration::from_secs(2));
    let logged = logged_renewal(program, || refold.set_fault(Some(slow)), "renewal_slow").await;
    assert!(logged["upstream_us"].as_u64().is_some_and(|taken| taken >= 2_000_000), "{logged}");
}
