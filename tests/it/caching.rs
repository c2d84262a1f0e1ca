//! How long answers hold, and what the headers say about it.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{EXECUTIONS, Gateway, Setup, World, as_account, http_upstream, page_of};

fn status(answer: &crate::harness::Answer) -> (&str, &str, &str) {
    (answer.header("cache-status"), answer.header("age"), answer.header("cache-control"))
}

#[tokio::test]
async fn a_settled_page_is_recent_and_fresh_for_five_seconds() {
    let world = World::start().await;
    let ask = async || world.list("acme-2", "").await;
    assert_eq!(status(&ask().await), ("postern; fwd=uri-miss; stored", "0", "private, max-age=5"));
    assert_eq!(status(&ask().await), ("postern; hit; ttl=5", "0", "private, max-age=5"));
    world.clock.advance(Duration::from_millis(4999));
    assert_eq!(status(&ask().await), ("postern; hit; ttl=1", "4", "private, max-age=5"));
    world.clock.advance(Duration::from_millis(1));
    assert_eq!(status(&ask().await), ("postern; fwd=stale; stored", "0", "private, max-age=5"));
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_page_with_running_executions_is_live_and_a_closed_range_holds_for_minutes() {
    let world = World::start().await;
    world.clock.advance(Duration::from_secs(45));
    let live = world.list("acme-1", "status=RUNNING").await;
    assert_eq!(live.header("cache-control"), "private, max-age=2");
    let closed = world.list("acme-1", "end_date=2026-03-18").await;
    assert_eq!(closed.header("cache-control"), "private, max-age=600");
    // Over in UTC, but not everywhere for long enough.
    let yesterday = world.list("acme-1", "end_date=2026-03-19").await;
    assert_eq!(yesterday.header("cache-control"), "private, max-age=5");
}

#[tokio::test]
async fn a_page_that_filters_by_status_is_never_closed() {
    // An execution of a day that is long over still runs, and then ends.
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = std::sync::Arc::clone(&ended);
    let upstream = http_upstream(move |request| {
        let has_ended = state.load(std::sync::atomic::Ordering::SeqCst);
        let query = request.uri().query().unwrap_or_default().to_owned();
        let filters = ["status=", "state="].iter().any(|name| query.contains(name));
        let response = if has_ended || !filters {
            page_of(&json!({ "status": "ERRORED" }))
        } else {
            http::Response::new(http_body_util::Full::new(r#"{"docs":[],"totalDocs":0}"#.into()))
        };
        async move { response }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let top = format!("{top}[query]\nunknown_parameters = \"forward\"\n");
    let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
    let filtered = [
        "status=ERRORED&end_date=2026-03-14",
        "status=timed-out&start_date=2026-03-01&end_date=2026-03-02&execution_type=SYNC",
        "limit=100&end_date=2026-03-14T12:00:00Z&status=COMPLETED",
        // Only the upstream knows what this one filters by.
        "state=failed&end_date=2026-03-14",
    ];
    let ask = async |query: &str| gateway.get(&format!("{EXECUTIONS}?{query}"), &as_account("a")).await;
    for query in filtered {
        let answer = ask(query).await;
        assert_eq!(
            (answer.json()["totalDocs"].as_u64(), status(&answer).2),
            (Some(0), "private, max-age=5"),
            "{query}"
        );
    }
    ended.store(true, std::sync::atomic::Ordering::SeqCst);
    clock.advance(Duration::from_secs(5));
    for query in filtered {
        assert_eq!(ask(query).await.json()["totalDocs"], 1, "{query}");
    }
    for query in ["end_date=2026-03-14", "status=All&execution_source=Event&end_date=2026-03-14T12:00:00Z"] {
        assert_eq!(status(&ask(query).await).2, "private, max-age=600", "{query}");
    }
}

#[tokio::test]
async fn a_document_is_as_fresh_as_its_own_status() {
    let world = World::start().await;
    world.clock.advance(Duration::from_secs(45));
    for (query, lifetime) in
        [("status=RUNNING&limit=1", "private, max-age=2"), ("status=ERRORED&limit=1", "private, max-age=600")]
    {
        let id = world.list("acme-1", query).await.json()["docs"][0]["_id"].as_str().expect("one").to_owned();
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
    // Also when the page had to be fetched for it.
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(ask(&etag).await.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_refetch_is_conditional_and_a_304_renews_the_entry() {
    let upstream = http_upstream(|request| async move {
        let mut response = page_of(&json!({ "status": "COMPLETED" }));
        if request.headers().get("if-none-match").is_some_and(|tag| tag == "W/\"up\"") {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = http_body_util::Full::default();
        }
        response.headers_mut().insert("etag", "W/\"up\"".parse().expect("a value"));
        response
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
    let ask = async || gateway.get(EXECUTIONS, &as_account("a")).await;
    let first = ask().await;
    clock.advance(Duration::from_secs(6));
    let second = ask().await;
    assert_eq!(status(&second), ("postern; fwd=stale; stored", "0", "private, max-age=5"));
    assert_eq!((second.status, &second.body), (StatusCode::OK, &first.body));
    assert_eq!(second.header("etag"), first.header("etag"));
    assert!(ask().await.header("cache-status").starts_with("postern; hit"));
}

#[tokio::test]
async fn an_upstream_no_store_is_honoured_unless_the_configuration_says_otherwise() {
    for (honour, second) in [(true, "postern; fwd=uri-miss"), (false, "postern; hit; ttl=5")] {
        let upstream = http_upstream(|_| async {
            let mut response = page_of(&json!({ "status": "COMPLETED" }));
            response.headers_mut().insert("cache-control", "private, No-Store".parse().expect("a value"));
            response
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        let top = format!("{top}[cache]\nhonour_no_store = {honour}\n");
        let gateway = Gateway::start(upstream, &top, &tenant, clock);
        let ask = async || gateway.get(EXECUTIONS, &as_account("a")).await;
        ask().await;
        let answer = ask().await;
        assert_eq!(answer.header("cache-status"), second);
        assert_eq!(answer.header("cache-control") == "no-store", honour);
    }
}

#[tokio::test]
async fn errors_are_never_cached() {
    // What is held back after a 429 is refused at once: nobody would move the clock for those who wait.
    let setup = Setup::default();
    let top =
        setup.top.replace("burst = 100000\n[limits.client]", "burst = 100000\nmax_wait = \"0s\"\n[limits.client]");
    let world = Setup { top, ..setup }.start().await;
    for code in [401, 403, 404, 429, 500, 503] {
        world.refold.set_fault(Some(format!("status={code}").parse().expect("a fault")));
        for _ in 0..2 {
            let before = world.refold.requests();
            let answer = world.list("acme-2", "").await;
            assert_eq!(answer.header("cache-control"), "no-store");
            assert!(world.refold.requests() == before + 1 || code == 429, "{code}");
        }
        world.clock.advance(Duration::from_secs(2));
    }
    world.refold.set_fault(None);
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn missing_pagination_is_completed_and_docs_bytes_stay() {
    let upstream = http_upstream(|_| async {
        let body = "{\"docs\":[ {\"_id\" : \"1\",\"n\":1.0e3} ],\"totalDocs\":31}";
        http::Response::new(http_body_util::Full::new(body.into()))
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &top, &tenant, clock);
    let answer = gateway.get(&format!("{EXECUTIONS}?page=4&limit=10"), &as_account("a")).await;
    assert_eq!(
        answer.body,
        "{\"docs\":[ {\"_id\" : \"1\",\"n\":1.0e3} ],\"totalDocs\":31,\"limit\":10,\"totalPages\":4,\"page\":4,\"pagingCounter\":31,\"hasPrevPage\":true,\"hasNextPage\":false,\"prevPage\":3,\"nextPage\":null}"
    );
}

#[tokio::test]
async fn a_capacity_of_zero_turns_the_cache_off_and_nothing_else() {
    let Setup { top, .. } = Setup::default();
    let world = Setup { top: format!("{top}[cache]\ncapacity = 0\n"), ..Setup::default() }.start().await;
    for asked in 1..4 {
        assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK);
        assert_eq!(world.refold.requests(), asked);
    }
}

#[tokio::test]
async fn a_head_request_is_answered_like_get_without_the_body() {
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
async fn nothing_of_the_upstreams_headers_passes() {
    let world = World::start().await;
    let answer = world.list("acme-2", "").await;
    let mut names: Vec<&str> = answer.headers.keys().map(http::HeaderName::as_str).collect();
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
async fn a_stop_whose_caller_has_left_drops_the_pages_all_the_same() {
    use tokio::io::AsyncWriteExt;
    let (begun, mut stopping) = tokio::sync::mpsc::unbounded_channel();
    let (finish, finished) = tokio::sync::watch::channel(false);
    let stopped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = std::sync::Arc::clone(&stopped);
    let upstream = http_upstream(move |request| {
        let (begun, mut finished, state) = (begun.clone(), finished.clone(), std::sync::Arc::clone(&state));
        async move {
            if request.method() == Method::POST {
                begun.send(()).expect("the test listens");
                finished.wait_for(|done| *done).await.expect("the test lives");
                state.store(true, std::sync::atomic::Ordering::SeqCst);
                return http::Response::new(http_body_util::Full::new("{}".into()));
            }
            page_of(&json!({ "status": "COMPLETED", "stopped": state.load(std::sync::atomic::Ordering::SeqCst) }))
        }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &top, &tenant, clock);
    let ask = async || gateway.get(EXECUTIONS, &as_account("a")).await.json()["docs"][0]["stopped"] == true;
    assert!(!ask().await);
    let mut leaves = tokio::net::TcpStream::connect(gateway.address).await.expect("it listens");
    let key = crate::harness::KEY;
    let request =
        format!("POST {EXECUTIONS}/1/stop HTTP/1.1\r\nHost: a\r\nx-api-key: {key}\r\nlinked_account_id: a\r\n\r\n");
    leaves.write_all(request.as_bytes()).await.expect("it reads");
    stopping.recv().await.expect("the stop has begun");
    drop(leaves);
    assert!(!ask().await, "nothing has happened yet");
    finish.send(true).expect("the upstream waits");
    crate::harness::until(|| stopped.load(std::sync::atomic::Ordering::SeqCst)).await;
    let mut seen = false;
    for _ in 0..2000 {
        seen = ask().await;
        if seen {
            break;
        }
    }
    assert!(seen, "the page from before the stop is gone");
}

#[tokio::test]
async fn a_page_comes_in_the_coding_that_its_reader_likes_with_a_tag_of_its_own() {
    use std::io::Read;
    let world = World::start().await;
    let ask = async |coding: &str, more: &[(&str, &str)]| {
        let headers = [as_account("globex").as_slice(), &[("accept-encoding", coding)], more].concat();
        world.gateway.get(EXECUTIONS, &headers).await
    };
    let plain = ask("identity", &[]).await;
    assert_eq!(plain.header("content-encoding"), "");
    let mut tags = vec![plain.header("etag").to_owned()];
    for (wanted, coding) in [("zstd", "zstd"), ("br", "br"), ("gzip;q=0.9, deflate", "gzip")] {
        // Made behind the back of whoever is the first to want it.
        let mut answer = ask(wanted, &[]).await;
        for _ in 0..2000 {
            if !answer.header("content-encoding").is_empty() {
                break;
            }
            assert_eq!(answer.body, plain.body);
            answer = ask(wanted, &[]).await;
        }
        assert_eq!(answer.header("content-encoding"), coding);
        assert!(answer.header("vary").contains("accept-encoding"));
        let mut expanded = Vec::new();
        match coding {
            "zstd" => zstd::Decoder::new(&answer.body[..]).expect("zstd").read_to_end(&mut expanded),
            "br" => brotli::Decompressor::new(&answer.body[..], 4096).read_to_end(&mut expanded),
            _ => flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut expanded),
        }
        .expect("it expands");
        assert_eq!(expanded, plain.body);
        let tag = answer.header("etag").to_owned();
        assert!(!tags.contains(&tag), "{tag}");
        assert_eq!(ask(wanted, &[("if-none-match", &tag)]).await.status, StatusCode::NOT_MODIFIED);
        tags.push(tag);
    }
    assert_eq!(world.refold.requests(), 1);
    // Where a page has to be fetched, it comes so at once.
    let headers = [as_account("globex").as_slice(), &[("accept-encoding", "br")]].concat();
    let other = world.gateway.get(&format!("{EXECUTIONS}?page=2"), &headers).await;
    assert_eq!(other.header("content-encoding"), "br");
    assert_eq!(world.refold.requests(), 2);
    // A small one is left alone.
    let headers = [as_account("empty").as_slice(), &[("accept-encoding", "gzip")]].concat();
    let small = world.gateway.get(EXECUTIONS, &headers).await;
    assert_eq!(small.header("content-encoding"), "");
}

#[tokio::test]
async fn an_upstream_page_may_come_compressed_within_the_bound() {
    let bomb = zstd::bulk::compress(&vec![b' '; 64 << 20], 3).expect("it compresses");
    let page = zstd::bulk::compress(b"{\"docs\":[],\"totalDocs\":0}", 3).expect("it compresses");
    let upstream = http_upstream(move |request| {
        let large = request.uri().query().is_some_and(|query| query.contains("page=2"));
        let body = if large { bomb.clone() } else { page.clone() };
        async move {
            let mut response = http::Response::new(http_body_util::Full::new(body.into()));
            response.headers_mut().insert("content-encoding", "zstd".parse().expect("a value"));
            response
        }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &top, &tenant, clock);
    let answer = gateway.get(EXECUTIONS, &as_account("a")).await;
    assert_eq!((answer.status, answer.json()["totalDocs"].as_u64()), (StatusCode::OK, Some(0)));
    let bomb = gateway.get(&format!("{EXECUTIONS}?page=2"), &as_account("a")).await;
    assert_eq!(bomb.error_code(), "UPSTREAM_RESPONSE_TOO_LARGE");
}
