//! The access log: one line per request, on the standard error of the program.

use postern::digest::{Hex, sha256};
use serde_json::{Value, json};

use crate::support::connection::{once_as, raw};
use crate::support::program::Program;
use crate::support::rogue::{Deed, RogueRefold};
use crate::support::{EXECUTIONS, KEY, ORG_KEY, Port, eventually};

#[tokio::test]
async fn each_request_leaves_one_line_with_its_outcome() {
    let program = Program::start(|config| config, None).await;
    let answers = [
        program.list("acme-1", "?status=errored&page=01").await,
        program.list("acme-1", "?page=1&status=ERRORED").await,
        program.list("a\"b\\é", "?limit=0").await,
        program.ask(EXECUTIONS, "authorization: Bearer a-session-token\r\n").await,
        program.ask("/secret-path?secret=query", "").await,
        program.ask(EXECUTIONS, &format!("x-api-key: {KEY}\r\n")).await,
    ];
    let lines = program.end().await;
    assert_eq!(lines.len(), answers.len(), "{lines:#?}");
    let lines = answers.map(|answer| {
        let id = answer.split("x-request-id: ").nth(1).and_then(|rest| rest.get(..36)).expect("an id");
        let line = lines.iter().find(|line| line["request_id"] == id);
        line.unwrap_or_else(|| panic!("no line of {id}: {lines:#?}")).clone()
    });
    for line in &lines {
        let moment: jiff::Timestamp = line["timestamp"].as_str().expect("a text").parse().expect("a timestamp");
        assert!(moment > jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(
            (&line["level"], &line["target"], &line["method"]),
            (&json!("INFO"), &json!("postern::access"), &json!("GET"))
        );
        assert!(line["duration_us"].is_u64());
    }
    let known = |line: &Value| {
        [&line["tenant"], &line["caller"], &line["linked_account"], &line["endpoint"], &line["query"]].map(Value::clone)
    };
    let query = format!("{EXECUTIONS}?page=1&limit=10&status=ERRORED");
    for (line, cache) in [(&lines[0], "miss"), (&lines[1], "hit")] {
        assert_eq!(known(line), [json!("t"), json!("all"), json!("acme-1"), json!("list"), json!(query)]);
        assert_eq!((&line["status"], &line["cache"], &line["age_s"]), (&json!(200), &json!(cache), &json!(0)));
        assert_eq!(line["upstream_us"].is_u64(), cache == "miss");
        assert!(line.get("error_code").is_none());
    }
    assert_eq!(known(&lines[2]), [json!("t"), json!("all"), json!("a\"b\\é"), json!("list"), Value::Null]);
    assert_eq!((&lines[2]["status"], &lines[2]["error_code"]), (&json!(400), &json!("INVALID_PARAMETER")));
    // A session token does not show its linked account.
    assert_eq!(known(&lines[3])[..3], [json!("t"), json!("session token"), Value::Null]);
    assert_eq!(known(&lines[4]), [Value::Null, Value::Null, Value::Null, json!("other"), Value::Null]);
    // A request can be refused after its caller is known.
    assert_eq!(known(&lines[5])[..4], [json!("t"), json!("all"), Value::Null, json!("list")]);
    assert_eq!(lines[5]["status"], json!(400));
    let text = format!("{lines:?}");
    for secret in [KEY, ORG_KEY, "a-session-token", "secret"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn the_cause_of_an_error_is_logged_and_not_sent() {
    let broken = RogueRefold::start().await;
    broken.behave(Deed::SayAndClose("this is not HTTP\r\n\r\n"));
    // The port is bound, and no process listens at it.
    let unreachable = Port::take();
    for (upstream, code) in
        [(broken.address(), "UPSTREAM_INVALID_RESPONSE"), (unreachable.address(), "UPSTREAM_UNREACHABLE")]
    {
        let program = Program::start_before(upstream, |config| config, None).await;
        let answer = program.list("acme-1", "").await;
        let lines = program.end().await;
        assert_eq!((&lines[0]["status"], &lines[0]["error_code"]), (&json!(502), &json!(code)), "{lines:?}");
        let cause = lines[0]["cause"].as_str().expect("the line has a cause");
        assert!(!cause.is_empty());
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        let fields: Vec<_> = body.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["error_code", "http_error_type", "message", "request_id", "status_code"]);
        assert!(!answer.contains(cause), "{cause} in {answer}");
    }
}

#[tokio::test]
async fn a_line_of_a_refused_request_has_its_canonical_query() {
    let program = Program::start(|config| config.client_limit(1, 1), None).await;
    let targets = [
        (format!("{EXECUTIONS}?status=errored&page=01"), json!(format!("{EXECUTIONS}?page=1&limit=10&status=ERRORED"))),
        (format!("{EXECUTIONS}/abc"), json!(format!("{EXECUTIONS}/abc"))),
        (
            format!("{EXECUTIONS}/abc/nodes/n/batches"),
            json!(format!("{EXECUTIONS}/abc/nodes/n/batches?page=1&limit=10")),
        ),
        // What the caller sent is never shown.
        (format!("{EXECUTIONS}?secret=1"), Value::Null),
    ];
    for (target, _) in &targets {
        let refused = async || program.ask(target, &once_as("acme-1")).await.starts_with("HTTP/1.1 429 ");
        eventually(refused).await;
    }
    let lines = program.end().await;
    let refused = lines.iter().filter(|line| line["status"] == 429).map(|line| line["query"].to_string());
    let (mut refused, mut expected) = (refused.collect::<Vec<_>>(), targets.map(|(_, query)| query.to_string()));
    refused.sort();
    expected.sort();
    assert_eq!(refused, expected, "{lines:#?}");
}

#[tokio::test]
async fn linked_accounts_can_be_hashed_or_left_out() {
    let digits = Hex(&sha256(b"acme-1")[..8]).to_string();
    for (shown, expected) in [("hashed", Some(json!(digits))), ("none", None)] {
        let program = Program::start(|config| config.set("log.linked_accounts", shown), None).await;
        program.list("acme-1", "").await;
        let lines = program.end().await;
        assert_eq!(lines[0].get("linked_account"), expected.as_ref());
        assert!(!lines[0].to_string().contains("acme-1"), "{lines:?}");
    }
}

#[tokio::test]
async fn settings_and_directives_reduce_the_access_log() {
    for (settings, directives, statuses) in [
        ("sample = 0", None, vec![400]),
        ("requests = \"errors\"", None, vec![400]),
        ("requests = \"none\"", None, vec![]),
        ("requests = \"all\"", Some("info,postern::access=off"), vec![]),
    ] {
        let program = Program::start(|config| config.toml(&format!("[log]\n{settings}\n")), directives).await;
        program.list("acme-1", "").await;
        program.list("acme-1", "?limit=0").await;
        let lines = program.end().await;
        let logged: Vec<_> = lines.iter().filter_map(|line| line["status"].as_u64()).collect();
        assert_eq!(logged, statuses, "{settings} {directives:?}");
    }
}

#[tokio::test]
async fn no_text_of_a_peer_changes_the_display_of_a_line() {
    let program = Program::start(|config| config, None).await;
    let accounts =
        ["a\u{9b}31m", "line\u{2028}forged\u{2029}", "a\u{202e}b\u{2066}c\u{200f}", "\u{85}\u{61c}", "Zoë 北京"];
    for account in accounts {
        assert!(program.list(account, "").await.starts_with("HTTP/1.1 200 "), "{account:?}");
    }
    let ended = program.0.terminate().await;
    let lines: Vec<_> = ended.log.iter().filter(|line| line.contains("\"message\":\"request\"")).collect();
    assert_eq!(lines.len(), accounts.len());
    for line in &lines {
        let unsafe_one = |letter: char| letter.is_control() || "\u{61c}\u{200e}\u{200f}".contains(letter);
        let display = |letter: char| unsafe_one(letter) || ('\u{2028}'..='\u{2069}').contains(&letter);
        assert!(!line.contains(display), "{line:?}");
    }
    for account in accounts {
        let named =
            |line: &&String| serde_json::from_str::<Value>(line).is_ok_and(|it| it["linked_account"] == account);
        assert!(lines.iter().any(named), "{account:?} in {lines:?}");
    }
    assert!(lines.iter().any(|line| line.contains("Zoë 北京")), "{lines:?}");
}

#[tokio::test]
async fn a_method_that_is_not_a_common_one_is_logged_as_other() {
    let program = Program::start(|config| config, None).await;
    for method in ["A".repeat(3000), "get".to_owned(), "PURGE".to_owned()] {
        let request = format!("{method} {EXECUTIONS} HTTP/1.1\r\nHost: localhost\r\n{}\r\n", once_as("acme-1"));
        assert!(raw(program.address(), request.as_bytes()).await.starts_with("HTTP/1.1 405 "));
    }
    let lines = program.end().await;
    assert!(lines.len() == 3 && lines.iter().all(|line| line["method"] == "_OTHER"), "{lines:#?}");
}
