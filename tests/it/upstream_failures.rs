//! An upstream that misbehaves in every way there is: a documented error, and the next request is served.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Answer, Gateway, Setup, as_account, http_upstream, page_of, spawn_upstream, until};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{\"docs\":[],\"totalDocs\":0} ";
const BOUNDS: &str = "connect_timeout = \"1s\"\nfirst_byte_timeout = \"300ms\"\ntotal_timeout = \"600ms\"\nmax_response_body = \"1MiB\"\n";

/// What an upstream does once it has read a request.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Sends this and keeps the connection.
    Say(&'static str),
    /// Sends this and ends the connection.
    SayAndClose(&'static str),
    /// Nothing, for ever.
    Hang,
    /// Ends the connection with a reset.
    Reset,
    /// Sends a chunked body that does not end before 10 GB.
    Flood,
    /// Sends a head, and then a byte from time to time.
    Drip,
}

struct Rogue {
    gateway: Gateway,
    deed: Arc<Mutex<Deed>>,
    sent: Arc<AtomicU64>,
    asked: AtomicU64,
}

impl Rogue {
    async fn start() -> Self {
        let deed = Arc::new(Mutex::new(Deed::Say(GOOD)));
        let sent = Arc::new(AtomicU64::new(0));
        let (next, count) = (Arc::clone(&deed), Arc::clone(&sent));
        let upstream = spawn_upstream(|listener: TcpListener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&next), Arc::clone(&count)));
            }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        let gateway = Gateway::start(upstream, &format!("{BOUNDS}{top}"), &tenant, clock);
        Self { gateway, deed, sent, asked: AtomicU64::new(0) }
    }

    /// A question that was not asked before.
    async fn ask(&self) -> Answer {
        let page = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let target = format!("/api/v2/public/execution?page={page}");
        let account = as_account("acme-1");
        let asking = self.gateway.get(&target, &account);
        tokio::time::timeout(Duration::from_secs(20), asking).await.expect("an answer, whatever the upstream does")
    }

    async fn ask_while(&self, deed: Deed) -> Answer {
        *self.deed.lock().expect("no panic") = deed;
        let answer = self.ask().await;
        *self.deed.lock().expect("no panic") = Deed::Say(GOOD);
        let next = self.ask().await;
        assert_eq!(next.status, StatusCode::OK, "the request after {deed:?}: {:?}", next.body);
        answer
    }
}

async fn serve(mut stream: TcpStream, deed: Arc<Mutex<Deed>>, sent: Arc<AtomicU64>) {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        head.clear();
        let deed = *deed.lock().expect("no panic");
        match deed {
            Deed::Say(text) => stream.write_all(text.as_bytes()).await.expect("it is read"),
            Deed::SayAndClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                return;
            }
            Deed::Hang => std::future::pending().await,
            Deed::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                return;
            }
            Deed::Flood => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
                while sent.load(Ordering::SeqCst) < 10_000_000_000 && stream.write_all(&chunk).await.is_ok() {
                    sent.fetch_add(0x10000, Ordering::SeqCst);
                }
                return;
            }
            Deed::Drip => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return;
            }
        }
    }
}

fn shape(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    assert_eq!(body["status_code"], answer.status.as_u16());
    for field in ["http_error_type", "error_code", "message", "request_id"] {
        assert!(!body[field].as_str().expect(field).is_empty(), "{body}");
    }
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    (answer.status.as_u16(), answer.error_code())
}

#[tokio::test]
async fn whatever_an_upstream_does_is_answered_with_a_documented_error_and_the_next_request_is_served() {
    let rogue = Rogue::start().await;
    for (deed, status, code) in [
        (Deed::Hang, 504, "UPSTREAM_TIMEOUT"),
        (Deed::Drip, 504, "UPSTREAM_TIMEOUT"),
        (Deed::Reset, 502, "UPSTREAM_UNREACHABLE"),
        (Deed::SayAndClose(""), 502, "UPSTREAM_UNREACHABLE"),
        (Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-len"), 502, "UPSTREAM_UNREACHABLE"),
        (
            Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"docs\":["),
            502,
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (Deed::SayAndClose("SSH-2.0-OpenSSH_9.2\r\n"), 502, "UPSTREAM_INVALID_RESPONSE"),
        (Deed::Flood, 502, "UPSTREAM_RESPONSE_TOO_LARGE"),
        (
            Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n{"),
            502,
            "UPSTREAM_RESPONSE_TOO_LARGE",
        ),
        (Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"), 502, "UPSTREAM_INVALID_RESPONSE"),
        (Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), 502, "UPSTREAM_INVALID_RESPONSE"),
        (
            Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"docs\":[1]"),
            502,
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (Deed::SayAndClose("HTTP/1.1 204 No Content\r\n\r\n"), 502, "UPSTREAM_INVALID_RESPONSE"),
        (
            Deed::SayAndClose("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x08\x08"),
            502,
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (
            Deed::SayAndClose("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"),
            502,
            "UPSTREAM_INVALID_RESPONSE",
        ),
        (Deed::SayAndClose("HTTP/1.1 304 Not Modified\r\n\r\n"), 502, "UPSTREAM_INVALID_RESPONSE"),
        (Deed::SayAndClose("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>"), 502, "BAD_GATEWAY"),
        (Deed::SayAndClose("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"), 500, "INTERNAL_SERVER_ERROR"),
        (Deed::SayAndClose("HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n"), 418, "IM_A_TEAPOT"),
        (Deed::SayAndClose("HTTP/1.1 599 ?\r\ncontent-length: 0\r\n\r\n"), 599, "INTERNAL_SERVER_ERROR"),
        (Deed::SayAndClose("HTTP/1.1 499 ?\r\ncontent-length: 0\r\n\r\n"), 499, "BAD_REQUEST"),
        (
            Deed::SayAndClose(
                "HTTP/1.1 404 Not Found\r\ncontent-length: 45\r\n\r\n{\"error\":\"NO_SUCH_THING\",\"message\":\"It went\"}",
            ),
            404,
            "NO_SUCH_THING",
        ),
        (
            Deed::SayAndClose("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"),
            502,
            "UPSTREAM_CREDENTIAL_REJECTED",
        ),
    ] {
        let answer = rogue.ask_while(deed).await;
        assert_eq!(shape(&answer), (status, code.to_owned()), "{deed:?}: {:?}", answer.body);
    }
    let sent = rogue.sent.load(Ordering::SeqCst);
    assert!(sent < 64 << 20, "a flood is cut off soon after the bound of 1 MiB: {sent} bytes were taken");
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it is bound");
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Gateway::start(free, &format!("{BOUNDS}{top}"), &tenant, clock);
    let answer = gateway.get("/api/v2/public/execution", &as_account("acme-1")).await;
    assert_eq!(shape(&answer), (502, "UPSTREAM_UNREACHABLE".to_owned()));
}

#[tokio::test]
async fn an_upstream_429_is_passed_on_with_its_retry_after_and_holds_what_follows() {
    let rogue = Rogue::start().await;
    *rogue.deed.lock().expect("no panic") =
        Deed::Say("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n");
    let answer = rogue.ask().await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "7"));
    // The wait would be longer than a fetch may wait.
    let held = rogue.ask().await;
    assert_eq!(shape(&held), (429, "UPSTREAM_BUDGET_EXCEEDED".to_owned()));
    assert_eq!(held.header("retry-after"), "7");
}

/// An upstream that fails as often as it is told to, and counts who asks.
async fn moody(failures: u64) -> (std::net::SocketAddr, Arc<AtomicU64>, Arc<AtomicU64>) {
    let (left, asked) = (Arc::new(AtomicU64::new(failures)), Arc::new(AtomicU64::new(0)));
    let (fails, count) = (Arc::clone(&left), Arc::clone(&asked));
    let upstream = crate::harness::http_upstream(move |_| {
        let (fails, count) = (Arc::clone(&fails), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let mut response = crate::harness::page_of(&serde_json::json!({ "status": "COMPLETED" }));
            if fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                *response.status_mut() = StatusCode::BAD_GATEWAY;
            }
            response
        }
    })
    .await;
    (upstream, left, asked)
}

#[tokio::test]
async fn a_question_that_failed_is_asked_again_and_a_deed_is_not() {
    for (failures, status, asked_then) in
        [(1, StatusCode::OK, 2), (2, StatusCode::OK, 3), (3, StatusCode::BAD_GATEWAY, 3)]
    {
        let (upstream, _, asked) = moody(failures).await;
        let Setup { top, tenant, .. } = Setup::default();
        let gateway =
            Gateway::start(upstream, &format!("retries = 2\n{top}"), &tenant, postern::clock::Clock::system());
        let answer = gateway.get("/api/v2/public/execution", &as_account("a")).await;
        assert_eq!((answer.status, asked.load(Ordering::SeqCst)), (status, asked_then));
    }
    let (upstream, _, asked) = moody(1).await;
    let Setup { top, tenant, clock, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &format!("retries = 2\n{top}"), &tenant, clock);
    let deed = gateway.send(http::Method::POST, "/api/v2/public/execution/1/stop", &as_account("a")).await;
    assert_eq!((deed.status, asked.load(Ordering::SeqCst)), (StatusCode::BAD_GATEWAY, 1));
}

#[tokio::test]
async fn an_upstream_that_keeps_failing_is_left_alone_and_tried_by_one_request() {
    let (upstream, failing, asked) = moody(1000).await;
    let Setup { top, tenant, clock, .. } = Setup::default();
    let top = format!("[upstream.breaker]\nfailures = 3\nopen_for = \"5s\"\n{top}");
    let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
    let ask = async |page: u32| gateway.get(&format!("/api/v2/public/execution?page={page}"), &as_account("a")).await;
    for page in 1..4 {
        assert_eq!(ask(page).await.error_code(), "BAD_GATEWAY");
    }
    for page in 4..8 {
        let open = ask(page).await;
        assert_eq!(shape(&open), (503, "UPSTREAM_CIRCUIT_OPEN".to_owned()));
        assert_eq!(open.header("retry-after"), "5");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    clock.advance(Duration::from_secs(5));
    assert_eq!(ask(8).await.error_code(), "BAD_GATEWAY");
    assert_eq!(ask(9).await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
    failing.store(0, Ordering::SeqCst);
    clock.advance(Duration::from_secs(5));
    for page in 10..14 {
        assert_eq!(ask(page).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn no_more_requests_are_under_way_at_once_than_is_configured_and_those_that_wait_get_their_turn() {
    let (under_way, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let gate = tokio::sync::watch::Sender::new(false);
    let (now, peak, opened) = (Arc::clone(&under_way), Arc::clone(&most), gate.clone());
    let upstream = http_upstream(move |_| {
        let (now, peak, mut opened) = (Arc::clone(&now), Arc::clone(&peak), opened.subscribe());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            opened.wait_for(|open| *open).await.expect("the test holds the gate");
            now.fetch_sub(1, Ordering::SeqCst);
            page_of(&serde_json::json!({ "status": "COMPLETED" }))
        }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Arc::new(Gateway::start(upstream, &format!("max_concurrent = 2\n{top}"), &tenant, clock.clone()));
    let ask = |page: u32| {
        let gateway = Arc::clone(&gateway);
        let target = format!("/api/v2/public/execution?page={page}");
        tokio::spawn(async move { gateway.get(&target, &as_account("acme-1")).await })
    };
    let asking: Vec<_> = (1..=7).map(ask).collect();
    until(|| under_way.load(Ordering::SeqCst) == 2).await;
    gate.send_replace(true);
    for asked in asking {
        assert_eq!(asked.await.expect("nobody has ended it").status, StatusCode::OK);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    // One that gets no turn in time is told when to come again.
    gate.send_replace(false);
    let stuck: Vec<_> = (11..=12).map(ask).collect();
    until(|| under_way.load(Ordering::SeqCst) == 2).await;
    let late = ask(13);
    while !late.is_finished() {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    let late = late.await.expect("nobody has ended it");
    assert_eq!((late.error_code().as_str(), late.header("retry-after")), ("OVERLOADED", "1"));
    gate.send_replace(true);
    for stuck in stuck {
        assert_eq!(stuck.await.expect("nobody has ended it").status, StatusCode::OK);
    }
}
