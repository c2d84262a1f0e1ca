//! `Cache-Control` directives of requests.

use std::time::Duration;

use http::StatusCode;

use crate::support::{Answer, EXECUTIONS, ScriptedRefold, World, with_directive};

async fn world(directives: &[&str]) -> World<ScriptedRefold> {
    let builder = World::builder().refold(ScriptedRefold::start().await).config(|config| config.while_revalidate("1h"));
    builder.tenant(|tenant| tenant.request_directives(directives)).start().await
}

async fn ask(world: &World<ScriptedRefold>, directive: &str) -> Answer {
    world.gateway.get(EXECUTIONS, &with_directive("a", directive)).await
}

#[tokio::test]
async fn allowed_directives_control_the_cache() {
    let world = world(&["no-cache", "no-store", "max-age", "min-fresh", "max-stale", "only-if-cached"]).await;
    let ask = async |directive| ask(&world, directive).await;
    assert_eq!(ask("only-if-cached").await.error(), (504, "NOT_CACHED".to_owned()));
    assert_eq!(world.refold.requests(), 0);
    let unstored = ask("no-store").await;
    assert_eq!((unstored.cache_status(), unstored.header("cache-control")), ("postern; fwd=request", "no-store"));
    assert_eq!(ask("only-if-cached").await.status, StatusCode::GATEWAY_TIMEOUT, "the page was not stored");
    assert_eq!(ask("").await.cache_status(), "postern; fwd=uri-miss; stored");
    for (directive, status) in [
        ("only-if-cached", "postern; hit; ttl=5"),
        ("max-age=0", "postern; hit; ttl=5"),
        ("no-cache", "postern; fwd=request; stored"),
        ("min-fresh=6", "postern; fwd=request; stored"),
        ("min-fresh=5", "postern; hit; ttl=5"),
    ] {
        assert_eq!(ask(directive).await.cache_status(), status, "{directive}");
    }
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(ask("max-age=3").await.cache_status(), "postern; hit; ttl=2");
    assert_eq!(ask("max-age=2").await.cache_status(), "postern; fwd=request; stored");
    world.clock.advance(Duration::from_secs(15));
    let before = world.refold.requests();
    assert_eq!(ask("max-stale=20").await.cache_status(), "postern; hit; ttl=-10; detail=stale");
    assert_eq!(world.refold.requests(), before, "a stale page is accepted, so nothing is fetched");
}

#[tokio::test]
async fn directives_that_the_tenant_does_not_allow_are_ignored() {
    let world = world(&[]).await;
    ask(&world, "").await;
    assert_eq!(ask(&world, "no-cache, no-store, max-age=0").await.cache_status(), "postern; hit; ttl=5");
}
