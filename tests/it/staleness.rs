//! Answers that are no longer fresh: given while they are renewed, and instead of nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::harness::{Answer, EXECUTIONS, Gateway, Setup, as_account, http_upstream, page_of, until};
use postern::clock::Clock;

struct World {
    gateway: Gateway,
    clock: Clock,
    /// The status that the upstream answers with.
    status: Arc<AtomicU16>,
    asked: Arc<AtomicU64>,
}

impl World {
    async fn start(stale: &str) -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let (given, count) = (Arc::clone(&status), Arc::clone(&asked));
        let upstream = http_upstream(move |_| {
            let (given, count) = (Arc::clone(&given), Arc::clone(&count));
            async move {
                let version = count.fetch_add(1, Ordering::SeqCst) + 1;
                let mut response = page_of(&json!({ "status": "COMPLETED", "version": version }));
                *response.status_mut() = StatusCode::from_u16(given.load(Ordering::SeqCst)).expect("a status");
                response
            }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        let top = top.replace("while_revalidate = \"0s\"\nif_error = \"0s\"", stale);
        let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
        Self { gateway, clock, status, asked }
    }

    async fn ask(&self) -> Answer {
        self.gateway.get(EXECUTIONS, &as_account("a")).await
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
        World { gateway, clock, status, asked }
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
