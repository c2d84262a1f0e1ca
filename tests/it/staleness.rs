//! Answers that are no longer fresh: given while they are renewed, and instead of nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;

use crate::harness::{Answer, EXECUTIONS, Gateway, Setup, as_account, http_upstream, page_of, until};
use postern::clock::Clock;

struct World {
    gateway: Gateway,
    clock: Clock,
    /// The status that the upstream answers with.
    status: Arc<AtomicU16>,
    /// Whether it wants its answers kept by nobody.
    no_store: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
}

impl World {
    async fn start(stale: &str) -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let no_store = Arc::new(AtomicBool::new(false));
        let (given, unkept, count) = (Arc::clone(&status), Arc::clone(&no_store), Arc::clone(&asked));
        let upstream = http_upstream(move |_| {
            let (given, unkept, count) = (Arc::clone(&given), Arc::clone(&unkept), Arc::clone(&count));
            async move {
                let version = count.fetch_add(1, Ordering::SeqCst) + 1;
                let mut response = page_of(&json!({ "status": "COMPLETED", "version": version }));
                *response.status_mut() = StatusCode::from_u16(given.load(Ordering::SeqCst)).expect("a status");
                response.headers_mut().insert("etag", "\"an etag\"".parse().expect("a value"));
                if unkept.load(Ordering::SeqCst) {
                    response.headers_mut().insert("cache-control", "no-store".parse().expect("a value"));
                }
                response
            }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        let top = top.replace("while_revalidate = \"0s\"\nif_error = \"0s\"", stale);
        let tenant = format!("request_directives = [\"no-cache\", \"max-age\", \"max-stale\"]\n{tenant}");
        let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
        Self { gateway, clock, status, no_store, asked }
    }

    async fn ask(&self) -> Answer {
        self.ask_for("").await
    }

    /// Asks with a `Cache-Control`.
    async fn ask_for(&self, directive: &str) -> Answer {
        let headers = [as_account("a").as_slice(), &[("cache-control", directive)]].concat();
        self.gateway.get(EXECUTIONS, &headers).await
    }

    fn upstream_answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn version(answer: &Answer) -> u64 {
    answer.json()["docs"][0]["version"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn a_stale_page_is_given_at_once_and_renewed_once_behind_its_readers_backs() {
    let world = World::start("while_revalidate = \"10s\"\nif_error = \"0s\"").await;
    assert_eq!(version(&world.ask().await), 1);
    world.clock.advance(Duration::from_secs(7));
    let stale = world.ask().await;
    assert_eq!((version(&stale), stale.header("cache-status"), stale.header("age")), (1, "postern; hit; ttl=-2", "7"));
    until(|| world.asked() == 2).await;
    let mut renewed = world.ask().await;
    while version(&renewed) == 1 {
        renewed = world.ask().await;
    }
    assert_eq!((version(&renewed), renewed.header("cache-status")), (2, "postern; hit; ttl=5"));
    assert_eq!(world.asked(), 2);
    // Too old to be given without asking.
    world.clock.advance(Duration::from_secs(16));
    let waited = world.ask().await;
    assert_eq!((version(&waited), waited.header("cache-status")), (3, "postern; fwd=stale; stored"));
}

#[tokio::test]
async fn one_stale_hit_renews_a_page_until_its_fetch_ends() {
    let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
    let open = watch::Sender::new(true);
    let (given, count, gate) = (Arc::clone(&status), Arc::clone(&asked), open.clone());
    let upstream = http_upstream(move |_| {
        let (given, number, mut gate) =
            (Arc::clone(&given), count.fetch_add(1, Ordering::SeqCst) + 1, gate.subscribe());
        async move {
            gate.wait_for(|open| *open).await.expect("the test holds the gate");
            let mut response = page_of(&json!({ "status": "COMPLETED", "version": number }));
            *response.status_mut() = StatusCode::from_u16(given.load(Ordering::SeqCst)).expect("a status");
            response
        }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    // Without collapsing every reader that joins a fetch starts one, so the upstream's requests count them.
    let top = top.replace("while_revalidate = \"0s\"", "while_revalidate = \"10s\"") + "\n[cache]\ncollapse = false\n";
    let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
    let world = World { gateway, clock, status, no_store: Arc::default(), asked };
    assert_eq!(version(&world.ask().await), 1);
    world.clock.advance(Duration::from_secs(7));
    open.send_replace(false);
    for _ in 0..50 {
        let stale = world.ask().await;
        assert_eq!((version(&stale), stale.header("cache-status")), (1, "postern; hit; ttl=-2"));
    }
    until(|| world.asked() >= 2).await;
    assert_eq!(world.ask().await.header("cache-status"), "postern; hit; ttl=-2");
    // The renewal fails, so the next reader may try again.
    world.upstream_answers(503);
    open.send_replace(true);
    assert_eq!(world.asked(), 2);
    let mut readers = 0;
    while world.asked() == 2 {
        assert_eq!(version(&world.ask().await), 1);
        readers += 1;
        assert!(readers < 10_000, "the page is never renewed");
    }
}

#[tokio::test]
async fn while_the_upstream_fails_whoever_had_a_page_keeps_getting_it_and_is_told_so() {
    let world = World::start("while_revalidate = \"0s\"\nif_error = \"1m\"").await;
    assert_eq!(version(&world.ask().await), 1);
    for status in [500, 502, 503, 429] {
        world.upstream_answers(status);
        world.clock.advance(Duration::from_secs(6));
        for _ in 0..3 {
            let answer = world.ask().await;
            assert_eq!((answer.status, version(&answer)), (StatusCode::OK, 1), "{status}");
            assert!(
                answer.header("cache-status").starts_with("postern; hit; ttl=-"),
                "{}",
                answer.header("cache-status")
            );
        }
    }
    // The second and third of each did not ask again.
    assert_eq!(world.asked(), 5);
    world.clock.advance(Duration::from_secs(50));
    let blank = world.ask().await;
    assert_eq!(blank.status, StatusCode::TOO_MANY_REQUESTS, "it is too old now");
    world.upstream_answers(200);
    world.clock.advance(Duration::from_secs(2));
    assert_eq!(world.ask().await.header("cache-status"), "postern; fwd=stale; stored");
}

#[tokio::test]
async fn what_the_upstream_says_of_the_question_or_the_key_is_not_hidden_by_an_old_page() {
    let world = World::start("while_revalidate = \"0s\"\nif_error = \"1h\"").await;
    for (status, expected) in [(404, 404), (403, 403), (400, 400), (401, 502)] {
        world.upstream_answers(200);
        assert_eq!(world.ask().await.status, StatusCode::OK);
        world.clock.advance(Duration::from_secs(6));
        world.upstream_answers(status);
        assert_eq!(world.ask().await.status.as_u16(), expected);
        // And what was kept is gone.
        world.upstream_answers(500);
        assert_eq!(world.ask().await.status.as_u16(), 500);
    }
}

#[tokio::test]
async fn a_spent_budget_gives_an_old_page_rather_than_429() {
    let world = {
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&asked);
        let upstream = http_upstream(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async { page_of(&json!({ "status": "COMPLETED", "version": 1 })) }
        })
        .await;
        let Setup { clock, tenant, .. } = Setup::default();
        let top = "[limits.upstream]\nper_second = 1\nburst = 2\nmax_wait = \"0s\"\n[cache.stale]\nwhile_revalidate = \"0s\"\n";
        let gateway = Gateway::start(upstream, top, &tenant, clock.clone());
        World { gateway, clock, status, no_store: Arc::default(), asked }
    };
    assert_eq!(world.ask().await.status, StatusCode::OK);
    world.clock.advance(Duration::from_millis(5500));
    let other = world.gateway.get(&format!("{EXECUTIONS}?page=2"), &as_account("a")).await;
    assert_eq!(other.status, StatusCode::OK);
    let answer = world.ask().await;
    assert_eq!((answer.status, answer.header("cache-status")), (StatusCode::OK, "postern; hit; ttl=-1"));
    let blank = world.gateway.get(&format!("{EXECUTIONS}?page=3"), &as_account("a")).await;
    assert_eq!(blank.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_to_be_kept_takes_the_place_of_the_one_before_it() {
    for status in [200, 304] {
        let world = World::start("while_revalidate = \"1h\"\nif_error = \"1h\"").await;
        world.ask().await;
        world.clock.advance(Duration::from_secs(6));
        world.no_store.store(true, Ordering::SeqCst);
        world.upstream_answers(status);
        assert_eq!(world.ask().await.header("cache-status"), "postern; hit; ttl=-1");
        until(|| world.asked() == 2).await;
        world.upstream_answers(200);
        // What came in the background is in nobody's way any more.
        loop {
            let answer = world.ask().await;
            if answer.header("cache-status") == "postern; fwd=uri-miss" {
                assert_eq!(answer.header("cache-control"), "no-store");
                break;
            }
            assert!(world.asked() < 1000, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_refold_refuses_to_who_asks_anew_is_not_given_to_others_out_of_the_cache() {
    let world = World::start("while_revalidate = \"1h\"\nif_error = \"1h\"").await;
    world.ask().await;
    world.upstream_answers(503);
    assert_eq!(world.ask_for("no-cache").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.ask().await.status, StatusCode::OK, "that passes");
    world.upstream_answers(404);
    assert_eq!(world.ask_for("no-cache").await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.ask().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_says_how_stale_an_answer_may_be_is_given_none_that_is_staler() {
    let world = World::start("while_revalidate = \"1h\"\nif_error = \"1h\"").await;
    let mut asked = 1;
    world.ask().await;
    for (directive, taken) in [
        ("max-stale=3", true),
        ("max-stale=2", false),
        ("max-stale=0", false),
        ("max-age=60", false),
        ("max-age=60, max-stale=3", true),
    ] {
        world.clock.advance(Duration::from_secs(8));
        let answer = world.ask_for(directive).await;
        let status = if taken { "postern; hit; ttl=-3" } else { "postern; fwd=request; stored" };
        assert_eq!(answer.header("cache-status"), status, "{directive}");
        if taken {
            world.ask_for("no-cache").await;
        }
        asked += 1;
        assert_eq!(world.asked(), asked, "{directive}");
    }
}
