//! Refold tells of changes; and what callers may ask of the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::harness::{
    Answer, EXECUTIONS, Gateway, NEXT_ORG_KEY, ORG_KEY, Setup, as_account, configuration, http_upstream, page_of,
};
use postern::clock::Clock;

struct World {
    gateway: Arc<Gateway>,
    clock: Clock,
    /// What the pages of the upstream show.
    version: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

async fn world(tenant_lines: &str) -> World {
    let (version, asked) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    let (shown, count) = (Arc::clone(&version), Arc::clone(&asked));
    let upstream = http_upstream(move |request| {
        let (shown, count) = (Arc::clone(&shown), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let version = shown.load(Ordering::SeqCst);
            // Some are slow to come back with what they saw.
            for _ in 0..fastrand::u8(..64) {
                tokio::task::yield_now().await;
            }
            if request.method() == Method::POST {
                shown.fetch_add(1, Ordering::SeqCst);
            }
            page_of(&json!({ "status": "COMPLETED", "version": version }))
        }
    })
    .await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let top = top.replace("while_revalidate = \"0s\"", "while_revalidate = \"1h\"");
    let text = configuration(upstream, &top, &tenant)
        .replace("org_key = ", &format!("{tenant_lines}org_key_next = {{ env = \"NEXT_ORG_KEY\" }}\norg_key = "));
    World { gateway: Arc::new(Gateway::start_with(&text, clock.clone())), clock, version, asked }
}

const ON: &str = "webhooks = true\n";

fn signature(key: &str, body: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
    postern::digest::Hex(aws_lc_rs::hmac::sign(&key, body.as_bytes()).as_ref()).to_string()
}

impl World {
    async fn ask(&self, account: &str) -> u64 {
        let answer = self.gateway.get(EXECUTIONS, &as_account(account)).await;
        answer.json()["docs"][0]["version"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
    }

    async fn deliver(&self, body: &str, signature: &str) -> Answer {
        self.gateway.post("/hooks/refold/t", &[("x-cobalt-signature", signature)], body).await
    }
}

#[tokio::test]
async fn a_signed_delivery_drops_the_pages_of_the_accounts_it_names_and_no_others() {
    let world = world(ON).await;
    for account in ["a", "b"] {
        assert_eq!(world.ask(account).await, 1);
    }
    world.version.store(2, Ordering::SeqCst);
    let body = json!({ "event": "x", "data": [{ "linked_account_id": "a" }] }).to_string();
    for key in [ORG_KEY, NEXT_ORG_KEY, ORG_KEY] {
        let taken = world.deliver(&body, &signature(key, &body)).await;
        assert_eq!((taken.status, taken.body.len()), (StatusCode::NO_CONTENT, 0));
    }
    assert_eq!((world.ask("a").await, world.ask("b").await), (2, 1));
    // One that names nobody may be about anybody.
    let nobody = "not JSON at all";
    world.deliver(nobody, &signature(ORG_KEY, nobody).to_uppercase()).await;
    assert_eq!(world.ask("b").await, 2);
}

#[tokio::test]
async fn a_session_tokens_pages_are_dropped_with_any_accounts() {
    let world = world(ON).await;
    let ask = async || {
        let answer = world.gateway.get(EXECUTIONS, &[("authorization", "Bearer some-session")]).await;
        answer.json()["docs"][0]["version"].as_u64().expect("a page")
    };
    assert_eq!(ask().await, 1);
    world.version.store(2, Ordering::SeqCst);
    let body = json!({ "linked_account_id": "a" }).to_string();
    world.deliver(&body, &signature(ORG_KEY, &body)).await;
    assert_eq!(ask().await, 2);
}

#[tokio::test]
async fn a_delivery_that_is_not_signed_with_the_org_key_changes_nothing() {
    let world = world(ON).await;
    assert_eq!(world.ask("a").await, 1);
    world.version.store(2, Ordering::SeqCst);
    let body = json!({ "linked_account_id": "a" }).to_string();
    let good = signature(ORG_KEY, &body);
    for bad in
        ["", "00", &good[..62], &format!("{good}00"), &signature("another", &body), &signature(ORG_KEY, "x"), "zz"]
    {
        let refused = world.deliver(&body, bad).await;
        assert_eq!(
            (refused.status, refused.error_code().as_str()),
            (StatusCode::UNAUTHORIZED, "SERVER_ERROR"),
            "{bad}"
        );
    }
    let elsewhere = world.gateway.post("/hooks/refold/other", &[("x-cobalt-signature", &good)], &body).await;
    assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED);
    let large = " ".repeat(1_100_000);
    assert_eq!(world.deliver(&large, &signature(ORG_KEY, &large)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.ask("a").await, 1);
    let off = super::webhooks::world("").await;
    assert_eq!(off.deliver(&body, &good).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn after_a_delivery_or_a_rerun_no_later_answer_shows_an_older_page_whatever_is_under_way() {
    let world = Arc::new(world(ON).await);
    let accounts = ["a", "b", "c"];
    let mut dice = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        // Fetches that began before, and come back before, between or after.
        let under_way: Vec<_> = (0..6)
            .map(|number| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { world.ask(accounts[number % 3]).await })
            })
            .collect();
        for _ in 0..dice.u8(..40) {
            tokio::task::yield_now().await;
        }
        let account = accounts[round % 3];
        if dice.bool() {
            world.version.fetch_add(1, Ordering::SeqCst);
            let body = json!({ "linked_account_id": account }).to_string();
            assert_eq!(world.deliver(&body, &signature(ORG_KEY, &body)).await.status, StatusCode::NO_CONTENT);
        } else {
            let rerun = world.gateway.send(Method::POST, &format!("{EXECUTIONS}/1/rerun"), &as_account(account)).await;
            assert_eq!(rerun.status, StatusCode::OK);
        }
        let least = world.version.load(Ordering::SeqCst);
        for _ in 0..4 {
            let seen = world.ask(account).await;
            assert!(seen >= least, "round {round}: {seen} is older than {least}");
        }
        for task in under_way {
            task.await.expect("it is answered");
        }
        let seen = world.ask(account).await;
        assert!(seen >= least, "round {round}, at the end: {seen} is older than {least}");
        world.clock.advance(Duration::from_millis(dice.u64(..3000)));
    }
}

#[tokio::test]
async fn what_the_simulated_refold_tells_of_is_seen_long_before_its_lifetime_is_over() {
    let setup = Setup::default();
    let tenant = format!("webhooks = true\n[tenants.freshness]\nlive = \"1h\"\nrecent = \"1h\"\n{}", setup.tenant);
    let world = Setup { tenant, ..setup }.start().await;
    let before = world.list("acme-1", "").await.json()["totalDocs"].as_u64().expect("a number");
    let url = format!("http://{}/hooks/refold/t", world.gateway.address);
    let body = json!({ "webhook_url": url, "webhook_events": ["execution.running"] }).to_string();
    let register = async |key: &str| {
        let request = http::Request::post(format!("http://{}/api/v2/public/webhook", world.refold_address));
        let request = request.header("x-api-key", key).body(Full::new(Bytes::from(body.clone()))).expect("a request");
        let client = Client::builder(TokioExecutor::new()).build_http();
        client.request(request).await.expect("an answer").status()
    };
    assert_eq!((register("another").await, register(ORG_KEY).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    world.clock.advance(Duration::from_secs(19));
    assert_eq!(world.list("acme-1", "").await.json()["totalDocs"], before);
    // One more begins; its delivery is on its way.
    loop {
        world.clock.advance(Duration::from_millis(300));
        let answer = world.list("acme-1", "").await;
        if answer.json()["totalDocs"] == before + 1 {
            break;
        }
        assert!(world.clock.now().as_nanos() < 3_000_000_000_000, "{answer:?}");
    }
}

#[tokio::test]
async fn callers_may_ask_of_the_cache_what_their_tenant_allows() {
    let all = "request_directives = [\"no-cache\", \"no-store\", \"max-age\", \"min-fresh\", \"max-stale\", \"only-if-cached\"]\n";
    let world = world(all).await;
    let ask = async |directive: &str| {
        let headers = [as_account("a").as_slice(), &[("cache-control", directive)]].concat();
        world.gateway.get(EXECUTIONS, &headers).await
    };
    let asked = || world.asked.load(Ordering::SeqCst);
    let nothing = ask("only-if-cached").await;
    assert_eq!(
        (nothing.status, nothing.error_code().as_str(), asked()),
        (StatusCode::GATEWAY_TIMEOUT, "NOT_CACHED", 0)
    );
    let unkept = ask("no-store").await;
    assert_eq!((unkept.header("cache-status"), unkept.header("cache-control")), ("postern; fwd=request", "no-store"));
    assert_eq!(ask("only-if-cached").await.status, StatusCode::GATEWAY_TIMEOUT, "it has left nothing behind");
    assert_eq!(ask("").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    for (directive, status) in [
        ("only-if-cached", "postern; hit; ttl=5"),
        ("max-age=0", "postern; hit; ttl=5"),
        ("no-cache", "postern; fwd=request; stored"),
        ("min-fresh=6", "postern; fwd=request; stored"),
        ("min-fresh=5", "postern; hit; ttl=5"),
    ] {
        assert_eq!(ask(directive).await.header("cache-status"), status, "{directive}");
    }
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(ask("max-age=3").await.header("cache-status"), "postern; hit; ttl=2");
    assert_eq!(ask("max-age=2").await.header("cache-status"), "postern; fwd=request; stored");
    world.clock.advance(Duration::from_secs(15));
    let before = asked();
    assert_eq!(ask("max-stale=20").await.header("cache-status"), "postern; hit; ttl=-10");
    assert_eq!(asked(), before, "it takes a stale one, so nothing is fetched");
}

#[tokio::test]
async fn what_a_tenant_does_not_allow_is_not_heard() {
    let world = world("").await;
    world.ask("a").await;
    let headers = [as_account("a").as_slice(), &[("cache-control", "no-cache, no-store, max-age=0")]].concat();
    assert_eq!(world.gateway.get(EXECUTIONS, &headers).await.header("cache-status"), "postern; hit; ttl=5");
}
