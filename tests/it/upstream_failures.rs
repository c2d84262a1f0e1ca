//! Upstreams that misbehave: each response is a documented error, and the next request is served.

use std::time::Duration;

use http::{Method, StatusCode};
use postern::clock::Clock;

use crate::support::rogue::{Deed, RogueRefold};
use crate::support::{
    Answer, Configuration, EXECUTIONS, Port, PreparedRefold, ScriptedRefold, World, as_account, until, within,
};

/// Bounds that a misbehaving upstream reaches soon.
fn bounds(config: Configuration) -> Configuration {
    config
        .set("upstream.connect_timeout", "1s")
        .set("upstream.first_byte_timeout", "300ms")
        .set("upstream.total_timeout", "600ms")
        .set("upstream.max_response_body", "1MiB")
}

/// Asserts the documented shape of an error; returns its status and code.
fn error_of(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body["status_code"], answer.status.as_u16());
    for field in ["http_error_type", "error_code", "message", "request_id"] {
        assert!(!body[field].as_str().expect(field).is_empty(), "{body}");
    }
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.error()
}

async fn rogue() -> World<RogueRefold> {
    World::builder().refold(RogueRefold::start().await).config(bounds).start().await
}

/// Requests a page while the upstream misbehaves, and asserts that the next request is served.
async fn assert_error(world: &World<RogueRefold>, deed: Deed, page: u32, expected: (u16, &str)) {
    world.refold.behave(deed);
    let answer = within(world.list("acme-1", &format!("page={}", 2 * page))).await;
    assert_eq!(error_of(&answer), (expected.0, expected.1.to_owned()), "{deed:?}: {:?}", answer.body);
    world.refold.behave(Deed::GOOD);
    let next = within(world.list("acme-1", &format!("page={}", 2 * page + 1))).await;
    assert_eq!(next.status, StatusCode::OK, "the request after {deed:?}: {:?}", next.body);
}

#[tokio::test]
async fn a_broken_exchange_is_a_documented_error() {
    let world = rogue().await;
    let close = Deed::SayAndClose;
    for (page, (deed, status, code)) in (1..).zip([
        (Deed::Hang, 504, "UPSTREAM_TIMEOUT"),
        (Deed::Drip, 504, "UPSTREAM_TIMEOUT"),
        (Deed::Reset, 502, "UPSTREAM_UNREACHABLE"),
        (close(""), 502, "UPSTREAM_UNREACHABLE"),
        (close("HTTP/1.1 200 OK\r\ncontent-len"), 502, "UPSTREAM_UNREACHABLE"),
        (close("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"docs\":["), 502, "UPSTREAM_INVALID_RESPONSE"),
        (close("SSH-2.0-OpenSSH_9.2\r\n"), 502, "UPSTREAM_INVALID_RESPONSE"),
        (Deed::Flood, 502, "UPSTREAM_RESPONSE_TOO_LARGE"),
        (close("HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n{"), 502, "UPSTREAM_RESPONSE_TOO_LARGE"),
    ]) {
        assert_error(&world, deed, page, (status, code)).await;
    }
    let sent = world.refold.flooded();
    assert!(sent < 64 << 20, "a flood is cut off soon after the bound of 1 MiB: {sent} bytes were taken");
}

#[tokio::test]
async fn a_response_that_is_no_page_is_a_documented_error() {
    let world = rogue().await;
    for (page, response) in (1..).zip([
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"docs\":[1]",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x08\x08",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ]) {
        let expected = (502, "UPSTREAM_INVALID_RESPONSE");
        assert_error(&world, Deed::SayAndClose(response), page, expected).await;
    }
}

#[tokio::test]
async fn an_upstream_error_status_is_a_documented_error() {
    let world = rogue().await;
    let not_found =
        "HTTP/1.1 404 Not Found\r\ncontent-length: 45\r\n\r\n{\"error\":\"NO_SUCH_THING\",\"message\":\"It went\"}";
    for (page, (response, status, code)) in (1..).zip([
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>", 502, "BAD_GATEWAY"),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", 500, "INTERNAL_SERVER_ERROR"),
        ("HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n", 418, "IM_A_TEAPOT"),
        ("HTTP/1.1 599 ?\r\ncontent-length: 0\r\n\r\n", 599, "INTERNAL_SERVER_ERROR"),
        ("HTTP/1.1 499 ?\r\ncontent-length: 0\r\n\r\n", 499, "BAD_REQUEST"),
        (not_found, 404, "NO_SUCH_THING"),
        ("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", 502, "UPSTREAM_CREDENTIAL_REJECTED"),
    ]) {
        assert_error(&world, Deed::SayAndClose(response), page, (status, code)).await;
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_unreachable() {
    // The port is bound, and no process listens at it.
    let port = Port::take();
    let world = World::builder().refold(port.address()).config(bounds).start().await;
    assert_eq!(error_of(&world.list("acme-1", "").await), (502, "UPSTREAM_UNREACHABLE".to_owned()));
}

#[tokio::test]
async fn an_upstream_429_is_passed_on_and_pauses_later_fetches() {
    let world = rogue().await;
    world.refold.behave(Deed::Say("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"));
    let answer = world.list("acme-1", "page=1").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "7"));
    // The pause is longer than a fetch may wait.
    let paused = world.list("acme-1", "page=2").await;
    assert_eq!(error_of(&paused), (429, "UPSTREAM_BUDGET_EXCEEDED".to_owned()));
    assert_eq!(paused.header("retry-after"), "7");
}

#[tokio::test]
async fn a_failed_read_is_retried_and_a_failed_stop_is_not() {
    for (failures, status, requests) in
        [(1, StatusCode::OK, 2), (2, StatusCode::OK, 3), (3, StatusCode::BAD_GATEWAY, 3)]
    {
        let refold = ScriptedRefold::start().await;
        refold.answer_next_with(&vec![502; failures]);
        let builder = World::builder().refold(refold).clock(Clock::system());
        let world = builder.config(|config| config.retries(2)).start().await;
        let answer = world.list("a", "").await;
        assert_eq!((answer.status, world.refold.requests()), (status, requests));
    }
    let refold = ScriptedRefold::start().await;
    refold.answer_next_with(&[502]);
    let world = World::builder().refold(refold).config(|config| config.retries(2)).start().await;
    let stop = world.gateway.send(Method::POST, &format!("{EXECUTIONS}/1/stop"), &as_account("a")).await;
    assert_eq!((stop.status, world.refold.requests()), (StatusCode::BAD_GATEWAY, 1));
}

#[tokio::test]
async fn a_read_that_refold_limits_waits_for_its_turn() {
    // Longest wait, statuses of Refold, and what the caller and Refold see.
    for (max_wait, statuses, status, requests) in [
        ("5s", &[429][..], StatusCode::OK, 2),
        ("5s", &[429, 429], StatusCode::TOO_MANY_REQUESTS, 2),
        // The pause is a second.
        ("900ms", &[429], StatusCode::TOO_MANY_REQUESTS, 1),
    ] {
        let refold = ScriptedRefold::start().await;
        refold.answer_next_with(statuses);
        let builder = World::builder().refold(refold).clock(Clock::system());
        let world = builder.config(|config| config.retries(1).max_wait(max_wait)).start().await;
        let answer = world.list("a", "").await;
        assert_eq!((answer.status, world.refold.requests()), (status, requests), "{max_wait}, {statuses:?}");
    }
    let refold = ScriptedRefold::start().await;
    refold.answer_next_with(&[429]);
    let world = World::builder().refold(refold).config(|config| config.retries(2)).start().await;
    let stop = world.gateway.send(Method::POST, &format!("{EXECUTIONS}/1/stop"), &as_account("a")).await;
    assert_eq!((stop.status, world.refold.requests()), (StatusCode::TOO_MANY_REQUESTS, 1));
}

#[tokio::test]
async fn an_open_circuit_is_probed_by_one_request() {
    let refold = ScriptedRefold::start().await;
    refold.answer_with(502);
    let world = World::builder().refold(refold).config(|config| config.breaker(3, "5s")).start().await;
    let ask = async |page: u32| world.list("a", &format!("page={page}")).await;
    for page in 1..4 {
        assert_eq!(ask(page).await.error_code(), "BAD_GATEWAY");
    }
    for page in 4..8 {
        let open = ask(page).await;
        assert_eq!(error_of(&open), (503, "UPSTREAM_CIRCUIT_OPEN".to_owned()));
        assert_eq!(open.header("retry-after"), "5");
    }
    assert_eq!(world.refold.requests(), 3);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(ask(8).await.error_code(), "BAD_GATEWAY");
    assert_eq!(ask(9).await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
    world.refold.answer_with(200);
    world.clock.advance(Duration::from_secs(5));
    for page in 10..14 {
        assert_eq!(ask(page).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_beyond_the_concurrency_limit_wait_for_a_permit() {
    let builder = World::builder().refold(ScriptedRefold::gated().await);
    let world = builder.config(|config| config.set("upstream.max_concurrent", 2)).start().await;
    let ask = |page: u32| world.gateway.spawn_list("acme-1", &format!("page={page}"));
    let pending: Vec<_> = (1..=7).map(ask).collect();
    until(|| world.refold.in_flight() == 2).await;
    world.refold.release();
    for pending in pending {
        assert_eq!(pending.answer().await.status, StatusCode::OK);
    }
    assert_eq!(world.refold.most_in_flight(), 2);
    // A fetch without a permit in time is refused with a `Retry-After`.
    world.refold.hold();
    let stuck: Vec<_> = (11..=12).map(ask).collect();
    until(|| world.refold.in_flight() == 2).await;
    let late = ask(13);
    while !late.is_finished() {
        world.clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let late = late.answer().await;
    assert_eq!((late.error_code().as_str(), late.header("retry-after")), ("OVERLOADED", "1"));
    world.refold.release();
    for stuck in stuck {
        assert_eq!(stuck.answer().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_upstream_error_of_any_size_is_kept_and_sent_as_a_small_one() {
    let long = "X".repeat(200_000);
    for (code, shown) in
        [(&*long, "NOT_FOUND"), ("<script>", "NOT_FOUND"), ("NO\u{202e}PE", "NOT_FOUND"), ("NO_SUCH", "NO_SUCH")]
    {
        let body = serde_json::json!({
            "error_code": code, "http_error_type": code, "message": long, "request_id": long,
        });
        let body = body.to_string();
        let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n", body.len());
        let refold = PreparedRefold::new([(head + &body).into_bytes()]);
        let world = World::builder().refold(refold).config(bounds).start().await;
        let answer = world.list("acme-1", "").await;
        assert_eq!(error_of(&answer), (404, shown.to_owned()));
        assert!(answer.body.len() < 4096, "{}", answer.body.len());
        assert_eq!(answer.json()["request_id"], answer.header("x-request-id"));
        assert_eq!(world.gateway.recent_errors()[0].error_code, shown);
    }
}
