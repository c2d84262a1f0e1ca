//! Pages that follow from cached ones with certainty cost no upstream request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use postern::clock::Clock;
use serde_json::{Value, json};

use crate::support::{
    Answer, Configuration, EXECUTIONS, Gateway, World, WorldBuilder, as_account, http_upstream, until, with_directive,
};

/// A linked account with seven executions, and a new one every minute.
const SMALL: &str = "umbrella@example.com";

const DERIVED: &str = "postern; hit; ttl=5; detail=derived";

/// A gateway that derives without comparisons, so that requests to Refold can be counted.
fn trusting() -> WorldBuilder {
    World::builder().config(|config| config.derive("trusted"))
}

#[tokio::test]
async fn a_filter_of_a_cached_whole_list_is_derived_and_kept() {
    let world = trusting().start().await;
    let list = world.list(SMALL, "").await.json();
    for query in ["status=COMPLETED", "execution_source=Event", "limit=3&page=2", "limit=5&execution_type=ASYNC"] {
        let answer = world.list(SMALL, query).await;
        assert_eq!(answer.cache_status(), DERIVED, "{query}");
        assert_eq!(world.list(SMALL, query).await.cache_status(), "postern; hit; ttl=5", "{query}");
        for document in answer.json()["docs"].as_array().expect("an array") {
            assert!(list["docs"].as_array().expect("an array").contains(document));
        }
    }
    assert_eq!(world.refold.requests(), 1);
    // Every other page is fetched.
    assert_eq!(world.list(SMALL, "workflow_name=x").await.cache_status(), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "").await.cache_status(), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "status=ERRORED").await.cache_status(), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "limit=50").await.cache_status(), "postern; fwd=uri-miss; stored");
    assert_eq!(world.list("acme-1", "limit=10&page=5").await.cache_status(), DERIVED);
}

#[tokio::test]
async fn a_stale_derived_page_renews_the_list_it_follows_from() {
    let world = trusting().start().await;
    world.list(SMALL, "").await;
    world.list(SMALL, "status=ERRORED").await;
    world.clock.advance(Duration::from_secs(6));
    let renewed = world.list(SMALL, "status=ERRORED").await;
    assert_eq!((renewed.cache_status(), renewed.header("age")), ("postern; fwd=stale; stored", "0"));
    assert_eq!(world.list(SMALL, "").await.cache_status(), "postern; hit; ttl=5");
    assert_eq!(world.refold.requests(), 2);
    // When the list has outgrown its page, the filtered page no longer follows from it.
    world.clock.advance(Duration::from_mins(30));
    let fetched = world.list(SMALL, "status=ERRORED").await;
    assert_eq!(fetched.cache_status(), "postern; fwd=stale; stored");
    assert_eq!(world.refold.requests(), 4);
}

#[tokio::test]
async fn a_dropped_list_and_a_no_cache_request_derive_nothing() {
    let world = trusting().tenant(|tenant| tenant.request_directives(&["no-cache"])).start().await;
    world.list(SMALL, "").await;
    let target = format!("{EXECUTIONS}?status=ERRORED");
    let fetched = world.gateway.get(&target, &with_directive(SMALL, "no-cache")).await;
    assert_eq!(fetched.cache_status(), "postern; fwd=uri-miss; stored");
    let id = world.list(SMALL, "").await.first_id();
    world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/rerun"), &as_account(SMALL)).await;
    let running = world.list(SMALL, "status=RUNNING").await;
    assert_eq!(running.cache_status(), "postern; fwd=uri-miss; stored");
    assert_eq!(running.total(), 1);
}

#[tokio::test]
async fn derivation_can_be_switched_off() {
    let world = World::builder().config(|config| config.derive("off")).start().await;
    world.list(SMALL, "").await;
    assert_eq!(world.list(SMALL, "status=ERRORED").await.cache_status(), "postern; fwd=uri-miss; stored");
}

#[tokio::test]
async fn views_of_a_short_list_share_one_request_for_the_whole() {
    let world = trusting().start().await;
    // 25 executions: two pages and a half.
    assert_eq!(world.list("acme-2", "").await.total(), 25);
    let views = ["status=ERRORED", "status=COMPLETED&page=2", "execution_source=api-call", "page=3", "limit=50", ""];
    for round in 1..4 {
        for view in views {
            let answer = world.list("acme-2", view).await;
            assert_eq!(answer.status, StatusCode::OK, "{view}");
            assert_eq!(answer.json()["limit"], if view == "limit=50" { 50 } else { 10 }, "{view}");
        }
        assert_eq!(world.refold.requests(), 1 + round, "one request for all of them");
        world.clock.advance(Duration::from_secs(6));
    }
    // A rerun drops the pages, but the gateway still knows that the list is short.
    let id = world.list("acme-2", "").await.first_id();
    world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/rerun"), &as_account("acme-2")).await;
    let requests = world.refold.requests();
    for view in views {
        assert!(world.list("acme-2", view).await.total() <= 26, "{view}");
    }
    assert_eq!(world.list("acme-2", "").await.total(), 26);
    assert_eq!(world.refold.requests(), requests + 1);
}

/// A Refold with a list of 12 executions, for which a test says what a request for a hundred of them gets.
struct Listed {
    gateway: Gateway,
    /// For each request, whether it was for the whole list.
    whole: Arc<Mutex<Vec<bool>>>,
}

type Page = Response<Full<Bytes>>;

/// The execution with a number: the first three have failed.
fn document_with_status(id: u64) -> Value {
    json!({ "_id": id.to_string(), "status": if id < 3 { "ERRORED" } else { "COMPLETED" } })
}

impl Listed {
    async fn start(document: fn(u64) -> Value, change_whole: fn(&mut Page)) -> Self {
        let whole = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&whole);
        let upstream = http_upstream(move |request| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let whole = query.contains("limit=100");
            seen.lock().expect("no panic").push(whole);
            let filtered = query.contains("status=") && document(0).get("status") != document(11).get("status");
            let (total, limit) = (if filtered { 3 } else { 12 }, if whole { 100 } else { 10 });
            let docs: Vec<_> = (0..total.min(limit)).map(document).collect();
            let page = json!({ "docs": docs, "totalDocs": total, "limit": limit });
            let mut response = Response::new(Full::new(page.to_string().into()));
            if whole {
                change_whole(&mut response);
            }
            async move { response }
        })
        .await;
        Self { gateway: trusting().refold(upstream).start().await.gateway, whole }
    }

    /// Three executions have failed, the others are completed.
    async fn with_statuses(change_whole: fn(&mut Page)) -> Self {
        Self::start(document_with_status, change_whole).await
    }

    async fn list(&self, query: &str) -> Answer {
        self.gateway.list("a", query).await
    }

    fn whole(&self) -> Vec<bool> {
        self.whole.lock().expect("no panic").clone()
    }
}

#[tokio::test]
async fn a_filter_on_a_field_that_executions_lack_is_not_derived() {
    let refold = Listed::start(|id| json!({ "_id": id.to_string(), "status": "ERRORED" }), |_| {}).await;
    for view in ["", "execution_source=Event", "execution_source=Schedule", "status=ERRORED&page=2", "status=STOPPED"] {
        let answer = refold.list(view).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    // The list, the whole list in vain, the first view, the second; the views by status are derived.
    assert_eq!(refold.whole(), [false, true, false, false]);
}

#[tokio::test]
async fn views_are_served_though_the_whole_list_cannot_be_fetched() {
    let fails: [fn(&mut Page); 3] = [
        |response| *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        |response| *response.body_mut() = Bytes::from_static(b"{").into(),
        |response| *response.status_mut() = StatusCode::BAD_REQUEST,
    ];
    for fails in fails {
        let refold = Listed::with_statuses(fails).await;
        assert_eq!(refold.list("").await.total(), 12);
        assert_eq!(refold.list("status=ERRORED").await.total(), 3);
    }
}

/// The ways in which the request for a whole list fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum WholeFailure {
    Status(u16),
    InvalidBody,
    Hangs,
    /// For every request, the small ones too.
    AllStatus(u16),
}

impl WholeFailure {
    /// Changes the page that answers a request, for the whole list or for less.
    async fn change(self, page: &mut Page, whole: bool) {
        match self {
            Self::Status(status) if whole => *page.status_mut() = StatusCode::from_u16(status).expect("a status"),
            Self::AllStatus(status) => *page.status_mut() = StatusCode::from_u16(status).expect("a status"),
            Self::InvalidBody if whole => *page.body_mut() = Bytes::from_static(b"{").into(),
            Self::Hangs if whole => std::future::pending().await,
            _ => {}
        }
    }
}

/// The failures that show that a whole list can't be fetched.
const FAILURES: [WholeFailure; 5] = [
    WholeFailure::Status(400),
    WholeFailure::Status(500),
    WholeFailure::Hangs,
    WholeFailure::InvalidBody,
    WholeFailure::Status(413),
];

/// A Refold with a list of 12 executions of which no more than 50 can be requested at once, while a switch is on.
struct Limited {
    gateway: Gateway,
    clock: Clock,
    /// For each request, whether it was for the whole list.
    whole: Arc<Mutex<Vec<bool>>>,
    fails: Arc<AtomicBool>,
    failure: WholeFailure,
}

impl Limited {
    async fn start(failure: WholeFailure, fails: bool) -> Self {
        let (whole, fails) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(fails)));
        let (seen, switch) = (Arc::clone(&whole), Arc::clone(&fails));
        let upstream = http_upstream(move |request| {
            let query = request.uri().query().unwrap_or_default();
            let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit="));
            let limit: u64 = limit.and_then(|limit| limit.parse().ok()).unwrap_or(10);
            seen.lock().expect("no panic").push(limit > 50);
            let total: u64 = if query.contains("status=") { 3 } else { 12 };
            let docs: Vec<_> = (0..total.min(limit)).map(document_with_status).collect();
            let page = json!({ "docs": docs, "totalDocs": total, "limit": limit });
            let mut response = Response::new(Full::new(page.to_string().into()));
            let fails = switch.load(Ordering::SeqCst);
            async move {
                if fails {
                    failure.change(&mut response, limit > 50).await;
                }
                response
            }
        })
        .await;
        // One worker, so that requests are handled in the order in which they arrive; and a request that hangs is not sent
        // again as a probe of its connection.
        let config = |config: Configuration| config.one_worker().set("upstream.suspect_after", "1m");
        let world = trusting().refold(upstream).config(config).start().await;
        Self { gateway: world.gateway, clock: world.clock, whole, fails, failure }
    }

    /// A page; lets the time of a request that hangs pass.
    async fn list(&self, query: &str) -> Answer {
        let requests = self.requests();
        let pending = self.gateway.spawn_list("a", query);
        if self.failure == WholeFailure::Hangs && self.fails.load(Ordering::SeqCst) {
            let hangs = || self.whole.lock().expect("no panic").get(requests) == Some(&true);
            until(|| hangs() || pending.is_finished()).await;
            if hangs() {
                self.let_time_out();
            }
        }
        pending.answer().await
    }

    /// Lets more than `first_byte_timeout` pass.
    fn let_time_out(&self) {
        self.clock.advance(Duration::from_secs(11));
    }

    /// Switches the failure on or off.
    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// The number of requests since the last [`Limited::take_whole`].
    fn requests(&self) -> usize {
        self.whole.lock().expect("no panic").len()
    }

    /// The number of requests for the whole list since the last call.
    fn take_whole(&self) -> usize {
        std::mem::take(&mut *self.whole.lock().expect("no panic")).into_iter().filter(|whole| *whole).count()
    }
}

#[tokio::test]
async fn a_whole_list_that_fails_is_not_tried_for_every_question() {
    for failure in FAILURES {
        let refold = Limited::start(failure, true).await;
        assert_eq!(refold.list("").await.total(), 12);
        // The first question tries the whole list in vain; those after it do not, in other minutes either.
        for expected in [1, 0, 0] {
            for (view, total) in
                [("status=ERRORED", 3), ("status=COMPLETED", 3), ("status=ERRORED&limit=20", 3), ("", 12)]
            {
                assert_eq!(refold.list(view).await.total(), total, "{failure:?}");
            }
            assert_eq!(refold.take_whole(), expected, "{failure:?}");
            refold.clock.advance(Duration::from_mins(1));
        }
        // Some minutes later it is tried again.
        refold.fail(false);
        refold.clock.advance(Duration::from_mins(10));
        assert_eq!(refold.list("").await.total(), 12);
        assert_eq!((refold.list("status=ERRORED").await.total(), refold.take_whole()), (3, 1), "{failure:?}");
    }
}

#[tokio::test]
async fn a_stored_whole_list_that_cannot_be_renewed_is_not_tried_for_every_question() {
    for failure in FAILURES {
        let refold = Limited::start(failure, false).await;
        for view in ["", "status=ERRORED", "status=COMPLETED"] {
            refold.list(view).await.total();
        }
        assert_eq!(refold.take_whole(), 1);
        refold.fail(true);
        for expected in [1, 0, 0] {
            refold.clock.advance(Duration::from_secs(20));
            for view in ["status=ERRORED", "status=COMPLETED", "status=ERRORED&limit=20"] {
                assert_eq!(refold.list(view).await.total(), 3, "{failure:?}");
            }
            assert_eq!(refold.take_whole(), expected, "{failure:?}");
        }
    }
}

#[tokio::test]
async fn a_whole_list_that_fails_after_its_callers_left_is_noted() {
    let refold = Limited::start(WholeFailure::Hangs, true).await;
    assert_eq!(refold.list("").await.total(), 12);
    let leaves = refold.gateway.spawn_list("a", "status=ERRORED");
    until(|| refold.requests() == 2).await;
    // Shares the fetch of the whole list, whose end it shows.
    let stays = refold.gateway.spawn_list("a", "limit=100");
    refold.gateway.until_joined("a", 3).await;
    leaves.abort();
    assert_eq!(refold.list("").await.total(), 12);
    refold.let_time_out();
    assert_eq!(stays.answer().await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((refold.list("status=ERRORED").await.total(), refold.take_whole()), (3, 1));
}

#[tokio::test]
async fn an_outage_refutes_no_whole_list() {
    let refold = Limited::start(WholeFailure::AllStatus(500), false).await;
    assert_eq!(refold.list("").await.total(), 12);
    refold.clock.advance(Duration::from_secs(6));
    refold.fail(true);
    assert_eq!(refold.list("status=ERRORED").await.error(), (500, "INTERNAL_SERVER_ERROR".to_owned()));
    refold.fail(false);
    refold.take_whole();
    assert_eq!((refold.list("status=ERRORED").await.total(), refold.take_whole()), (3, 1));
}

#[tokio::test]
async fn an_uncacheable_whole_list_answers_only_the_request_it_served() {
    let refold = Listed::with_statuses(|response| {
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
    })
    .await;
    assert_eq!(refold.list("").await.total(), 12);
    for _ in 0..2 {
        let answer = refold.list("status=ERRORED").await;
        assert_eq!((answer.total(), answer.header("cache-control")), (3, "no-store"));
    }
    assert_eq!(refold.whole(), [false, true, true], "one request for each");
}

#[tokio::test]
async fn a_page_beyond_the_end_does_not_stop_derivation() {
    let refold = Listed::with_statuses(|_| {}).await;
    assert_eq!(refold.list("").await.total(), 12);
    refold.list("status=ERRORED&page=7").await;
    assert_eq!(refold.list("status=ERRORED").await.total(), 3);
    assert_eq!(refold.list("status=COMPLETED").await.total(), 9);
    assert_eq!(refold.whole(), [false, true, false]);
}
