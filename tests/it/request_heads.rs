//! Request heads that can't be served: each is answered with the documented body, counted and logged.

use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::connection::{Connection, get, http_2, http_2_request, once_as, with_key};
use crate::support::tls::{TlsClient, folder_with};
use crate::support::{EXECUTIONS, KEY, World, as_account};

/// The status and the error code of a raw response in the documented shape.
fn error_of(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {answer:?}"));
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let status = u16::try_from(body["status_code"].as_u64().expect("a status")).expect("a status");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    for line in ["content-type: application/json", "cache-control: no-store"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {answer}");
    }
    assert!(head.contains(&format!("\r\nx-request-id: {}\r\n", body["request_id"].as_str().expect("an id"))));
    (status, body["error_code"].as_str().expect("a code").to_owned())
}

fn with_fields(count: usize) -> String {
    let fields = (0..count).fold(String::new(), |fields, number| fields + &format!("x-{number}: 1\r\n"));
    get(EXECUTIONS, &(once_as("acme-2") + &fields))
}

#[tokio::test]
async fn a_head_that_can_not_be_parsed_gets_the_documented_body() {
    let world = World::start().await;
    let begun = "GET /api/v2/public/execution HTTP/1.1\r\nHost: a\r\n";
    let target = |length: usize| get(&format!("{EXECUTIONS}?slug={}", "a".repeat(length)), &once_as("acme-2"));
    let refused = [
        (with_fields(101), 431, "HEADERS_TOO_LARGE"),
        (with_fields(2000), 431, "HEADERS_TOO_LARGE"),
        (get(EXECUTIONS, &format!("cookie: {}\r\n", "a".repeat(70_000))), 431, "HEADERS_TOO_LARGE"),
        (target(70_000), 414, "URI_TOO_LONG"),
        (target(48_000), 414, "URI_TOO_LONG"),
        (target(1_000_000), 414, "URI_TOO_LONG"),
        (format!("{begun}no colon\r\n\r\n"), 400, "MALFORMED_REQUEST"),
        (format!("{begun}a b: 1\r\n\r\n"), 400, "MALFORMED_REQUEST"),
        (format!("{begun}Content-Length: five\r\n\r\n"), 400, "MALFORMED_REQUEST"),
        (format!("{begun}Transfer-Encoding: gzip\r\n\r\n"), 400, "MALFORMED_REQUEST"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 400, "MALFORMED_REQUEST"),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "MALFORMED_REQUEST"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".to_owned(), 400, "MALFORMED_REQUEST"),
    ];
    for (bytes, status, code) in &refused {
        let answer = world.gateway.raw(bytes).await;
        assert_eq!(error_of(&answer), (*status, (*code).to_owned()), "{}", &bytes[..bytes.len().min(100)]);
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        let [latest, ..] = &world.gateway.recent_errors()[..] else { panic!("it is recorded") };
        assert!(answer.contains(&latest.occurrences.last[0].request_id) && latest.error_code == *code, "{latest:?}");
    }
    let metrics = world.gateway.metrics();
    for line in [
        "postern_errors_total{error_code=\"MALFORMED_REQUEST\",tenant=\"\"} 7",
        "postern_errors_total{error_code=\"HEADERS_TOO_LARGE\",tenant=\"\"} 3",
        "postern_errors_total{error_code=\"URI_TOO_LONG\",tenant=\"\"} 3",
        "postern_requests_total{cache=\"none\",endpoint=\"other\",outcome=\"4xx\",tenant=\"\"} 13",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn as_many_fields_as_fit_are_accepted() {
    let world = World::start().await;
    // Host, Connection, and the caller's two.
    assert!(world.gateway.raw(with_fields(96)).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_large_head_of_http_2_gets_the_documented_body() {
    let world = World::start().await;
    let address = world.gateway.address;
    let request = || http_2_request("GET", address, "acme-2");
    let with_fields = |count: usize| {
        let mut request = request();
        for number in 0..count {
            let name: HeaderName = format!("x-{number}").parse().expect("a name");
            request.headers_mut().insert(name, HeaderValue::from_static("1"));
        }
        request
    };
    let with_cookie = |length: usize| {
        let mut request = request();
        request.headers_mut().insert("cookie", "a".repeat(length).parse().expect("a value"));
        request
    };
    let with_target = |length: usize| {
        let mut request = request();
        let target = format!("http://{address}{EXECUTIONS}?slug={}", "a".repeat(length));
        *request.uri_mut() = target.parse().expect("a target");
        request
    };
    for (request, status, code) in [
        (with_fields(101), 200, ""),
        (with_fields(300), 431, "HEADERS_TOO_LARGE"),
        (with_fields(2000), 431, "HEADERS_TOO_LARGE"),
        (with_cookie(20_000), 431, "HEADERS_TOO_LARGE"),
        (with_cookie(70_000), 431, "HEADERS_TOO_LARGE"),
        (with_target(20_000), 414, "URI_TOO_LONG"),
        (with_target(60_000), 414, "URI_TOO_LONG"),
    ] {
        let (mut sender, _connection) = http_2(address).await;
        let answer = sender.send_request(request).await.expect("a response");
        let found = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{found}, {error}: {body:?}"));
        assert_eq!((found, body["error_code"].as_str().unwrap_or_default()), (status, code));
    }
}

#[tokio::test]
async fn a_malformed_request_behind_good_ones_is_answered_in_turn() {
    let world = World::start().await;
    let good = get(EXECUTIONS, &with_key(KEY, "acme-2"));
    let answer = world.gateway.raw(good.clone() + &good + "NONSENSE\r\n\r\n" + &good).await;
    assert_eq!((answer.matches("HTTP/1.1 200 ").count(), answer.matches("HTTP/1.1 ").count()), (2, 3), "{answer}");
    let refusal = answer.rfind("HTTP/1.1 400 ").expect("the third response");
    assert_eq!(error_of(&answer[refusal..]), (400, "MALFORMED_REQUEST".to_owned()));
    // The head of a response without a body is no refusal of hyper's.
    let mut connection = Connection::open(world.gateway.address).await;
    connection.write(format!("HEAD /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n{good}")).await;
    let head = connection.receive_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404 ") && head.contains("x-request-id"), "{head}");
    assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_slow_head_is_counted_too() {
    let short = |config: crate::support::Configuration| config.set("server.header_timeout", "200ms");
    let world = World::builder().config(short).start().await;
    let answer = world.gateway.raw("GET / HTTP/1.1\r\nHost: a\r\nx-").await;
    assert_eq!(error_of(&answer), (408, "REQUEST_TIMEOUT".to_owned()));
    assert!(world.gateway.metrics().contains("postern_errors_total{error_code=\"REQUEST_TIMEOUT\",tenant=\"\"} 1"));
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_in_plain_http() {
    let folder = folder_with("server-1");
    let world = World::builder().listener(|listener| listener.tls(&folder)).start().await;
    let good = get(EXECUTIONS, &with_key(KEY, "acme-1"));
    for plain in [
        good.clone(),
        format!("POST /hooks/refold/t HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000)),
        "get / HTTP/1.0\r\n\r\n".to_owned(),
        "O".to_owned(),
    ] {
        let answer = world.gateway.raw(&plain).await;
        assert_eq!(error_of(&answer), (400, "MALFORMED_REQUEST".to_owned()));
        assert!(answer.contains("https"), "{answer}");
    }
    // Other bytes are not HTTP, and get an alert or nothing.
    assert!(!world.gateway.raw("\u{1}\u{2}\u{3}\u{4}\u{5}").await.contains("HTTP/1.1"));
    let metrics = world.gateway.metrics();
    assert!(metrics.contains("postern_errors_total{error_code=\"MALFORMED_REQUEST\",tenant=\"\"} 4"), "{metrics}");
    let client = TlsClient::new(world.gateway.address, None);
    assert_eq!(client.status(&as_account("acme-1")).await, StatusCode::OK);
}
