//! Webhooks of Refold: signed deliveries drop cached pages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use postern::clock::Clock;
use serde_json::json;

use crate::support::connection::Connection;
use crate::support::{
    Answer, Client, Dice, EXECUTIONS, Gateway, NEXT_ORG_KEY, ORG_KEY, Tenant, World, as_account, eventually,
    http_upstream, page_of, seeded, signature,
};

const SEED: u64 = 7;

/// A gateway with webhooks, in front of an upstream whose pages show a version.
struct Versioned {
    gateway: Gateway,
    clock: Clock,
    version: Arc<AtomicU64>,
}

/// An upstream whose pages show the present version; a rerun makes the next one.
async fn upstream(version: &Arc<AtomicU64>) -> SocketAddr {
    let (shown, dice) = (Arc::clone(version), Dice::new(SEED));
    http_upstream(move |request| {
        let (shown, pause) = (Arc::clone(&shown), dice.byte() % 64);
        async move {
            let version = shown.load(Ordering::SeqCst);
            // Some responses arrive long after the page was read.
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
            if request.method() == Method::POST {
                shown.fetch_add(1, Ordering::SeqCst);
            }
            page_of(&json!({ "status": "COMPLETED", "version": version }))
        }
    })
    .await
}

impl Versioned {
    async fn start(change: fn(Tenant) -> Tenant) -> Self {
        let version = Arc::new(AtomicU64::new(1));
        let builder = World::builder().refold(upstream(&version).await).tenant(change);
        let builder = builder.tenant(|tenant| tenant.org_key_next("NEXT_ORG_KEY"));
        let World { gateway, clock, .. } = builder.config(|config| config.while_revalidate("1h")).start().await;
        Self { gateway, clock, version }
    }

    /// The version of an account's page.
    async fn list(&self, account: &str) -> u64 {
        version(&self.gateway.list(account, "").await)
    }

    async fn deliver(&self, body: &str, signature: &str) -> Answer {
        self.gateway.post("/hooks/refold/t", &[("x-cobalt-signature", signature)], body).await
    }
}

fn version(answer: &Answer) -> u64 {
    answer.first_document()["version"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
}

#[tokio::test]
async fn a_signed_delivery_drops_only_the_pages_of_its_accounts() {
    let world = Versioned::start(Tenant::webhooks).await;
    for account in ["a", "b"] {
        assert_eq!(world.list(account).await, 1);
    }
    world.version.store(2, Ordering::SeqCst);
    let body = json!({ "event": "x", "data": [{ "linked_account_id": "a" }] }).to_string();
    for key in [ORG_KEY, NEXT_ORG_KEY, ORG_KEY] {
        let taken = world.deliver(&body, &signature(key, &body)).await;
        assert_eq!((taken.status, taken.body.len()), (StatusCode::NO_CONTENT, 0));
    }
    assert_eq!((world.list("a").await, world.list("b").await), (2, 1));
    // A delivery that names no account may be about any.
    let unnamed = "not JSON at all";
    world.deliver(unnamed, &signature(ORG_KEY, unnamed).to_uppercase()).await;
    assert_eq!(world.list("b").await, 2);
}

#[tokio::test]
async fn any_delivery_drops_the_pages_of_session_tokens() {
    let world = Versioned::start(Tenant::webhooks).await;
    let ask = async || version(&world.gateway.get(EXECUTIONS, &[("authorization", "Bearer some-session")]).await);
    assert_eq!(ask().await, 1);
    world.version.store(2, Ordering::SeqCst);
    let body = json!({ "linked_account_id": "a" }).to_string();
    world.deliver(&body, &signature(ORG_KEY, &body)).await;
    assert_eq!(ask().await, 2);
}

#[tokio::test]
async fn a_delivery_with_a_wrong_signature_changes_nothing() {
    let world = Versioned::start(Tenant::webhooks).await;
    assert_eq!(world.list("a").await, 1);
    world.version.store(2, Ordering::SeqCst);
    let body = json!({ "linked_account_id": "a" }).to_string();
    let good = signature(ORG_KEY, &body);
    for bad in
        ["", "00", &good[..62], &format!("{good}00"), &signature("another", &body), &signature(ORG_KEY, "x"), "zz"]
    {
        assert_eq!(world.deliver(&body, bad).await.error(), (401, "SERVER_ERROR".to_owned()), "{bad}");
    }
    let elsewhere = world.gateway.post("/hooks/refold/other", &[("x-cobalt-signature", &good)], &body).await;
    assert_eq!(elsewhere.status, StatusCode::UNAUTHORIZED);
    let large = "x".repeat(1_100_000);
    assert_eq!(world.deliver(&large, &signature(ORG_KEY, "x")).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.list("a").await, 1);
    let off = Versioned::start(|tenant| tenant).await;
    assert_eq!(off.deliver(&body, &good).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_delivery_without_a_signature_is_refused_before_its_body() {
    let world = Versioned::start(Tenant::webhooks).await;
    let digits = "0".repeat(64);
    let twice = format!("x-cobalt-signature: {digits}\r\n").repeat(2);
    let mut bodies = Vec::new();
    for tenant in ["t", "unknown", "%00"] {
        for lines in ["", "x-cobalt-signature: \r\n", "x-cobalt-signature: 00\r\n", &twice] {
            for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
                let mut connection = Connection::open(world.gateway.address).await;
                let head = format!("POST /hooks/refold/{tenant} HTTP/1.1\r\nHost: a\r\n{framing}\r\n{lines}\r\n");
                connection.write(head).await;
                let answer = connection.receive_until("}").await;
                assert!(answer.starts_with("HTTP/1.1 401 "), "{tenant} {lines}: {answer}");
                bodies.push(
                    answer.split("\r\n\r\n").nth(1).expect("a body").split("request_id").next().map(str::to_owned),
                );
            }
        }
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    // With the form of a signature, an unknown tenant's body is read too.
    for tenant in ["t", "unknown"] {
        let mut connection = Connection::open(world.gateway.address).await;
        let lines = format!("Content-Length: 70000\r\nExpect: 100-continue\r\nx-cobalt-signature: {digits}\r\n");
        connection.write(format!("POST /hooks/refold/{tenant} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
        assert!(connection.receive_until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "), "{tenant}");
        connection.write("x".repeat(70_000)).await;
        assert!(connection.receive().await.starts_with("HTTP/1.1 401 "), "{tenant}");
    }
}

#[tokio::test]
async fn a_delivery_that_is_not_kept_drops_all_pages_of_the_tenant() {
    for (length, versions) in [(60_000, (2, 1)), (65_536, (2, 1)), (65_537, (2, 2)), (3_000_000, (2, 2))] {
        let world = Versioned::start(Tenant::webhooks).await;
        assert_eq!((world.list("a").await, world.list("b").await), (1, 1));
        world.version.store(2, Ordering::SeqCst);
        let named = json!({ "linked_account_id": "a" }).to_string();
        let body = named.clone() + &" ".repeat(length - named.len());
        assert_eq!(world.deliver(&body, &signature(ORG_KEY, &body)).await.status, StatusCode::NO_CONTENT);
        assert_eq!((world.list("a").await, world.list("b").await), versions, "{length}");
    }
    let world = Versioned::start(Tenant::webhooks).await;
    let mut connection = Connection::open(world.gateway.address).await;
    let lines = format!("Content-Length: 20000000\r\nx-cobalt-signature: {}\r\n", "0".repeat(64));
    connection.write(format!("POST /hooks/refold/t HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    assert!(connection.receive_until("}").await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn all_deliveries_together_keep_a_bounded_length() {
    let world = Versioned::start(Tenant::webhooks).await;
    let lines = format!("Content-Length: 65536\r\nx-cobalt-signature: {}\r\n", "0".repeat(64));
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut connection = Connection::open(world.gateway.address).await;
        let head = format!("POST /hooks/refold/unknown HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        connection.write(head + &"x".repeat(65_535)).await;
        open.push(connection);
    }
    let body = format!("{:<100}", json!({ "linked_account_id": "a" }).to_string());
    let signed = signature(ORG_KEY, &body);
    // The pages of other accounts are dropped too while the memory is in use.
    let mut drops_others = async || {
        assert_eq!((world.list("a").await, world.list("b").await).0, world.version.load(Ordering::SeqCst));
        let next = world.version.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(world.deliver(&body, &signed).await.status, StatusCode::NO_CONTENT);
        assert_eq!(world.list("a").await, next);
        world.list("b").await == next
    };
    eventually(&mut drops_others).await;
    drop(open);
    eventually(async || !drops_others().await).await;
}

#[tokio::test]
async fn no_response_after_a_delivery_or_rerun_shows_an_older_page() {
    let world = Versioned::start(Tenant::webhooks).await;
    let accounts = ["a", "b", "c"];
    let mut dice = seeded(SEED);
    for round in 0..60 {
        // Fetches that begin before, and end before, between or after.
        let pending: Vec<_> = (0..6).map(|number| world.gateway.spawn_list(accounts[number % 3], "")).collect();
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
            let seen = world.list(account).await;
            assert!(seen >= least, "round {round}: {seen} is older than {least}");
        }
        for pending in pending {
            version(&pending.answer().await);
        }
        let seen = world.list(account).await;
        assert!(seen >= least, "round {round}, at the end: {seen} is older than {least}");
        world.clock.advance(Duration::from_millis(dice.u64(..3000)));
    }
}

#[tokio::test]
async fn a_delivery_of_the_simulated_refold_drops_fresh_pages() {
    let fresh = |tenant: Tenant| tenant.webhooks().set("freshness.live", "1h").set("freshness.recent", "1h");
    let world = World::builder().tenant(fresh).start().await;
    let before = world.list("acme-1", "").await.total();
    let url = format!("http://{}/hooks/refold/t", world.gateway.address);
    let body = json!({ "webhook_url": url, "webhook_events": ["execution.running"] }).to_string();
    let refold = Client::new(world.refold_address());
    let register = async |key: &str| refold.post("/api/v2/public/webhook", &[("x-api-key", key)], &body).await.status;
    assert_eq!((register("another").await, register(ORG_KEY).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    // The next execution of this account begins 20 seconds after the start of the clock.
    world.clock.advance(Duration::from_secs(19));
    assert_eq!(world.list("acme-1", "").await.total(), before);
    // It begins; its delivery comes in while the clock stands.
    world.clock.advance(Duration::from_secs(1));
    eventually(async || world.list("acme-1", "").await.total() == before + 1).await;
}
