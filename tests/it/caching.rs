//! Freshness lifetimes, validators and content codings, as the response headers show them.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::support::connection::{Connection, with_key};
use crate::support::{
    Answer, EXECUTIONS, KEY, ScriptedRefold, World, as_account, eventually, http_upstream, page_of, until,
};

fn freshness(answer: &Answer) -> (&str, &str, &str) {
    (answer.cache_status(), answer.header("age"), answer.header("cache-control"))
}

#[tokio::test]
async fn a_settled_page_is_recent_and_fresh_for_five_seconds() {
    let world = World::start().await;
    let ask = async || world.list("acme-2", "").await;
    assert_eq!(freshness(&ask().await), ("postern; fwd=uri-miss; stored", "0", "private, max-age=5"));
    assert_eq!(freshness(&ask().await), ("postern; hit; ttl=5", "0", "private, max-age=5"));
    world.clock.advance(Duration::from_millis(4999));
    assert_eq!(freshness(&ask().await), ("postern; hit; ttl=1", "4", "private, max-age=5"));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(freshness(&ask().await), ("postern; fwd=stale; stored", "0", "private, max-age=5"));
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn running_executions_are_fresh_for_seconds_and_closed_ranges_for_minutes() {
    let world = World::start().await;
    world.clock.advance(Duration::from_secs(45));
    let live = world.list("acme-1", "status=RUNNING").await;
    assert_eq!(live.header("cache-control"), "private, max-age=2");
    let closed = world.list("acme-1", "end_date=2026-03-18").await;
    assert_eq!(closed.header("cache-control"), "private, max-age=600");
    // The range has ended in UTC, but not long enough ago for every time zone.
    let yesterday = world.list("acme-1", "end_date=2026-03-19").await;
    assert_eq!(yesterday.header("cache-control"), "private, max-age=5");
}

#[tokio::test]
async fn a_page_that_filters_by_status_is_never_closed() {
    // An execution of a day that is long over still runs, and then ends.
    let ended = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&ended);
    let upstream = http_upstream(move |request| {
        let query = request.uri().query().unwrap_or_default();
        let filters = ["status=", "state="].iter().any(|name| query.contains(name));
        let response = if state.load(Ordering::SeqCst) || !filters {
            page_of(&json!({ "status": "ERRORED" }))
        } else {
            Response::new(Full::from(r#"{"docs":[],"totalDocs":0}"#))
        };
        async move { response }
    })
    .await;
    let builder = World::builder().refold(upstream);
    let world = builder.config(|config| config.set("query.unknown_parameters", "forward")).start().await;
    let ask = async |query| world.list("a", query).await;
    let filtered = [
        "status=ERRORED&end_date=2026-03-14",
        "status=timed-out&start_date=2026-03-01&end_date=2026-03-02&execution_type=SYNC",
        "limit=100&end_date=2026-03-14T12:00:00Z&status=COMPLETED",
        // Only the upstream knows what this one filters by.
        "state=failed&end_date=2026-03-14",
    ];
    for query in filtered {
        let answer = ask(query).await;
        assert_eq!((answer.total(), answer.header("cache-control")), (0, "private, max-age=5"), "{query}");
    }
    ended.store(true, Ordering::SeqCst);
    world.clock.advance(Duration::from_secs(5));
    for query in filtered {
        assert_eq!(ask(query).await.total(), 1, "{query}");
    }
    for query in ["end_date=2026-03-14", "status=All&execution_source=Event&end_date=2026-03-14T12:00:00Z"] {
        assert_eq!(ask(query).await.header("cache-control"), "private, max-age=600", "{query}");
    }
}

#[tokio::test]
async fn a_document_is_as_fresh_as_its_own_status() {
    let world = World::start().await;
    world.clock.advance(Duration::from_secs(45));
    for (query, lifetime) in
        [("status=RUNNING&limit=1", "private, max-age=2"), ("status=ERRORED&limit=1", "private, max-age=600")]
    {
        let id = world.list("acme-1", query).await.first_id();
        let document = world.gateway.get(&format!("{EXECUTIONS}/{id}"), &as_account("acme-1")).await;
        assert_eq!(document.header("cache-control"), lifetime);
    }
}

#[tokio::test]
async fn a_client_that_has_the_page_gets_304() {
    let world = World::start().await;
    let first = world.list("acme-2", "").await;
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() > 10, "a strong tag: {etag}");
    let ask = async |tags: &str| {
        let headers = [as_account("acme-2").as_slice(), &[("if-none-match", tags)]].concat();
        world.gateway.get(EXECUTIONS, &headers).await
    };
    for tags in [etag.clone(), format!("W/{etag}"), "*".to_owned(), format!("\"x\", {etag}")] {
        let answer = ask(&tags).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{tags}");
        assert!(answer.body.is_empty());
        for header in ["etag", "cache-control", "vary", "age", "cache-status", "x-request-id", "ratelimit"] {
            assert!(!answer.header(header).is_empty(), "{header}");
        }
    }
    assert_eq!(ask("\"other\"").await.status, StatusCode::OK);
    // A fetched page is compared with the client's tag as well.
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(ask(&etag).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_refetch_is_conditional_and_a_304_renews_the_entry() {
    let upstream = http_upstream(|request| async move {
        let mut response = page_of(&json!({ "status": "COMPLETED" }));
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "W/\"up\"") {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Full::default();
        }
        response.headers_mut().insert("etag", "W/\"up\"".parse().expect("a value"));
        response
    })
    .await;
    let world = World::builder().refold(upstream).start().await;
    let ask = async || world.list("a", "").await;
    let first = ask().await;
    world.clock.advance(Duration::from_secs(6));
    let second = ask().await;
    assert_eq!(freshness(&second), ("postern; fwd=stale; stored", "0", "private, max-age=5"));
    assert_eq!((second.status, &second.body), (StatusCode::OK, &first.body));
    assert_eq!(second.header("etag"), first.header("etag"));
    assert!(ask().await.is_hit());
}

#[tokio::test]
async fn an_upstream_no_store_is_honoured_unless_configured_otherwise() {
    for (honour, second) in [(true, "postern; fwd=uri-miss"), (false, "postern; hit; ttl=5")] {
        let refold = ScriptedRefold::start().await;
        refold.send_header("cache-control", "private, No-Store");
        let world =
            World::builder().refold(refold).config(|config| config.set("cache.honour_no_store", honour)).start().await;
        world.list("a", "").await;
        let answer = world.list("a", "").await;
        assert_eq!(answer.cache_status(), second);
        assert_eq!(answer.header("cache-control") == "no-store", honour);
    }
}

#[tokio::test]
async fn errors_are_never_cached() {
    // After a 429 all fetches pause, and with no time to wait they are refused: the second request is not forwarded.
    let world = World::builder().config(|config| config.max_wait("0s")).start().await;
    for (code, forwarded) in [(401, [1, 1]), (403, [1, 1]), (404, [1, 1]), (429, [1, 0]), (500, [1, 1]), (503, [1, 1])]
    {
        world.refold.set_fault(Some(format!("status={code}").parse().expect("a fault")));
        for forwarded in forwarded {
            let before = world.refold.requests();
            let answer = world.list("acme-2", "").await;
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(world.refold.requests() - before, forwarded, "{code}");
        }
        world.clock.advance(Duration::from_secs(2));
    }
    world.refold.set_fault(None);
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn missing_pagination_is_completed_and_documents_keep_their_bytes() {
    let upstream = http_upstream(|_| async {
        let body = "{\"docs\":[ {\"_id\" : \"1\",\"n\":1.0e3} ],\"totalDocs\":31}";
        Response::new(Full::new(body.into()))
    })
    .await;
    let gateway = World::builder().refold(upstream).start().await.gateway;
    let answer = gateway.get(&format!("{EXECUTIONS}?page=4&limit=10"), &as_account("a")).await;
    assert_eq!(
        answer.body,
        "{\"docs\":[ {\"_id\" : \"1\",\"n\":1.0e3} ],\"totalDocs\":31,\"limit\":10,\"totalPages\":4,\"page\":4,\"pagingCounter\":31,\"hasPrevPage\":true,\"hasNextPage\":false,\"prevPage\":3,\"nextPage\":null}"
    );
}

#[tokio::test]
async fn a_capacity_of_zero_turns_the_cache_off() {
    let world = World::builder().config(|config| config.set("cache.capacity", 0)).start().await;
    for requests in 1..4 {
        assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK);
        assert_eq!(world.refold.requests(), requests);
    }
}

#[tokio::test]
async fn a_head_request_gets_the_headers_of_a_get() {
    let world = World::start().await;
    let got = world.list("acme-2", "").await;
    let head = world.gateway.send(Method::HEAD, EXECUTIONS, &as_account("acme-2")).await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), got.body.len().to_string());
    assert_eq!(head.header("etag"), got.header("etag"));
    assert_eq!(world.refold.requests(), 1);
}

#[tokio::test]
async fn no_upstream_header_passes() {
    let world = World::start().await;
    let answer = world.list("acme-2", "").await;
    let mut names: Vec<&str> = answer.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "age",
        "cache-control",
        "cache-status",
        "content-length",
        "content-type",
        "date",
        "etag",
        "ratelimit",
        "ratelimit-policy",
        "vary",
        "x-request-id",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_stop_drops_the_pages_though_its_caller_has_left() {
    let (begun, mut stopping) = mpsc::unbounded_channel();
    let gate = watch::Sender::new(false);
    let stopped = Arc::new(AtomicBool::new(false));
    let (state, opened) = (Arc::clone(&stopped), gate.clone());
    let upstream = http_upstream(move |request| {
        let (begun, mut opened, state) = (begun.clone(), opened.subscribe(), Arc::clone(&state));
        async move {
            if request.method() == Method::POST {
                begun.send(()).expect("the test listens");
                opened.wait_for(|open| *open).await.expect("the test holds the gate");
                state.store(true, Ordering::SeqCst);
                return Response::new(Full::new("{}".into()));
            }
            page_of(&json!({ "status": "COMPLETED", "stopped": state.load(Ordering::SeqCst) }))
        }
    })
    .await;
    let gateway = World::builder().refold(upstream).start().await.gateway;
    let is_stopped = async || gateway.list("a", "").await.first_document()["stopped"] == true;
    assert!(!is_stopped().await);
    let mut leaves = Connection::open(gateway.address).await;
    leaves.write(format!("POST {EXECUTIONS}/1/stop HTTP/1.1\r\nHost: a\r\n{}\r\n", with_key(KEY, "a"))).await;
    stopping.recv().await.expect("the stop has begun");
    drop(leaves);
    assert!(!is_stopped().await, "the upstream has not stopped it yet");
    gate.send_replace(true);
    until(|| stopped.load(Ordering::SeqCst)).await;
    eventually(is_stopped).await;
}

#[tokio::test]
async fn a_page_has_the_best_accepted_coding_and_its_own_tag() {
    let world = World::start().await;
    let ask = async |coding: &str, more: &[(&str, &str)]| {
        let headers = [as_account("globex").as_slice(), &[("accept-encoding", coding)], more].concat();
        world.gateway.get(EXECUTIONS, &headers).await
    };
    let plain = ask("identity", &[]).await;
    assert_eq!(plain.header("content-encoding"), "");
    let mut tags = vec![plain.header("etag").to_owned()];
    for (wanted, coding) in [("zstd", "zstd"), ("br", "br"), ("gzip;q=0.9, deflate", "gzip")] {
        // A cached page is encoded in the background; until then its readers get it as it is.
        let mut answer = ask(wanted, &[]).await;
        eventually(async || {
            answer = ask(wanted, &[]).await;
            let encoded = !answer.header("content-encoding").is_empty();
            assert!(encoded || answer.body == plain.body);
            encoded
        })
        .await;
        assert_eq!(answer.header("content-encoding"), coding);
        assert!(answer.header("vary").contains("accept-encoding"));
        assert_eq!(decoded(coding, &answer.body), plain.body);
        let tag = answer.header("etag").to_owned();
        assert!(!tags.contains(&tag), "{tag}");
        assert_eq!(ask(wanted, &[("if-none-match", &tag)]).await.status, StatusCode::NOT_MODIFIED);
        tags.push(tag);
    }
    assert_eq!(world.refold.requests(), 1);
}

fn decoded(coding: &str, body: &Bytes) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        "zstd" => zstd::Decoder::new(&body[..]).expect("zstd").read_to_end(&mut decoded),
        "br" => brotli::Decompressor::new(&body[..], 4096).read_to_end(&mut decoded),
        _ => flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut decoded),
    }
    .expect("the body is in its coding");
    decoded
}

#[tokio::test]
async fn a_fetched_page_is_encoded_at_once_unless_it_is_small() {
    let world = World::start().await;
    let ask = async |account: &str, coding: &str| {
        let headers = [as_account(account).as_slice(), &[("accept-encoding", coding)]].concat();
        world.gateway.get(&format!("{EXECUTIONS}?page=2"), &headers).await
    };
    assert_eq!(ask("globex", "br").await.header("content-encoding"), "br");
    assert_eq!(world.refold.requests(), 1);
    assert_eq!(ask("empty", "gzip").await.header("content-encoding"), "");
}

#[tokio::test]
async fn an_upstream_page_may_come_compressed_within_the_bound() {
    let bomb = zstd::bulk::compress(&vec![b' '; 64 << 20], 3).expect("spaces compress");
    let page = zstd::bulk::compress(b"{\"docs\":[],\"totalDocs\":0}", 3).expect("a page compresses");
    let upstream = http_upstream(move |request| {
        let large = request.uri().query().is_some_and(|query| query.contains("page=2"));
        let body = if large { bomb.clone() } else { page.clone() };
        async move {
            let mut response = Response::new(Full::new(body.into()));
            response.headers_mut().insert("content-encoding", "zstd".parse().expect("a value"));
            response
        }
    })
    .await;
    let gateway = World::builder().refold(upstream).start().await.gateway;
    let answer = gateway.list("a", "").await;
    assert_eq!((answer.status, answer.total()), (StatusCode::OK, 0));
    assert_eq!(gateway.list("a", "page=2").await.error_code(), "UPSTREAM_RESPONSE_TOO_LARGE");
}
