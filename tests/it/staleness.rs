//! Stale pages: served while they are renewed, and while the upstream fails.

use std::time::Duration;

use http::StatusCode;

use crate::support::{Answer, Configuration, EXECUTIONS, ScriptedRefold, World, eventually, until, with_directive};

/// A world whose upstream answers are counted by their version and have a validator.
struct Stale(World<ScriptedRefold>);

impl Stale {
    async fn start(config: Configuration) -> Self {
        let refold = ScriptedRefold::start().await;
        refold.send_header("etag", "\"an etag\"");
        let directives = ["no-cache", "max-age", "max-stale"];
        let builder = World::builder().refold(refold).config(|_| config);
        Self(builder.tenant(|tenant| tenant.request_directives(&directives)).start().await)
    }

    /// Pages are served stale for these times.
    async fn for_times(while_revalidate: &str, if_error: &str) -> Self {
        Self::start(Configuration::new().stale(while_revalidate, if_error)).await
    }

    async fn ask(&self) -> Answer {
        self.ask_for("").await
    }

    /// Requests the page with a `Cache-Control` directive.
    async fn ask_for(&self, directive: &str) -> Answer {
        self.0.gateway.get(EXECUTIONS, &with_directive("a", directive)).await
    }

    fn advance(&self, seconds: u64) {
        self.0.clock.advance(Duration::from_secs(seconds));
    }

    fn upstream_answers(&self, status: u16) {
        self.0.refold.answer_with(status);
    }

    /// The number of requests to the upstream.
    fn requests(&self) -> usize {
        self.0.refold.requests()
    }
}

fn version(answer: &Answer) -> u64 {
    answer.first_document()["version"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn a_stale_page_is_served_at_once_and_renewed_once() {
    let world = Stale::for_times("10s", "0s").await;
    assert_eq!(version(&world.ask().await), 1);
    world.advance(7);
    let stale = world.ask().await;
    assert_eq!(
        (version(&stale), stale.cache_status(), stale.header("age")),
        (1, "postern; hit; ttl=-2; detail=stale", "7")
    );
    world.0.refold.until_received(2).await;
    let mut renewed = stale;
    eventually(async || {
        renewed = world.ask().await;
        version(&renewed) == 2
    })
    .await;
    assert_eq!((version(&renewed), renewed.cache_status()), (2, "postern; hit; ttl=5"));
    assert_eq!(world.requests(), 2);
    // Beyond `while_revalidate` the caller waits for the fetch.
    world.advance(16);
    let waited = world.ask().await;
    assert_eq!((version(&waited), waited.cache_status()), (3, "postern; fwd=stale; stored"));
}

#[tokio::test]
async fn one_stale_hit_renews_a_page_until_its_fetch_ends() {
    // Without collapsing every caller that joins a fetch starts one, so the upstream's requests count them.
    let world = Stale::start(Configuration::new().stale("10s", "0s").set("cache.collapse", false)).await;
    assert_eq!(version(&world.ask().await), 1);
    world.advance(7);
    world.0.refold.hold();
    for _ in 0..50 {
        let stale = world.ask().await;
        assert_eq!((version(&stale), stale.cache_status()), (1, "postern; hit; ttl=-2; detail=stale"));
    }
    until(|| world.requests() >= 2).await;
    assert_eq!(world.ask().await.cache_status(), "postern; hit; ttl=-2; detail=stale");
    // The renewal fails, so a later caller begins another.
    world.upstream_answers(503);
    world.0.refold.release();
    assert_eq!(world.requests(), 2);
    eventually(async || {
        assert_eq!(version(&world.ask().await), 1);
        world.requests() > 2
    })
    .await;
}

#[tokio::test]
async fn a_stale_page_is_served_while_the_upstream_fails() {
    let world = Stale::for_times("0s", "1m").await;
    assert_eq!(version(&world.ask().await), 1);
    for status in [500, 502, 503, 429] {
        world.upstream_answers(status);
        world.advance(6);
        for _ in 0..3 {
            let answer = world.ask().await;
            assert_eq!((answer.status, version(&answer)), (StatusCode::OK, 1), "{status}");
            assert!(answer.cache_status().starts_with("postern; hit; ttl=-"), "{answer:?}");
        }
    }
    // The second and third request of each round did not reach the upstream.
    assert_eq!(world.requests(), 5);
    world.advance(50);
    let none = world.ask().await;
    assert_eq!(none.status, StatusCode::TOO_MANY_REQUESTS, "the page is older than `if_error` allows");
    world.upstream_answers(200);
    world.advance(2);
    assert_eq!(world.ask().await.cache_status(), "postern; fwd=stale; stored");
}

#[tokio::test]
async fn a_client_error_of_the_upstream_replaces_a_stale_page() {
    let world = Stale::for_times("0s", "1h").await;
    for (status, expected) in [(404, 404), (403, 403), (400, 400), (401, 502)] {
        world.upstream_answers(200);
        assert_eq!(world.ask().await.status, StatusCode::OK);
        world.advance(6);
        world.upstream_answers(status);
        assert_eq!(world.ask().await.status.as_u16(), expected);
        // The page was dropped.
        world.upstream_answers(500);
        assert_eq!(world.ask().await.status.as_u16(), 500);
    }
}

#[tokio::test]
async fn a_spent_budget_gives_a_stale_page_rather_than_429() {
    let config = Configuration::with_default_limits().upstream_limit(1, 2).max_wait("0s").while_revalidate("0s");
    let world = Stale::start(config).await;
    assert_eq!(world.ask().await.status, StatusCode::OK);
    world.0.clock.advance(Duration::from_millis(5500));
    let other = world.0.list("a", "page=2").await;
    assert_eq!(other.status, StatusCode::OK);
    let answer = world.ask().await;
    assert_eq!((answer.status, answer.cache_status()), (StatusCode::OK, "postern; hit; ttl=-1; detail=stale"));
    let none = world.0.list("a", "page=3").await;
    assert_eq!(none.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    assert_eq!(world.requests(), 2);
}

#[tokio::test]
async fn an_uncacheable_response_drops_the_cached_page() {
    for status in [200, 304] {
        let world = Stale::for_times("1h", "1h").await;
        world.ask().await;
        world.advance(6);
        world.0.refold.send_header("cache-control", "no-store");
        world.upstream_answers(status);
        assert_eq!(world.ask().await.cache_status(), "postern; hit; ttl=-1; detail=stale");
        world.0.refold.until_received(2).await;
        world.upstream_answers(200);
        // The renewal in the background drops the page a moment later.
        eventually(async || {
            let answer = world.ask().await;
            let missed = answer.cache_status() == "postern; fwd=uri-miss";
            assert!(!missed || answer.header("cache-control") == "no-store", "{answer:?}");
            missed
        })
        .await;
    }
}

#[tokio::test]
async fn a_404_for_a_no_cache_request_drops_the_page() {
    let world = Stale::for_times("1h", "1h").await;
    world.ask().await;
    world.upstream_answers(503);
    assert_eq!(world.ask_for("no-cache").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.ask().await.status, StatusCode::OK, "a server error leaves the page in the cache");
    world.upstream_answers(404);
    assert_eq!(world.ask_for("no-cache").await.status, StatusCode::NOT_FOUND);
    assert_eq!(world.ask().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn no_response_is_staler_than_its_request_allows() {
    let world = Stale::for_times("1h", "1h").await;
    world.ask().await;
    for (requests, (directive, taken)) in (2..).zip([
        ("max-stale=3", true),
        ("max-stale=2", false),
        ("max-stale=0", false),
        ("max-age=60", false),
        ("max-age=60, max-stale=3", true),
    ]) {
        world.advance(8);
        let answer = world.ask_for(directive).await;
        let status = if taken { "postern; hit; ttl=-3; detail=stale" } else { "postern; fwd=request; stored" };
        assert_eq!(answer.cache_status(), status, "{directive}");
        if taken {
            world.ask_for("no-cache").await;
        }
        assert_eq!(world.requests(), requests, "{directive}");
    }
}
