//! One fetch for all callers with the same question, also when some of them disconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::tokens::token_of;
use crate::support::{
    Configuration, EXECUTIONS, NEXT_ORG_KEY, ORG_KEY, PendingAnswer, ScriptedRefold, Waiting, World, http_upstream,
    page_of, seeded, until, with_directive,
};

type Gated = World<ScriptedRefold>;

/// A gateway in front of an upstream that holds every request.
async fn gated() -> Gated {
    let builder = World::builder().refold(ScriptedRefold::gated().await).config(Configuration::one_worker);
    builder.tenant(|tenant| tenant.request_directives(&["no-cache", "max-age"])).start().await
}

fn ask_for(world: &Gated, directive: &str) -> PendingAnswer {
    world.gateway.spawn_get(EXECUTIONS, &with_directive("acme-1", directive))
}

#[tokio::test]
async fn a_thousand_callers_cost_one_fetch_though_half_disconnect() {
    let world = gated().await;
    let ask = || world.gateway.spawn_list("acme-1", "");
    // The first of them begins the fetch; it is among those that disconnect.
    let mut callers = vec![ask()];
    world.refold.until_received(1).await;
    callers.extend((1..1000).map(|_| ask()));
    world.gateway.until_joined("acme-1", 1000).await;
    let stay = callers.split_off(500);
    for caller in callers {
        caller.abort();
    }
    tokio::task::yield_now().await;
    world.refold.release();
    for caller in stay {
        let answer = caller.answer().await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.first_document()["_id"], 1);
    }
    assert_eq!(world.refold.requests(), 1);
    let later = world.list("acme-1", "").await;
    assert!(later.is_hit(), "{later:?}");
}

#[tokio::test]
async fn a_failure_reaches_all_callers_and_is_not_kept() {
    let world = gated().await;
    world.refold.answer_with(500);
    let ask = || world.gateway.spawn_list("acme-1", "");
    let mut callers = vec![ask()];
    world.refold.until_received(1).await;
    callers.extend((0..20).map(|_| ask()));
    world.gateway.until_joined("acme-1", 21).await;
    world.refold.release();
    for caller in callers {
        assert_eq!(caller.answer().await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(world.refold.requests(), 1);
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn callers_that_want_a_newer_answer_share_a_second_fetch() {
    let world = gated().await;
    let first = ask_for(&world, "");
    world.refold.until_received(1).await;
    world.clock.advance(Duration::from_secs(3));
    let newer = ["no-cache", "max-age=2", "no-cache"].map(|directive| ask_for(&world, directive));
    let old_enough = ask_for(&world, "max-age=3");
    world.gateway.until_joined("acme-1", 5).await;
    world.refold.release();
    for caller in [first, old_enough] {
        assert_eq!(caller.answer().await.first_document()["_id"], 1);
    }
    for caller in newer {
        let answer = caller.answer().await;
        assert_eq!(answer.first_document()["_id"], 2, "{answer:?}");
        assert_eq!(answer.header("age"), "0");
    }
    assert_eq!(world.refold.requests(), 2);
}

/// A gateway with one worker and one upstream request per second in front of an upstream that answers at once.
async fn slow(max_wait: &str) -> Gated {
    let builder = World::builder().refold(ScriptedRefold::start().await);
    let builder = builder.tenant(|tenant| tenant.request_directives(&["max-age"]));
    let builder = builder.config(|config| config.one_worker().derive("off"));
    builder.config(|config| config.upstream_limit(1, 2).max_wait(max_wait)).start().await
}

/// The time between two permits of one request per second.
const PERMIT: Duration = Duration::from_millis(1020);

#[tokio::test]
async fn a_queued_fetch_is_cancelled_when_its_last_caller_disconnects() {
    let world = slow("10s").await;
    let ask = |page: u32| world.gateway.spawn_list("acme-1", &format!("page={page}"));
    assert_eq!(ask(1).answer().await.status, StatusCode::OK);
    let stays = ask(2);
    world.gateway.until_waiting(1).await;
    let (leaves, also_leaves) = (ask(3), ask(3));
    world.gateway.until_joined("acme-1", 4).await;
    world.gateway.until_waiting(2).await;
    // One of two is not the last.
    leaves.abort();
    world.clock.advance(PERMIT);
    assert_eq!(stays.answer().await.status, StatusCode::OK);
    assert_eq!(world.gateway.waiting().callers, 1);
    also_leaves.abort();
    world.gateway.until_waiting(0).await;
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(ask(4).answer().await.status, StatusCode::OK);
    assert_eq!(world.refold.take_pages(), [1, 2, 4], "the cancelled fetch was not sent");
}

#[tokio::test]
async fn a_renewal_that_a_caller_waits_for_overtakes_the_others() {
    let builder = World::builder().refold(ScriptedRefold::start().await);
    let builder = builder.tenant(|tenant| tenant.request_directives(&["max-age"]));
    let limits = builder.config(|config| config.upstream_limit(1, 2).max_wait("10s").while_revalidate("10s"));
    let world = limits.start().await;
    let ask = |page: u32, directive: &str| {
        world.gateway.spawn_get(&format!("{EXECUTIONS}?page={page}"), &with_directive("acme-1", directive))
    };
    for page in 1..=4 {
        ask(page, "").answer().await;
        world.clock.advance(PERMIT);
    }
    // All become stale. The first renewal takes the permit that is left, the others wait in the background.
    world.clock.advance(Duration::from_secs(5));
    for page in 1..=4 {
        let answer = ask(page, "").answer().await;
        assert!(answer.cache_status().starts_with("postern; hit; ttl=-"), "{answer:?}");
        world.refold.until_received(5).await;
    }
    until(|| world.gateway.waiting() == Waiting { callers: 0, renewals: 3 }).await;
    world.refold.take_pages();
    let caller = ask(4, "max-age=0");
    until(|| world.gateway.waiting() == Waiting { callers: 1, renewals: 2 }).await;
    for renewed in 1..=3 {
        world.clock.advance(PERMIT);
        world.refold.until_received(renewed).await;
    }
    assert_eq!(caller.answer().await.cache_status(), "postern; fwd=request; stored");
    assert_eq!(world.refold.take_pages(), [4, 2, 3]);
}

#[tokio::test]
async fn only_fetches_with_a_caller_left_are_sent() {
    let world = slow("1h").await;
    // Each question has an account of its own, so that its callers share one fetch.
    let ask = |page: u32| world.gateway.spawn_list(&format!("account-{page}"), &format!("page={page}"));
    let mut dice = seeded(11);
    for round in 0..25 {
        // The permit that is left goes first, so that all others wait.
        world.clock.advance(Duration::from_secs(10));
        let first = round * 100;
        assert_eq!(ask(first + 1).answer().await.status, StatusCode::OK);
        world.refold.take_pages();
        let mut callers: Vec<(u32, PendingAnswer)> = Vec::new();
        for question in 0..dice.u32(1..8) {
            let page = first + 2 + question;
            let many = dice.u32(1..4);
            callers.extend((0..many).map(|_| (page, ask(page))));
            // All of them: a request that is still on its way when its caller disconnects would be fetched all the same.
            world.gateway.until_joined(&format!("account-{page}"), u64::from(many)).await;
            world.gateway.until_waiting(usize::try_from(question + 1).expect("few")).await;
        }
        let (leave, stay): (Vec<_>, Vec<_>) = callers.into_iter().partition(|_| dice.bool());
        let mut wanted: Vec<u32> = stay.iter().map(|(page, _)| *page).collect();
        wanted.dedup();
        for (_, caller) in &leave {
            caller.abort();
        }
        until(|| world.gateway.waiting() == Waiting { callers: wanted.len(), renewals: 0 }).await;
        while stay.iter().any(|(_, caller)| !caller.is_finished()) {
            world.clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
        for (_, caller) in stay {
            assert_eq!(caller.answer().await.status, StatusCode::OK);
        }
        let mut sent = world.refold.take_pages();
        sent.sort_unstable();
        assert_eq!(sent, wanted, "round {round}");
    }
}

#[tokio::test]
async fn an_older_fetch_does_not_replace_a_newer_page() {
    let (requests, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let (count, held) = (Arc::clone(&requests), Arc::clone(&gate));
    let upstream = http_upstream(move |_| {
        let (count, held) = (Arc::clone(&count), Arc::clone(&held));
        async move {
            let version = count.fetch_add(1, Ordering::SeqCst) + 1;
            if version == 1 {
                held.acquire().await.expect("the semaphore is open").forget();
            }
            page_of(&json!({ "status": "COMPLETED", "version": version }))
        }
    })
    .await;
    let world = World::builder().refold(upstream).config(|config| config.set("cache.collapse", false)).start().await;
    let first = world.gateway.spawn_list("acme-1", "");
    until(|| requests.load(Ordering::SeqCst) == 1).await;
    world.clock.advance(Duration::from_millis(1));
    let ask = async || {
        let answer = world.list("acme-1", "").await;
        (answer.first_document()["version"].as_u64(), answer.cache_status().to_owned())
    };
    assert_eq!(ask().await, (Some(2), "postern; fwd=uri-miss; stored".to_owned()));
    gate.add_permits(1);
    assert_eq!(first.answer().await.first_document()["version"], 1);
    assert_eq!(ask().await, (Some(2), "postern; hit; ttl=5".to_owned()));
}

#[tokio::test]
async fn the_refusal_of_one_org_key_does_not_reach_other_callers() {
    let refold = ScriptedRefold::gated().await;
    refold.accept_only(NEXT_ORG_KEY);
    let builder = World::builder().refold(refold);
    let world = builder.config(|config| config.one_worker().while_revalidate("1h").validating()).start().await;
    let ask = |credential: &str| {
        let name = if credential.starts_with("Bearer ") { "authorization" } else { "x-api-key" };
        world.gateway.spawn_get(EXECUTIONS, &[(name, credential), ("linked_account_id", "a")])
    };
    let revoked = ask(ORG_KEY);
    world.refold.until_received(1).await;
    let good = [ask(NEXT_ORG_KEY), ask(&token_of("a"))];
    world.gateway.until_joined("a", 3).await;
    world.refold.release();
    assert_eq!(revoked.answer().await.status, StatusCode::UNAUTHORIZED);
    for caller in good {
        assert_eq!(caller.answer().await.status, StatusCode::OK);
    }
    // The cached page stays as well.
    world.clock.advance(Duration::from_secs(6));
    let before = world.refold.requests();
    let stale = async |key: &str| ask(key).answer().await.cache_status() == "postern; hit; ttl=-1; detail=stale";
    assert!(stale(ORG_KEY).await);
    world.refold.until_received(before + 1).await;
    assert!(stale(ORG_KEY).await);
    assert!(stale(NEXT_ORG_KEY).await);
}
