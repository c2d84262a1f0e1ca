//! Derived answers are served once they have agreed with Refold's own answers, and proving that costs callers nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use postern::tenant::KindStatus;
use serde_json::{Value, json};

use crate::support::{Configuration, World, http_upstream, until};

const DERIVED: &str = "postern; hit; ttl=5; detail=derived";
const FETCHED: &str = "postern; fwd=uri-miss; stored";
/// The freshness lifetime of all pages is over after this time.
const STALE: Duration = Duration::from_secs(6);

fn verified(config: Configuration) -> Configuration {
    config.derive("verified").one_worker().admin()
}

fn state<R>(world: &World<R>, kind: &str) -> (&'static str, Option<u32>) {
    let KindStatus { state, agreements, .. } =
        world.gateway.trust().kinds.into_iter().find(|state| state.kind == kind).expect("a kind");
    (state, agreements)
}

/// Asks for a large page and a part of it, again and again, and returns how the last part was answered.
async fn ask_for_parts(world: &World, account: &str, rounds: u32) -> String {
    let mut last = String::new();
    for _ in 0..rounds {
        world.clock.advance(STALE);
        world.list(account, "limit=50").await.json();
        let part = world.list(account, "limit=10").await;
        last = part.cache_status().replace("stale", "uri-miss");
        world.gateway.until_compared().await;
    }
    last
}

#[tokio::test]
async fn twenty_agreements_of_three_accounts_put_a_kind_to_use() {
    let world = World::builder().config(verified).start().await;
    assert_eq!(ask_for_parts(&world, "initech", 12).await, FETCHED);
    assert_eq!(ask_for_parts(&world, "acme-2", 8).await, FETCHED);
    assert_eq!(state(&world, "slice"), ("in_use", None), "the tenant has no other account");
    assert_eq!(ask_for_parts(&world, "acme-2", 1).await, DERIVED);
    assert_eq!(state(&world, "status"), ("unproven", Some(0)));
    let status = world.gateway.admin("/status", &[]).await.json();
    assert_eq!(status["tenants"][0]["derivation"]["kinds"][0]["state"], "in_use");
    let metrics = world.gateway.metrics();
    for line in [
        "postern_derivation_in_use{kind=\"slice\",tenant=\"t\"} 1",
        "postern_derivation_in_use{kind=\"status\",tenant=\"t\"} 0",
        "postern_derivation_comparisons_total{result=\"agrees\",tenant=\"t\"} 20",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn agreements_of_one_account_among_three_are_not_enough() {
    let world = World::builder().config(verified).start().await;
    for account in ["a", "b"] {
        world.list(account, "").await.json();
    }
    assert_eq!(ask_for_parts(&world, "acme-2", 25).await, FETCHED);
    assert_eq!(state(&world, "slice"), ("unproven", Some(25)));
}

/// The targets of the requests that a Refold has received.
type Targets = Arc<Mutex<Vec<String>>>;

/// A Refold with a list of 12 executions, three of which have failed. `change` changes the page for a target.
async fn listed(
    change: impl Fn(&str, &mut Value) -> StatusCode + Clone + Send + Sync + 'static,
) -> (World<std::net::SocketAddr>, Targets) {
    listed_for(verified, change).await
}

/// The same, behind a gateway with this configuration.
async fn listed_for(
    config: impl FnOnce(Configuration) -> Configuration,
    change: impl Fn(&str, &mut Value) -> StatusCode + Clone + Send + Sync + 'static,
) -> (World<std::net::SocketAddr>, Targets) {
    let targets = Targets::default();
    let seen = Arc::clone(&targets);
    let upstream = http_upstream(move |request| {
        let target = request.uri().to_string();
        let limit: u64 =
            target.split("limit=").nth(1).and_then(|rest| rest.split('&').next()?.parse().ok()).unwrap_or(10);
        let total: u64 = if target.contains("status=") { 3 } else { 12 };
        let document =
            |id: u64| json!({ "_id": id.to_string(), "status": if id < 3 { "ERRORED" } else { "COMPLETED" } });
        let docs: Vec<_> = (0..total.min(limit)).map(document).collect();
        let mut page = json!({ "docs": docs, "totalDocs": total, "limit": limit });
        let status = change(&target, &mut page);
        seen.lock().expect("no panic").push(target);
        let mut response = Response::new(Full::<Bytes>::new(page.to_string().into()));
        *response.status_mut() = status;
        async move { response }
    })
    .await;
    (World::builder().refold(upstream).config(config).start().await, targets)
}

fn take(targets: &Targets) -> Vec<String> {
    std::mem::take(&mut *targets.lock().expect("no panic"))
}

#[tokio::test]
async fn an_unproven_question_is_fetched_itself_first() {
    let (world, targets) = listed(|_, _| StatusCode::OK).await;
    world.list("a", "").await.json();
    for question in ["status=ERRORED", "status=ERRORED&limit=20", "limit=5"] {
        take(&targets);
        world.list("a", question).await.json();
        let first = take(&targets)[0].clone();
        assert!(question.split('&').all(|pair| first.contains(pair)), "{question}: {first}");
        world.gateway.until_compared().await;
    }
}

#[tokio::test]
async fn a_list_that_changes_meanwhile_is_no_agreement_and_no_difference() {
    let version = Arc::new(AtomicU64::new(0));
    let (world, _) = listed(move |_, page| {
        page["docs"][0]["version"] = version.fetch_add(1, Ordering::SeqCst).into();
        StatusCode::OK
    })
    .await;
    world.list("a", "").await.json();
    for _ in 0..10 {
        world.clock.advance(STALE);
        for question in ["limit=10", "status=ERRORED", "limit=5"] {
            world.list("a", question).await.json();
            world.gateway.until_compared().await;
        }
    }
    assert_eq!((state(&world, "slice"), state(&world, "status")), (("unproven", Some(0)), ("unproven", Some(0))));
    let metrics = world.gateway.metrics();
    assert!(metrics.contains("postern_derivation_comparisons_total{result=\"agrees\",tenant=\"t\"} 0"), "{metrics}");
    assert!(
        !metrics.contains("postern_derivation_comparisons_total{result=\"inconclusive\",tenant=\"t\"} 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_difference_that_is_not_confirmed_contradicts_nothing() {
    // The first answer to each filter differs, all later ones do not.
    let asked = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let (world, _) = listed(move |target, page| {
        if target.contains("status=") && asked.lock().expect("no panic").insert(target.to_owned()) {
            page["docs"][0]["version"] = 7.into();
        }
        StatusCode::OK
    })
    .await;
    world.list("a", "").await.json();
    world.list("a", "limit=100").await.json();
    world.list("a", "status=ERRORED").await.json();
    world.gateway.until_compared().await;
    assert_eq!(state(&world, "status"), ("unproven", Some(0)));
    let metrics = world.gateway.metrics();
    assert!(
        metrics.contains("postern_derivation_comparisons_total{result=\"inconclusive\",tenant=\"t\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_whole_list_that_fails_is_not_fetched_again_for_minutes() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::PAYLOAD_TOO_LARGE] {
        let change =
            move |target: &str, _: &mut Value| if target.contains("limit=100") { status } else { StatusCode::OK };
        let (world, targets) = listed(change).await;
        world.list("a", "").await.json();
        for minute in 0..4 {
            for question in ["status=ERRORED", "status=ERRORED&limit=20", "status=COMPLETED", ""] {
                assert_eq!(world.list("a", question).await.status, StatusCode::OK, "{status}: {question}");
                world.gateway.until_compared().await;
            }
            let whole = take(&targets).into_iter().filter(|target| target.contains("limit=100")).count();
            assert_eq!(whole, usize::from(minute == 0), "{status}");
            world.clock.advance(Duration::from_mins(1));
        }
    }
}

#[tokio::test]
async fn a_kind_is_proven_while_callers_use_up_the_budget() {
    let config = |config: Configuration| verified(config).upstream_limit(20, 5).max_wait("1m");
    let (world, targets) = listed_for(config, |_, _| StatusCode::OK).await;
    world.list("a", "").await.json();
    let requests = || targets.lock().expect("no panic").len();
    let mut callers = Vec::new();
    for number in 0.. {
        // Half of the callers ask questions whose answers could be derived.
        callers.push(world.gateway.spawn_list("a", &format!("status=ERRORED&limit={}", 4 + number % 90)));
        let (waiting, sent) = (world.gateway.waiting().callers, requests());
        callers.push(world.gateway.spawn_list("a", &format!("workflow_name={number}")));
        // The burst is granted at once.
        until(|| world.gateway.waiting().callers > waiting || requests() > sent).await;
        if world.gateway.waiting().callers == 0 {
            continue;
        }
        let before = requests();
        world.clock.advance(Duration::from_millis(51));
        until(|| requests() > before).await;
        if state(&world, "status").0 == "in_use" {
            break;
        }
        assert!(number < 1000, "{:?}", world.gateway.trust());
    }
    assert!(world.gateway.waiting().callers > 0, "callers wait all the time");
    // Only comparisons fetch whole lists: two for each.
    let all = take(&targets);
    let sources = all.iter().filter(|target| target.contains("limit=100")).count();
    let comparisons = sources + sources / 2;
    assert!(comparisons * 5 <= all.len() - comparisons + 30, "{comparisons} of {}", all.len());
}

#[tokio::test]
async fn a_check_that_agrees_costs_one_request() {
    let world = World::builder().config(verified).start().await;
    ask_for_parts(&world, "acme-2", 20).await;
    world.clock.advance(Duration::from_mins(1));
    world.list("acme-2", "limit=50").await.json();
    let requests = world.refold.requests();
    assert_eq!(world.list("acme-2", "limit=10").await.cache_status(), DERIVED);
    world.gateway.until_compared().await;
    assert_eq!(world.refold.requests(), requests + 1);
    let metrics = world.gateway.metrics();
    assert!(metrics.contains("postern_derivation_comparisons_total{result=\"agrees\",tenant=\"t\"} 21"), "{metrics}");
}

/// Proves slices and statuses by twenty answers that agree.
async fn put_to_use(world: &World<std::net::SocketAddr>) {
    world.list("a", "").await.json();
    for _ in 0..20 {
        world.clock.advance(STALE);
        world.list("a", "status=ERRORED&limit=2").await.json();
        world.gateway.until_compared().await;
    }
}

/// Returns whether the answer to a target is wrong.
type IsWrong = fn(&str) -> bool;

#[tokio::test]
async fn of_the_kinds_of_an_answer_only_the_wrong_one_is_put_out_of_use() {
    let filters = |target: &str| target.contains("status=");
    let small_pages = |target: &str| !target.contains("limit=100");
    let wrong_ones: [(IsWrong, _); 3] = [
        (filters, ("in_use", "out_of_use")),
        (small_pages, ("out_of_use", "in_use")),
        // Each by itself is right.
        (|target| target.contains("status=") && target.contains("limit=2"), ("out_of_use", "out_of_use")),
    ];
    for (is_wrong, (slice, status)) in wrong_ones {
        let begun = Arc::new(AtomicBool::new(false));
        let has_begun = Arc::clone(&begun);
        let (world, _) = listed(move |target, page| {
            if has_begun.load(Ordering::SeqCst) && is_wrong(target) {
                page["docs"][0]["version"] = 7.into();
            }
            StatusCode::OK
        })
        .await;
        put_to_use(&world).await;
        assert_eq!((state(&world, "slice").0, state(&world, "status").0), ("in_use", "in_use"));
        begun.store(true, Ordering::SeqCst);
        world.clock.advance(Duration::from_mins(1));
        world.list("a", "status=ERRORED&limit=2").await.json();
        world.gateway.until_compared().await;
        assert_eq!((state(&world, "slice").0, state(&world, "status").0), (slice, status));
    }
}

#[tokio::test]
async fn what_was_derived_by_a_kind_is_dropped_with_it() {
    let begun = Arc::new(AtomicBool::new(false));
    let has_begun = Arc::clone(&begun);
    let (world, _) = listed(move |target, page| {
        if has_begun.load(Ordering::SeqCst) && target.contains("status=") {
            page["docs"][0]["version"] = 7.into();
        }
        StatusCode::OK
    })
    .await;
    put_to_use(&world).await;
    assert_eq!(state(&world, "status").0, "in_use");
    world.clock.advance(STALE);
    assert_eq!(world.list("a", "status=ERRORED&limit=20").await.json()["docs"][0]["version"], Value::Null);
    begun.store(true, Ordering::SeqCst);
    // One of these answers is checked.
    for limit in 21..=100 {
        world.list("a", &format!("status=ERRORED&limit={limit}")).await.json();
        world.gateway.until_compared().await;
    }
    assert_eq!(state(&world, "status").0, "out_of_use");
    assert_eq!(world.list("a", "status=ERRORED&limit=20").await.json()["docs"][0]["version"], 7);
}

#[tokio::test]
async fn a_reload_keeps_what_is_proven_and_another_upstream_does_not() {
    let world = World::builder().config(verified).start().await;
    ask_for_parts(&world, "acme-2", 20).await;
    assert_eq!(state(&world, "slice").0, "in_use");
    world.gateway.reload(&world.config().set("server.drain_timeout", "300ms"));
    assert_eq!(state(&world, "slice").0, "in_use");
    let (other, _) = listed(|_, _| StatusCode::OK).await;
    world.gateway.reload(&world.config().upstream(other.refold_address()));
    assert_eq!(state(&world, "slice"), ("unproven", Some(0)));
}

#[tokio::test]
async fn trusted_derivation_asks_for_no_comparison() {
    let world = World::builder().config(|config| config.derive("trusted")).start().await;
    world.list("acme-2", "limit=50").await.json();
    assert_eq!(world.list("acme-2", "limit=10").await.cache_status(), DERIVED);
    assert_eq!(world.refold.requests(), 1);
    assert!(world.gateway.server().gateway().status().tenants[0].derivation.is_none());
}
