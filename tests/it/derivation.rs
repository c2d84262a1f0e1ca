//! Answers that follow from others in the cache with certainty cost no request.

use std::time::Duration;

use http::Method;

use crate::harness::{EXECUTIONS, Setup, World, as_account};

/// Seven executions, and a new one every minute.
const SMALL: &str = "umbrella@example.com";

const DERIVED: &str = "postern; hit; ttl=5; detail=derived";

#[tokio::test]
async fn a_filter_of_a_list_that_is_known_whole_is_derived_and_kept() {
    let world = World::start().await;
    let list = world.list(SMALL, "").await.json();
    for query in ["status=COMPLETED", "execution_source=Event", "limit=3&page=2", "limit=5&execution_type=ASYNC"] {
        let answer = world.list(SMALL, query).await;
        assert_eq!(answer.header("cache-status"), DERIVED, "{query}");
        assert_eq!(world.list(SMALL, query).await.header("cache-status"), "postern; hit; ttl=5", "{query}");
        for document in answer.json()["docs"].as_array().expect("an array") {
            assert!(list["docs"].as_array().expect("an array").contains(document));
        }
    }
    assert_eq!(world.refold.requests(), 1);
    // What does not follow is asked.
    assert_eq!(world.list(SMALL, "workflow_name=x").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "status=ERRORED").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "limit=50").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "limit=10&page=5").await.header("cache-status"), DERIVED);
}

#[tokio::test]
async fn what_an_answer_follows_from_is_renewed_in_its_place_for_both() {
    let world = World::start().await;
    world.list(SMALL, "").await;
    world.list(SMALL, "status=ERRORED").await;
    world.clock.advance(Duration::from_secs(6));
    let renewed = world.list(SMALL, "status=ERRORED").await;
    assert_eq!((renewed.header("cache-status"), renewed.header("age")), ("postern; fwd=stale; stored", "0"));
    assert_eq!(world.list(SMALL, "").await.header("cache-status"), "postern; hit; ttl=5");
    assert_eq!(world.refold.requests(), 2);
    // When the list has outgrown the page, the answer follows from it no longer.
    world.clock.advance(Duration::from_mins(30));
    let fetched = world.list(SMALL, "status=ERRORED").await;
    assert_eq!(fetched.header("cache-status"), "postern; fwd=stale; stored");
    assert_eq!(world.refold.requests(), 4);
}

#[tokio::test]
async fn what_was_dropped_or_is_not_wanted_from_the_cache_derives_nothing() {
    let setup = Setup::default();
    let tenant = format!("request_directives = [\"no-cache\"]\n{}", setup.tenant);
    let world = Setup { tenant, ..setup }.start().await;
    world.list(SMALL, "").await;
    let headers = [as_account(SMALL).as_slice(), &[("cache-control", "no-cache")]].concat();
    let asked = world.gateway.get(&format!("{EXECUTIONS}?status=ERRORED"), &headers).await;
    assert_eq!(asked.header("cache-status"), "postern; fwd=uri-miss; stored");
    let id = world.list(SMALL, "").await.json()["docs"][0]["_id"].as_str().expect("an id").to_owned();
    world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/rerun"), &as_account(SMALL)).await;
    let running = world.list(SMALL, "status=RUNNING").await;
    assert_eq!(running.header("cache-status"), "postern; fwd=uri-miss; stored");
    assert_eq!(running.json()["totalDocs"], 1);
}

#[tokio::test]
async fn a_tenant_that_wants_no_derived_answers_gets_none() {
    let setup = Setup::default();
    let world = Setup { top: format!("{}[cache]\nderive = false\n", setup.top), ..setup }.start().await;
    world.list(SMALL, "").await;
    assert_eq!(world.list(SMALL, "status=ERRORED").await.header("cache-status"), "postern; fwd=uri-miss; stored");
}

#[tokio::test]
async fn a_short_list_of_which_views_are_asked_for_is_fetched_whole_with_one_request_for_all_of_them() {
    let world = World::start().await;
    // 25 executions: two pages and a half.
    assert_eq!(world.list("acme-2", "").await.json()["totalDocs"], 25);
    let views = ["status=ERRORED", "status=COMPLETED&page=2", "execution_source=api-call", "page=3", "limit=50", ""];
    for round in 1..4 {
        for view in views {
            let answer = world.list("acme-2", view).await;
            assert_eq!(answer.status, http::StatusCode::OK, "{view}");
            assert_eq!(answer.json()["limit"], if view == "limit=50" { 50 } else { 10 }, "{view}");
        }
        assert_eq!(world.refold.requests(), 1 + round, "one request for all of them");
        world.clock.advance(Duration::from_secs(6));
    }
    // Dropped: it is still known that the list is short.
    let id = world.list("acme-2", "").await.json()["docs"][0]["_id"].as_str().expect("an id").to_owned();
    world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/rerun"), &as_account("acme-2")).await;
    let asked = world.refold.requests();
    for view in views {
        let list = world.list("acme-2", view).await.json();
        assert!(list["totalDocs"].as_u64() <= Some(26), "{view}");
    }
    assert_eq!(world.list("acme-2", "").await.json()["totalDocs"], 26);
    assert_eq!(world.refold.requests(), asked + 1);
}

#[tokio::test]
async fn where_executions_do_not_show_what_they_are_filtered_by_that_is_noticed_once() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asked);
    let upstream = crate::harness::http_upstream(move |request| {
        seen.lock().expect("no panic").push(request.uri().query().unwrap_or_default().to_owned());
        let limit: u64 = if request.uri().query().is_some_and(|query| query.contains("limit=100")) { 100 } else { 10 };
        let total = 12;
        let docs: Vec<_> =
            (0..total.min(limit)).map(|id| serde_json::json!({ "_id": id.to_string(), "status": "ERRORED" })).collect();
        let page = serde_json::json!({ "docs": docs, "totalDocs": total, "limit": limit });
        async move { http::Response::new(http_body_util::Full::new(page.to_string().into())) }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = crate::harness::Gateway::start(upstream, &top, &tenant, clock);
    for view in
        ["", "?execution_source=Event", "?execution_source=Schedule", "?status=ERRORED&page=2", "?status=STOPPED"]
    {
        let answer = gateway.get(&format!("{EXECUTIONS}{view}"), &as_account("a")).await;
        assert_eq!(answer.status, http::StatusCode::OK, "{answer:?}");
    }
    let limits: Vec<bool> = asked.lock().expect("no panic").iter().map(|query| query.contains("limit=100")).collect();
    // The list, the list as a whole in vain, the first view, the second; by status the views follow from what is there.
    assert_eq!(limits, [false, true, false, false], "{asked:?}");
}

/// An upstream whose list has 12 executions; `as_a_whole` changes its response to a request for a hundred at once.
async fn upstream_with(
    as_a_whole: fn(&mut http::Response<http_body_util::Full<bytes::Bytes>>),
) -> (crate::harness::Gateway, std::sync::Arc<std::sync::Mutex<Vec<bool>>>) {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asked);
    let upstream = crate::harness::http_upstream(move |request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let whole = query.contains("limit=100");
        seen.lock().expect("no panic").push(whole);
        let filtered = query.contains("status=");
        let (total, limit) = (if filtered { 3 } else { 12 }, if whole { 100 } else { 10 });
        let status = |id: u64| if id < 3 { "ERRORED" } else { "COMPLETED" };
        let docs: Vec<_> = (0..total.min(limit))
            .map(|id| serde_json::json!({ "_id": id.to_string(), "status": status(id) }))
            .collect();
        let page = serde_json::json!({ "docs": docs, "totalDocs": total, "limit": limit });
        let mut response = http::Response::new(http_body_util::Full::new(page.to_string().into()));
        if whole {
            as_a_whole(&mut response);
        }
        async move { response }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    (crate::harness::Gateway::start(upstream, &top, &tenant, clock), asked)
}

async fn total(gateway: &crate::harness::Gateway, query: &str) -> Option<u64> {
    let answer = gateway.get(&format!("{EXECUTIONS}{query}"), &as_account("a")).await;
    answer.json()["totalDocs"].as_u64()
}

#[tokio::test]
async fn a_list_that_can_not_be_fetched_whole_keeps_nobody_from_a_part_of_it() {
    let fails: [fn(&mut http::Response<http_body_util::Full<bytes::Bytes>>); 3] = [
        |response| *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR,
        |response| *response.body_mut() = bytes::Bytes::from_static(b"{").into(),
        |response| *response.status_mut() = http::StatusCode::BAD_REQUEST,
    ];
    for fails in fails {
        let (gateway, _) = upstream_with(fails).await;
        assert_eq!(total(&gateway, "").await, Some(12));
        assert_eq!(total(&gateway, "?status=ERRORED").await, Some(3));
    }
}

/// The ways in which the request for a whole list fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Status(u16),
    InvalidBody,
    Hangs,
    /// For every request, the small ones too.
    AllStatus(u16),
}

/// An upstream with a list of 12 executions of which no more than 50 can be requested at once, while the switch is on.
struct LimitedUpstream {
    gateway: crate::harness::Gateway,
    clock: postern::clock::Clock,
    /// One entry for each request: whether it was for the whole list.
    asked: std::sync::Arc<std::sync::Mutex<Vec<bool>>>,
    fails: std::sync::Arc<std::sync::atomic::AtomicBool>,
    failure: Failure,
}

impl LimitedUpstream {
    async fn start(failure: Failure, fails: bool) -> Self {
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let fails = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(fails));
        let (seen, switch) = (std::sync::Arc::clone(&asked), std::sync::Arc::clone(&fails));
        let upstream = crate::harness::http_upstream(move |request| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let limit: u64 =
                query.split_once("limit=").and_then(|(_, rest)| rest.split('&').next()?.parse().ok()).unwrap_or(10);
            seen.lock().expect("no panic").push(limit > 50);
            let fails = switch.load(std::sync::atomic::Ordering::SeqCst);
            let filtered = query.contains("status=");
            let total = if filtered { 3 } else { 12 };
            let status = |id: u64| if id < 3 { "ERRORED" } else { "COMPLETED" };
            let docs: Vec<_> = (0..total.min(limit))
                .map(|id| serde_json::json!({ "_id": id.to_string(), "status": status(id) }))
                .collect();
            let page = serde_json::json!({ "docs": docs, "totalDocs": total, "limit": limit });
            async move {
                let mut response = http::Response::new(http_body_util::Full::new(page.to_string().into()));
                match failure {
                    Failure::AllStatus(status) if fails => {
                        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                    }
                    Failure::Status(status) if fails && limit > 50 => {
                        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                    }
                    Failure::InvalidBody if fails && limit > 50 => {
                        *response.body_mut() = bytes::Bytes::from_static(b"{").into();
                    }
                    Failure::Hangs if fails && limit > 50 => std::future::pending().await,
                    _ => {}
                }
                response
            }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        // One worker, so that requests are taken up in the order in which they arrive.
        let top = format!("{top}[server]\nworkers = 1\ndrain_timeout = \"200ms\"\n");
        let gateway = crate::harness::Gateway::start(upstream, &top, &tenant, clock.clone());
        Self { gateway, clock, asked, fails, failure }
    }

    /// The total of a list; lets the time of a request that hangs go by.
    async fn total(&self, query: &str) -> Option<u64> {
        if self.failure != Failure::Hangs || !self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            return total(&self.gateway, query).await;
        }
        let known = self.asked.lock().expect("no panic").len();
        let asked = std::pin::pin!(total(&self.gateway, query));
        let hangs = async {
            while self.asked.lock().expect("no panic").get(known) != Some(&true) {
                tokio::task::yield_now().await;
            }
            // Longer than `first_byte_timeout`.
            self.clock.advance(Duration::from_secs(11));
            std::future::pending().await
        };
        tokio::select! {
            total = asked => total,
            never = hangs => never,
        }
    }

    /// The number of requests for the whole list since the last call.
    fn take_whole(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().expect("no panic")).into_iter().filter(|whole| *whole).count()
    }
}

const FAILURES: [Failure; 5] =
    [Failure::Status(400), Failure::Status(500), Failure::Hangs, Failure::InvalidBody, Failure::Status(413)];

#[tokio::test]
async fn a_whole_list_that_fails_is_not_tried_for_every_question() {
    for failure in FAILURES {
        let upstream = LimitedUpstream::start(failure, true).await;
        assert_eq!(upstream.total("").await, Some(12));
        // The first question tries the whole list in vain; those after it do not, in other minutes either.
        for expected in [1, 0, 0] {
            for view in ["?status=ERRORED", "?status=COMPLETED", "?status=ERRORED&limit=20", ""] {
                let expected = if view.contains("status") { 3 } else { 12 };
                assert_eq!(upstream.total(view).await, Some(expected), "{failure:?}");
            }
            assert_eq!(upstream.take_whole(), expected, "{failure:?}");
            upstream.clock.advance(Duration::from_mins(1));
        }
        // Some minutes later it is tried again.
        upstream.fails.store(false, std::sync::atomic::Ordering::SeqCst);
        upstream.clock.advance(Duration::from_mins(10));
        assert_eq!(upstream.total("").await, Some(12));
        assert_eq!((upstream.total("?status=ERRORED").await, upstream.take_whole()), (Some(3), 1), "{failure:?}");
    }
}

#[tokio::test]
async fn a_stored_whole_list_that_can_not_be_renewed_is_not_tried_for_every_question() {
    for failure in FAILURES {
        let upstream = LimitedUpstream::start(failure, false).await;
        for view in ["", "?status=ERRORED", "?status=COMPLETED"] {
            upstream.total(view).await.expect("a list");
        }
        assert_eq!(upstream.take_whole(), 1);
        upstream.fails.store(true, std::sync::atomic::Ordering::SeqCst);
        for expected in [1, 0, 0] {
            upstream.clock.advance(Duration::from_secs(20));
            for view in ["?status=ERRORED", "?status=COMPLETED", "?status=ERRORED&limit=20"] {
                assert_eq!(upstream.total(view).await, Some(3), "{failure:?}");
            }
            assert_eq!(upstream.take_whole(), expected, "{failure:?}");
        }
    }
}

#[tokio::test]
async fn a_whole_list_that_fails_after_its_callers_left_is_noted() {
    let upstream = std::sync::Arc::new(LimitedUpstream::start(Failure::Hangs, true).await);
    assert_eq!(upstream.total("").await, Some(12));
    let ask = |query: &'static str| {
        let upstream = std::sync::Arc::clone(&upstream);
        tokio::spawn(
            async move { upstream.gateway.get(&format!("{EXECUTIONS}{query}"), &as_account("a")).await.status },
        )
    };
    let leaves = ask("?status=ERRORED");
    crate::harness::until(|| upstream.asked.lock().expect("no panic").len() == 2).await;
    // Shares the fetch of the whole list, whose end it shows.
    let stays = ask("?limit=100");
    let arrived = || {
        let busiest = upstream.gateway.server().gateway().tenants()[0].busiest(1, upstream.clock.now());
        busiest.first().map_or(0, |account| account.requests)
    };
    crate::harness::until(|| arrived() == 3).await;
    leaves.abort();
    assert_eq!(upstream.total("").await, Some(12));
    upstream.clock.advance(Duration::from_secs(11));
    assert_eq!(stays.await.expect("a response"), http::StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((upstream.total("?status=ERRORED").await, upstream.take_whole()), (Some(3), 1));
}

#[tokio::test]
async fn an_outage_refutes_no_whole_list() {
    let upstream = LimitedUpstream::start(Failure::AllStatus(500), false).await;
    assert_eq!(upstream.total("").await, Some(12));
    upstream.clock.advance(Duration::from_secs(6));
    upstream.fails.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(upstream.total("?status=ERRORED").await, None);
    upstream.fails.store(false, std::sync::atomic::Ordering::SeqCst);
    upstream.take_whole();
    assert_eq!((upstream.total("?status=ERRORED").await, upstream.take_whole()), (Some(3), 1));
}

#[tokio::test]
async fn what_refold_wants_nobody_to_keep_answers_the_one_question_it_was_fetched_for() {
    let (gateway, asked) = upstream_with(|response| {
        response.headers_mut().insert("cache-control", http::HeaderValue::from_static("no-store"));
    })
    .await;
    assert_eq!(total(&gateway, "").await, Some(12));
    for _ in 0..2 {
        let answer = gateway.get(&format!("{EXECUTIONS}?status=ERRORED"), &as_account("a")).await;
        assert_eq!((answer.json()["totalDocs"].as_u64(), answer.header("cache-control")), (Some(3), "no-store"));
    }
    assert_eq!(*asked.lock().expect("no panic"), [false, true, true], "one request for each");
}

#[tokio::test]
async fn a_page_beyond_the_end_is_no_reason_to_fetch_no_list_whole_any_more() {
    let (gateway, asked) = upstream_with(|_| {}).await;
    assert_eq!(total(&gateway, "").await, Some(12));
    total(&gateway, "?status=ERRORED&page=7").await;
    assert_eq!(total(&gateway, "?status=ERRORED").await, Some(3));
    assert_eq!(total(&gateway, "?status=COMPLETED").await, Some(9));
    assert_eq!(*asked.lock().expect("no panic"), [false, true, false]);
}
