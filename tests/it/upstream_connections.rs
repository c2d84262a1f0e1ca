//! The life of connections to Refold: opened within a time limit, reused, closed when idle or old, replaced when lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use postern::clock::Clock;
use tokio::sync::watch;

use crate::support::counted::{
    Counters, answer_all, ask_at_once, assert_answered, falls_silent, fragile, gateway, read_head, say, suspicious,
    upstream,
};
use crate::support::{Configuration, EMPTY_PAGE, EXECUTIONS, Gateway, PendingAnswer, as_account, until, within};

#[tokio::test]
async fn an_idle_connection_is_closed_without_traffic() {
    let gate = watch::Sender::new(false);
    let gated = gate.clone();
    let (address, counters) = upstream(move |mut stream, _, counters| {
        let mut gate = gated.subscribe();
        async move {
            while read_head(&mut stream, &counters).await {
                gate.wait_for(|open| *open).await.expect("the test holds it");
                say(&mut stream, EMPTY_PAGE).await;
            }
        }
    })
    .await;
    let gateway = gateway(address, |config| config.set("upstream.pool_idle_timeout", "50ms"));
    for round in 0..2 {
        gate.send_replace(false);
        let asking: Vec<_> =
            (1..=6).map(|page| gateway.spawn_list("acme-1", &format!("page={page}&limit={}", round + 1))).collect();
        until(|| counters.open() == 6).await;
        gate.send_replace(true);
        assert_answered(asking).await;
        until(|| counters.open() == 0).await;
    }
    let stopped = gateway.send(Method::POST, &format!("{EXECUTIONS}/1/stop"), &as_account("acme-1")).await;
    assert_eq!(stopped.status, 200, "{:?}", stopped.body);
    until(|| counters.open() == 0).await;
    assert_eq!(counters.opened(), 13);
}

#[tokio::test]
async fn a_tls_handshake_without_an_answer_is_bounded_by_connect_timeout() {
    let (address, counters) = upstream(|stream, _, _| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let config = Configuration::new().set("upstream.connect_timeout", "50ms");
    let config = config.set("upstream.base_url", format!("https://{address}"));
    let gateway = Gateway::start(&config, &Clock::system());
    for below in ["", "/1", "/1/nodes/n/batches"] {
        let answer = gateway.get(&format!("{EXECUTIONS}{below}"), &as_account("acme-1")).await;
        assert_eq!(answer.error(), (502, "UPSTREAM_UNREACHABLE".to_owned()));
    }
    assert_eq!(counters.opened(), 3);
}

/// The end of a connection that was used before, as the next request arrives.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    Reset,
    Say(&'static str),
}

/// Answers the first request of each of the first `mortal` connections, ends them at the next one, and answers all requests on later ones.
async fn ends_when_reused(mortal: usize, end: End) -> (SocketAddr, Arc<Counters>) {
    upstream(move |mut stream, number, counters| async move {
        if number > mortal {
            return answer_all(stream, number, counters).await;
        }
        if read_head(&mut stream, &counters).await {
            say(&mut stream, EMPTY_PAGE).await;
        }
        if read_head(&mut stream, &counters).await {
            match end {
                End::Close => {}
                End::Reset => {
                    let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    linger.expect("a TCP socket");
                }
                End::Say(text) => say(&mut stream, text).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_read_whose_reused_connection_is_lost_is_sent_on_a_new_one() {
    const TIMEOUT: &str = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    const TIMEOUT_WITH_BODY: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 6\r\n\r\n<html>";
    for end in [End::Reset, End::Close, End::Say(TIMEOUT), End::Say(TIMEOUT_WITH_BODY)] {
        let (address, counters) = ends_when_reused(1, end).await;
        let gateway = gateway(address, fragile);
        for page in 1..4 {
            let answer = gateway.list("acme-1", &format!("page={page}")).await;
            assert_eq!(answer.status, 200, "{end:?}: {:?}", answer.body);
        }
        // The lost request arrived twice.
        assert_eq!((counters.requests(), counters.opened()), (4, 2), "{end:?}");
    }
}

#[tokio::test]
async fn many_lost_connections_cost_each_read_one_more_connection() {
    let gate = watch::Sender::new(false);
    let gated = gate.clone();
    let (address, counters) = upstream(move |mut stream, number, counters| {
        let mut gate = gated.subscribe();
        async move {
            if number > 12 {
                return answer_all(stream, number, counters).await;
            }
            read_head(&mut stream, &counters).await;
            gate.wait_for(|open| *open).await.expect("the test holds it");
            say(&mut stream, EMPTY_PAGE).await;
            read_head(&mut stream, &counters).await;
        }
    })
    .await;
    let gateway = gateway(address, fragile);
    let first = ask_at_once(&gateway, 1..13);
    until(|| counters.requests() == 12).await;
    gate.send_replace(true);
    assert_answered(first).await;
    for page in 21..=24 {
        assert_eq!(gateway.list("acme-1", &format!("page={page}")).await.status, 200, "page {page}");
    }
    assert_eq!((counters.requests(), counters.opened()), (17, 13));
}

#[tokio::test]
async fn an_answer_that_began_or_a_new_connection_is_no_reason_to_send_again() {
    // A part of a head arrived: the server has seen the request.
    let (address, counters) = ends_when_reused(1, End::Say("HTTP/1.1 200 OK\r\ncontent-le")).await;
    let gateway_1 = gateway(address, |config| config);
    let get = async |gateway: &Gateway, page: u32| gateway.list("acme-1", &format!("page={page}")).await;
    assert_eq!(get(&gateway_1, 1).await.status, 200);
    assert_eq!(get(&gateway_1, 2).await.error_code(), "UPSTREAM_UNREACHABLE");
    assert_eq!((counters.requests(), counters.opened()), (2, 1));
    // The first request of a connection is not sent again, whatever ends it.
    let (address, counters) = upstream(|mut stream, number, counters| async move {
        read_head(&mut stream, &counters).await;
        if number == 2 {
            say(&mut stream, "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gateway_2 = gateway(address, |config| config);
    assert_eq!(get(&gateway_2, 1).await.error_code(), "UPSTREAM_UNREACHABLE");
    assert_eq!(get(&gateway_2, 2).await.status, 408);
    assert_eq!((counters.requests(), counters.opened()), (2, 2));
}

#[tokio::test]
async fn an_action_is_never_sent_twice() {
    for end in [End::Reset, End::Close] {
        let (address, counters) = ends_when_reused(1, end).await;
        let gateway = gateway(address, |config| config);
        assert_eq!(gateway.list("acme-1", "").await.status, 200);
        let action = gateway.send(Method::POST, &format!("{EXECUTIONS}/1/rerun"), &as_account("acme-1")).await;
        assert_eq!(action.error_code(), "UPSTREAM_UNREACHABLE", "{end:?}");
        assert_eq!((counters.requests(), counters.opened()), (2, 1), "{end:?}");
    }
}

#[tokio::test]
async fn a_read_whose_body_breaks_off_is_retried() {
    const CUT_LENGTH: &str = "HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{\"docs\":[]";
    const CUT_CHUNK: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1a\r\n{\"docs\":[]";
    const CUT_SIZE: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"docs\":[],\r\n";
    const BAD_CHUNK: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"docs\":[],\r\nxyz\r\n";
    for (broken, times, retries, status, requests) in [
        (CUT_LENGTH, 1, 2, 200, 2),
        (CUT_CHUNK, 2, 2, 200, 3),
        (CUT_SIZE, 1, 1, 200, 2),
        (CUT_LENGTH, 3, 2, 502, 3),
        (CUT_LENGTH, 1, 0, 502, 1),
        (BAD_CHUNK, 1, 2, 502, 1),
    ] {
        let (address, counters) = upstream(move |mut stream, number, counters| async move {
            if number > times {
                return answer_all(stream, number, counters).await;
            }
            read_head(&mut stream, &counters).await;
            say(&mut stream, broken).await;
        })
        .await;
        let gateway = gateway(address, |config| config.retries(retries));
        let answer = gateway.list("acme-1", "").await;
        assert_eq!((answer.status.as_u16(), counters.requests()), (status, requests), "{broken:?}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_connection_is_replaced_at_its_age_with_traffic_and_without() {
    let (address, counters) = upstream(answer_all).await;
    let gateway = gateway(address, |config| config.set("upstream.max_connection_age", "50ms"));
    let mut page = 0;
    let traffic = async {
        while counters.opened() < 3 {
            page += 1;
            assert_eq!(gateway.list("acme-1", &format!("page={page}")).await.status, 200);
        }
    };
    within(traffic).await;
    assert!(page > 3, "a connection is reused before its age");
    until(|| counters.open() == 0).await;
}

#[tokio::test]
async fn a_connection_is_not_used_again_after_a_gateways_failure() {
    for (status, connections) in [(502, 3), (503, 3), (504, 3), (500, 1), (404, 1), (429, 1)] {
        let (address, counters) = upstream(move |mut stream, _, counters| async move {
            while read_head(&mut stream, &counters).await {
                say(&mut stream, &format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}")).await;
            }
        })
        .await;
        let gateway = gateway(address, |config| config);
        for account in ["a", "b", "c"] {
            let answer = gateway.list(account, "").await;
            assert!(answer.status.as_u16() >= 400, "{status}");
            if status == 429 {
                break;
            }
        }
        assert_eq!(counters.opened(), connections, "{status}");
    }
}

/// A route of the allow-list.
const WORKFLOWS: &str = "/api/v1/workflow";

fn with_pass_through(config: Configuration) -> Configuration {
    config.toml(&format!("[[pass_through]]\npath = \"{WORKFLOWS}\"\nmethods = [\"GET\"]\nscope = \"org\""))
}

#[tokio::test]
async fn reads_on_dead_connections_move_to_the_one_that_answers() {
    for (dead, path) in
        [(1, EXECUTIONS), (2, EXECUTIONS), (6, EXECUTIONS), (1, WORKFLOWS), (2, WORKFLOWS), (6, WORKFLOWS)]
    {
        let (address, counters, gate) = falls_silent(dead, move |mut stream, number, counters| async move {
            if number > dead {
                return answer_all(stream, number, counters).await;
            }
            // Takes requests and never answers, like a route that drops packets.
            while read_head(&mut stream, &counters).await {}
        })
        .await;
        let gateway = gateway(address, |config| with_pass_through(suspicious(config)));
        let first = ask_at_once(&gateway, 1..dead + 1);
        until(|| counters.requests() == dead).await;
        gate.send_replace(true);
        assert_answered(first).await;
        let ask = |page: usize| gateway.spawn_get(&format!("{path}?page={page}"), &as_account("acme-1"));
        assert_answered((101..101 + dead).map(ask).collect()).await;
        // The connection of a forwarded response may be closed too.
        until(|| counters.open() <= counters.opened() - dead).await;
        // Each read was sent once on a dead connection and once on a new one, that of the probe included.
        assert_eq!(counters.requests(), 3 * dead, "{dead} dead connections, {path}");
    }
}

/// Two reads, one of which has the beginning of its answer, and the other is on a dead connection.
async fn assert_waited_for(path: &str) {
    let rest = watch::Sender::new(false);
    let sent = rest.clone();
    let (address, counters, gate) = falls_silent(2, move |mut stream, number, counters| {
        let mut sent = sent.subscribe();
        async move {
            if number > 2 {
                return answer_all(stream, number, counters).await;
            }
            while read_head(&mut stream, &counters).await {
                if number == 1 {
                    let (begin, end) = EMPTY_PAGE.split_at(20);
                    say(&mut stream, begin).await;
                    sent.wait_for(|sent| *sent).await.expect("the test holds it");
                    say(&mut stream, end).await;
                }
            }
        }
    })
    .await;
    // Long enough for the answer to begin in time on a busy machine.
    let patient = |config: Configuration| fragile(config).set("upstream.suspect_after", "3s");
    let gateway = gateway(address, |config| with_pass_through(patient(config)));
    let first = ask_at_once(&gateway, 1..3);
    until(|| counters.requests() == 2).await;
    gate.send_replace(true);
    assert_answered(first).await;
    let ask = |page: usize| gateway.spawn_get(&format!("{path}?page={page}"), &as_account("acme-1"));
    let reads: Vec<_> = (101..103).map(ask).collect();
    // The read on the silent connection is answered on a new one, and the silent one is closed.
    until(|| reads.iter().any(PendingAnswer::is_finished) && counters.open() <= 2).await;
    assert_eq!(counters.requests(), 5, "{path}");
    rest.send_replace(true);
    assert_answered(reads).await;
    assert_eq!(counters.requests(), 5, "{path}");
}

#[tokio::test]
async fn an_answer_that_has_begun_is_waited_for() {
    tokio::join!(assert_waited_for(EXECUTIONS), assert_waited_for(WORKFLOWS));
}

#[tokio::test]
async fn a_slow_upstream_gets_one_probe_and_all_keep_waiting() {
    for waiting in [1, 2, 6] {
        let answer = watch::Sender::new(false);
        let answered = answer.clone();
        let (address, counters, gate) = falls_silent(waiting, move |mut stream, number, counters| {
            let mut answered = answered.subscribe();
            async move {
                while read_head(&mut stream, &counters).await {
                    if number > waiting {
                        // The probe came last, so it would be answered last.
                        std::future::pending::<()>().await;
                    }
                    answered.wait_for(|open| *open).await.expect("the test holds it");
                    say(&mut stream, EMPTY_PAGE).await;
                }
            }
        })
        .await;
        let gateway = gateway(address, |config| config.set("upstream.suspect_after", "50ms"));
        let first = ask_at_once(&gateway, 1..waiting + 1);
        until(|| counters.requests() == waiting).await;
        gate.send_replace(true);
        assert_answered(first).await;
        let slow = ask_at_once(&gateway, 101..101 + waiting);
        until(|| counters.requests() == 2 * waiting + 1).await;
        answer.send_replace(true);
        assert_answered(slow).await;
        assert_eq!(counters.requests(), 2 * waiting + 1, "{waiting} waiting");
    }
}

#[tokio::test]
async fn a_forwarded_body_of_known_length_keeps_its_connection() {
    for body in ["", "x", &"x".repeat(100_000)] {
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (address, counters) = upstream(move |mut stream, _, counters| {
            let response = response.clone();
            async move {
                while read_head(&mut stream, &counters).await {
                    say(&mut stream, &response).await;
                }
            }
        })
        .await;
        let gateway = gateway(address, |config| {
            config.toml("[[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/workflow\"")
        });
        for _ in 0..50 {
            let answer = gateway.get("/api/v2/public/workflow", &as_account("acme-1")).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, body.len()));
        }
        assert_eq!(counters.opened(), 1, "{} bytes", body.len());
    }
}
