//! Responses that HTTP and JSON allow, though the simulated Refold does not send them by itself.

use std::time::Duration;

use http::Method;

use crate::support::{Answer, Configuration, EXECUTIONS, ORG_KEY, PreparedRefold, World, as_account};

const PAGE: &str = r#"{"docs":[{"status":"COMPLETED"}],"totalDocs":1,"limit":10,"totalPages":1,"page":1,"pagingCounter":1,"hasPrevPage":false,"hasNextPage":false,"prevPage":null,"nextPage":null}"#;

/// A gateway with two org keys in front of an upstream that sends these responses.
async fn start(responses: impl IntoIterator<Item = Vec<u8>>) -> World<PreparedRefold> {
    start_with(responses, |config| config).await
}

/// [`start`] with another configuration.
async fn start_with(
    responses: impl IntoIterator<Item = Vec<u8>>,
    change: impl FnOnce(Configuration) -> Configuration,
) -> World<PreparedRefold> {
    let builder = World::builder().refold(PreparedRefold::new(responses)).config(change);
    builder.tenant(|tenant| tenant.org_key_next("NEXT_ORG_KEY")).start().await
}

async fn get(world: &World<PreparedRefold>, target: &str) -> Answer {
    world.gateway.get(target, &as_account("acme-1")).await
}

async fn post(world: &World<PreparedRefold>, action: &str) -> Answer {
    let target = format!("{EXECUTIONS}/65f0aa/{action}");
    world.gateway.send(Method::POST, &target, &as_account("acme-1")).await
}

/// A response with its `Content-Length`.
fn response(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}

/// A response whose head has no `Content-Length`.
fn without_length(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}\r\n").into_bytes()
}

fn page() -> Vec<u8> {
    response("200 OK", "etag: \"v1\"\r\n", PAGE)
}

#[tokio::test]
async fn a_304_renews_the_entry_whatever_content_headers_it_carries() {
    for headers in [
        "content-encoding: gzip\r\netag: \"v1\"\r\n",
        "content-encoding: br\r\ncontent-length: 5000\r\n",
        "content-encoding: deflate\r\ncontent-type: text/html\r\n",
        "content-encoding: zstd, gzip\r\ncontent-range: bytes 0-1/2\r\n",
        "content-length: 167\r\ncontent-type: application/json\r\n",
    ] {
        let world = start([page(), without_length("304 Not Modified", headers)]).await;
        let first = get(&world, EXECUTIONS).await;
        for _ in 0..12 {
            world.clock.advance(Duration::from_secs(6));
            let renewed = get(&world, EXECUTIONS).await;
            assert_eq!((renewed.status.as_u16(), &renewed.body), (200, &first.body), "{headers}");
            assert_eq!((renewed.header("age"), renewed.header("etag")), ("0", first.header("etag")), "{headers}");
        }
        assert_eq!(world.refold.requests(), 13, "each renewal was a request");
    }
}

#[tokio::test]
async fn an_error_status_counts_whatever_its_body_is_encoded_in() {
    for (status, coding, body) in [
        ("429 Too Many Requests", "gzip", &b""[..]),
        ("429 Too Many Requests", "br", b""),
        ("429 Too Many Requests", "zstd", b""),
        ("429 Too Many Requests", "compress", b""),
        ("503 Service Unavailable", "gzip", b""),
        ("429 Too Many Requests", "gzip", b"\x1f\x8b\x08"),
        ("429 Too Many Requests", "deflate", b"x\x9c\x03\x00"),
        ("503 Service Unavailable", "br", b"<html>no brotli</html>"),
    ] {
        let headers = format!("content-encoding: {coding}\r\nretry-after: 7\r\n");
        let world = start([response(status, &headers, body)]).await;
        let answer = get(&world, EXECUTIONS).await;
        assert_eq!(status[..3], *answer.status.as_str(), "{coding}: {:?}", answer.body);
        assert_eq!(answer.header("retry-after"), "7", "{status} in {coding}");
        assert_eq!(answer.json()["status_code"], answer.status.as_u16());
    }
    let world = start([response("404 Not Found", "content-encoding: zstd\r\n", b"")]).await;
    assert_eq!(get(&world, &format!("{EXECUTIONS}/65f0aa")).await.status.as_u16(), 404);
}

#[tokio::test]
async fn a_401_without_a_body_to_decode_is_followed_by_the_other_org_key() {
    for (coding, body) in [("gzip", &b""[..]), ("br", b""), ("deflate", b""), ("gzip", b"not gzip")] {
        let headers = format!("content-encoding: {coding}\r\n");
        let world = start([response("401 Unauthorized", &headers, body), page()]).await;
        let answer = get(&world, EXECUTIONS).await;
        assert_eq!((answer.status.as_u16(), world.refold.requests()), (200, 2), "{coding}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn retry_after_is_a_number_of_seconds_or_any_form_of_date() {
    // The test's time is Friday, 2026-03-20 12:00:00 UTC.
    for (value, seconds) in [
        ("Fri, 20 Mar 2026 12:00:30 GMT", "30"),
        ("Friday, 20-Mar-26 12:00:30 GMT", "30"),
        ("Fri Mar 20 12:00:30 2026", "30"),
        ("Fri, 20 Mar 2026 12:09:59 GMT", "599"),
        ("Sat, 21 Mar 2026 12:00:00 GMT", "600"),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "600"),
        ("Fri, 20 Mar 2026 11:59:00 GMT", "1"),
        ("Sunday, 06-Nov-94 08:49:37 GMT", "1"),
        ("Fri, 31 Mar 2026", "1"),
        ("Fri, 31 Feb 2026 12:00:30 GMT", "1"),
        ("90", "90"),
        ("600", "600"),
        ("3600", "600"),
        ("99999999999999999999999", "600"),
        ("0", "1"),
        ("-5", "1"),
        ("soon", "1"),
    ] {
        let headers = format!("retry-after: {value}\r\n");
        let sent = [response("429 Too Many Requests", &headers, ""), page()];
        let world = start_with(sent, |config| config.max_wait("0s")).await;
        let refused = get(&world, EXECUTIONS).await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, seconds), "{value}");
        if seconds == "1" {
            continue;
        }
        // The wait would be longer than a fetch may wait.
        let held = get(&world, EXECUTIONS).await;
        assert_eq!((held.error_code().as_str(), held.header("retry-after")), ("UPSTREAM_BUDGET_EXCEEDED", seconds));
        assert_eq!(world.refold.requests(), 1, "{value}");
        world.clock.advance(Duration::from_secs(seconds.parse().expect("a number")));
        assert_eq!(get(&world, EXECUTIONS).await.status.as_u16(), 200, "{value}");
    }
    let headers = "retry-after: Fri, 20 Mar 2026 12:02:00 GMT\r\n";
    let world = start([response("503 Service Unavailable", headers, "")]).await;
    assert_eq!(get(&world, EXECUTIONS).await.header("retry-after"), "120");
}

#[tokio::test]
async fn retry_after_is_bounded_by_the_configuration() {
    for (bound, value, seconds) in [
        ("1m", "600", "60"),
        ("1m", "Fri, 20 Mar 2026 13:00:00 GMT", "60"),
        ("1h", "1800", "1800"),
        ("500ms", "30", "1"),
    ] {
        let headers = format!("retry-after: {value}\r\n");
        let refused = response("429 Too Many Requests", &headers, "");
        let change = |config: Configuration| config.max_wait("0s").set("upstream.max_retry_after", bound);
        let world = start_with([refused], change).await;
        assert_eq!(get(&world, EXECUTIONS).await.header("retry-after"), seconds, "{bound}, {value}");
    }
}

#[tokio::test]
async fn an_action_succeeds_with_any_2xx() {
    let json = r#"{"message":"Accepted"}"#;
    for (sent, status, body) in [
        (response("200 OK", "", json), 200, json),
        (response("202 Accepted", "", json), 202, json),
        (response("201 Created", "content-type: text/plain\r\n", json), 201, json),
        (without_length("204 No Content", ""), 204, ""),
        (without_length("204 No Content", "content-encoding: gzip\r\n"), 204, ""),
        (response("205 Reset Content", "", ""), 205, ""),
        (response("200 OK", "", ""), 200, ""),
        (response("200 OK", "content-encoding: br\r\n", ""), 200, ""),
        (response("202 Accepted", "content-type: application/json\r\n", ""), 202, ""),
        // Refold has acted: a body that can't be shown changes nothing about that.
        (response("200 OK", "content-type: text/plain\r\n", "stopped"), 200, ""),
        (response("202 Accepted", "content-encoding: gzip\r\n", "no gzip"), 202, ""),
        (response("200 OK", "", format!("{{\"message\":\"{ORG_KEY}\"}}")), 200, ""),
        (without_length("200 OK", "content-length: 90\r\nconnection: close\r\n"), 200, ""),
    ] {
        for action in ["stop", "rerun"] {
            let world = start([sent.clone()]).await;
            let answer = post(&world, action).await;
            let shown = String::from_utf8_lossy(&sent);
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (status, body.as_bytes()), "{action}: {shown}");
            let content_type = if body.is_empty() { "" } else { "application/json" };
            assert_eq!(answer.header("content-type"), content_type, "{action}: {shown}");
            assert_eq!((answer.header("cache-control"), world.refold.requests()), ("no-store", 1), "{action}: {shown}");
        }
    }
}

#[tokio::test]
async fn an_action_without_a_2xx_is_an_error() {
    for (sent, status, code) in [
        (response("302 Found", "location: /elsewhere\r\n", ""), 502, "UPSTREAM_INVALID_RESPONSE"),
        (without_length("304 Not Modified", ""), 502, "UPSTREAM_INVALID_RESPONSE"),
        (response("409 Conflict", "content-encoding: gzip\r\n", ""), 409, "CONFLICT"),
        (response("500 Oops", "", ""), 500, "INTERNAL_SERVER_ERROR"),
        (Vec::new(), 502, "UPSTREAM_UNREACHABLE"),
    ] {
        let world = start([sent]).await;
        let answer = post(&world, "rerun").await;
        assert_eq!(answer.error(), (status, code.to_owned()));
    }
}

#[tokio::test]
async fn a_space_before_the_colon_of_a_header_is_accepted() {
    for name in ["etag :", "etag\t:", "content-type  :", "x-anything \t :"] {
        let headers = format!("{name} \"v1\"\r\n");
        let world = start([response("200 OK", &headers, PAGE)]).await;
        let answer = get(&world, EXECUTIONS).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, PAGE.as_bytes()), "{name}");
    }
    let headers = "retry-after : 9\r\n";
    let world = start([response("429 Too Many Requests", headers, "")]).await;
    assert_eq!(get(&world, EXECUTIONS).await.header("retry-after"), "9");
}

#[tokio::test]
async fn a_folded_header_field_is_accepted() {
    for headers in [
        "etag: \"v1\"\r\n \r\n",
        "x-anything: one\r\n two\r\n\tthree\r\n",
        "content-type: application/json;\r\n\tcharset=utf-8\r\netag:\r\n  \"v1\"\r\n",
    ] {
        let world = start([response("200 OK", headers, PAGE)]).await;
        let answer = get(&world, EXECUTIONS).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, PAGE.as_bytes()), "{headers:?}");
    }
    for headers in ["retry-after:\r\n 9\r\n", "retry-after: Fri, 20 Mar 2026\r\n 12:00:09 GMT\r\n"] {
        let world = start([response("429 Too Many Requests", headers, "")]).await;
        assert_eq!(get(&world, EXECUTIONS).await.header("retry-after"), "9", "{headers:?}");
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_json_is_left_out() {
    let marked = |json: &str| format!("\u{feff}{json}");
    let document = r#"{"_id":"65f0aa","status":"COMPLETED"}"#;
    for (target, json) in [
        (EXECUTIONS.to_owned(), PAGE),
        (format!("{EXECUTIONS}/65f0aa"), document),
        (format!("{EXECUTIONS}/65f0aa/nodes/n1/batches"), PAGE),
    ] {
        let world = start([response("200 OK", "", marked(json))]).await;
        let answer = get(&world, &target).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, json.as_bytes()), "{target}");
    }
    let world = start([response("200 OK", "", marked(r#"{"message":"stopped"}"#))]).await;
    assert_eq!(post(&world, "stop").await.body, r#"{"message":"stopped"}"#);
    let error = r#"{"error_code":"NO_SUCH_THING","message":"It is gone"}"#;
    let world = start([response("404 Not Found", "", marked(error))]).await;
    assert_eq!(get(&world, EXECUTIONS).await.error_code(), "NO_SUCH_THING");
    for garbage in ["\u{feff}", "\u{feff}\u{feff}{}", "{}\u{feff}"] {
        let world = start([response("200 OK", "", garbage)]).await;
        assert_eq!(get(&world, &format!("{EXECUTIONS}/65f0aa")).await.error_code(), "UPSTREAM_INVALID_RESPONSE");
    }
}

#[tokio::test]
async fn a_large_body_is_served_in_every_coding_from_its_first_answer_on() {
    let list = PAGE.replace("\"docs\":[", &format!("\"docs\":[{}", "{\"status\":\"COMPLETED\"},".repeat(3000)));
    let document = format!(r#"{{"status":"COMPLETED","nodes":"{}"}}"#, "x".repeat(100_000));
    for (target, body) in [(EXECUTIONS.to_owned(), list), (format!("{EXECUTIONS}/65f0aa"), document)] {
        for coding in ["br", "zstd", "gzip"] {
            let world = start([response("200 OK", "", &body)]).await;
            let headers = [as_account("acme-1").as_slice(), &[("accept-encoding", coding)]].concat();
            let first = world.gateway.get(&target, &headers).await;
            assert_eq!(first.header("content-encoding"), coding, "{target}");
            assert!(first.body.len() * 3 <= body.len(), "{target}");
            let plain = get(&world, &target).await;
            assert_eq!((plain.header("content-encoding"), &plain.body[..]), ("", body.as_bytes()), "{target}");
            assert_eq!(world.refold.requests(), 1, "{target}");
        }
    }
}
