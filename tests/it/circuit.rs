//! Evidence against Refold's health: it opens the circuit of one tenant, or of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;

use crate::harness::{Answer, EXECUTIONS, Gateway, KEY, Setup, as_account, client_key, http_upstream, page_of};

/// A second tenant, with an org key and a client key of its own.
const OTHER_KEY: &str = "pst_other_tenant";

fn two_tenants() -> String {
    let Setup { tenant, .. } = Setup::default();
    let other = client_key("other", OTHER_KEY, "linked_accounts = [\"*\"]");
    format!("{tenant}[[tenants]]\nid = \"other\"\nmode = \"inject\"\norg_key = {{ env = \"OTHER_ORG_KEY\" }}\n{other}")
}

/// A gateway whose upstream answers with the status in the query parameter `workflow_id`, by default 200.
struct Statuses {
    gateway: Gateway,
    clock: postern::clock::Clock,
    asked: Arc<AtomicU64>,
    questions: AtomicU64,
}

impl Statuses {
    async fn start(more: &str) -> Self {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let upstream = http_upstream(move |request: Request<_>| {
            count.fetch_add(1, Ordering::SeqCst);
            let query = request.uri().to_string();
            let status = query.split_once("workflow_id=").map_or("200", |(_, rest)| &rest[..3]).to_owned();
            async move {
                let mut response = page_of(&json!({ "status": "COMPLETED" }));
                *response.status_mut() = status.parse().expect("a status");
                response
            }
        })
        .await;
        let Setup { top, clock, .. } = Setup::default();
        let gateway = Gateway::start(upstream, &format!("{top}{more}"), &two_tenants(), clock.clone());
        Self { gateway, clock, asked, questions: AtomicU64::new(0) }
    }

    /// A new question that the upstream answers with a status.
    async fn ask(&self, headers: &[(&str, &str)], status: u16) -> Answer {
        let page = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
        self.gateway.get(&format!("{EXECUTIONS}?page={page}&workflow_id={status}"), headers).await
    }

    async fn as_account(&self, account: &str, status: u16) -> StatusCode {
        self.ask(&as_account(account), status).await.status
    }

    async fn as_token(&self, token: &str, status: u16) -> StatusCode {
        self.ask(&[("authorization", &format!("Bearer {token}"))], status).await.status
    }

    async fn as_other(&self, status: u16) -> StatusCode {
        self.ask(&[("x-api-key", OTHER_KEY), ("linked_account_id", "b")], status).await.status
    }
}

#[tokio::test]
async fn answers_that_one_question_can_provoke_never_open_the_circuit() {
    let world = Statuses::start("").await;
    for status in [500, 501, 505, 599] {
        for number in 0..15 {
            assert_eq!(world.as_account(&format!("acme-{}", number % 3), status).await.as_u16(), status);
        }
        assert_eq!(world.as_account("acme-7", 200).await, StatusCode::OK, "after {status}");
    }
}

#[tokio::test]
async fn tokens_that_were_never_accepted_do_not_touch_the_circuit() {
    let world = Statuses::start("").await;
    for status in [500, 502, 503, 504] {
        for number in 0..15 {
            assert_eq!(world.as_token(&format!("made-up-{status}-{number}"), status).await.as_u16(), status);
        }
        assert_eq!(world.as_account("acme-1", 200).await, StatusCode::OK, "after {status}");
    }
    assert_eq!(world.as_token("good", 200).await, StatusCode::OK);
    // An accepted token counts like an account.
    for _ in 0..5 {
        assert_eq!(world.as_token("good", 503).await.as_u16(), 503);
        assert_eq!(world.as_account("acme-1", 503).await.as_u16(), 503);
    }
    assert_eq!(world.ask(&as_account("acme-1"), 200).await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
}

#[tokio::test]
async fn a_made_up_token_is_never_the_probe() {
    let world = Statuses::start("").await;
    for number in 0..10 {
        world.as_account(["a", "b"][number % 2], 502).await;
    }
    assert_eq!(world.ask(&as_account("a"), 200).await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
    for round in 0..3 {
        world.clock.advance(Duration::from_secs(5));
        assert_eq!(world.as_token(&format!("made-up-{round}"), 503).await.as_u16(), 503);
        assert_eq!(world.as_token(&format!("unwanted-{round}"), 500).await.as_u16(), 500);
    }
    assert_eq!(world.as_account("a", 200).await, StatusCode::OK, "the probe was left to a known caller");
    assert_eq!(world.as_account("b", 200).await, StatusCode::OK);
}

#[tokio::test]
async fn a_bad_id_does_not_keep_an_open_circuit_open() {
    let world = Statuses::start("").await;
    for number in 0..10 {
        world.as_account(["a", "b"][number % 2], 504).await;
    }
    world.clock.advance(Duration::from_secs(5));
    for status in [500, 501, 500] {
        assert_eq!(world.as_account("a", status).await.as_u16(), status);
    }
    assert_eq!(world.as_account("b", 200).await, StatusCode::OK);
    assert_eq!(world.as_account("a", 200).await, StatusCode::OK);
}

#[tokio::test]
async fn the_circuit_is_a_tenant_s_and_needs_several_accounts_or_the_only_one() {
    for status in [502, 503, 504] {
        let world = Statuses::start("").await;
        assert_eq!(world.as_account("served", 200).await, StatusCode::OK);
        for _ in 0..15 {
            assert_eq!(world.as_account("broken", status).await.as_u16(), status);
        }
        assert_eq!(world.as_account("served", 200).await, StatusCode::OK, "one account is no evidence");
        assert_eq!(world.as_account("also-broken", status).await.as_u16(), status);
        assert_eq!(world.ask(&as_account("served"), 200).await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
        assert_eq!(world.as_other(200).await, StatusCode::OK, "another tenant's circuit is closed");
    }
}

#[tokio::test]
async fn fewer_failures_than_half_of_all_leave_the_circuit_closed() {
    let world = Statuses::start("").await;
    for number in 0..40 {
        let account = ["a", "b"][number % 2];
        assert_eq!(world.as_account(account, 200).await, StatusCode::OK);
        assert_eq!(world.as_account(account, 200).await, StatusCode::OK);
        assert_eq!(world.as_account(account, 503).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 120);
}

#[tokio::test]
async fn pass_through_routes_do_not_touch_the_circuit() {
    let route = "[[pass_through]]\npath = \"/api/v1/workflow\"\nmethods = [\"GET\"]\n";
    let world = Statuses::start(route).await;
    for status in [502, 503, 504] {
        for number in 0..12 {
            let target = format!("/api/v1/workflow?page={number}&workflow_id={status}");
            let headers = as_account(["a", "b"][number % 2]);
            assert_eq!(world.gateway.get(&target, &headers).await.status.as_u16(), status);
        }
        assert_eq!(world.as_account("a", 200).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_address_without_a_server_opens_every_tenant_s_circuit() {
    // Bound and closed again: nothing listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let Setup { top, clock, .. } = Setup::default();
    let top = format!("[upstream.breaker]\nfailures = 4\n{top}");
    let gateway = Gateway::start(address.expect("a free port"), &top, &two_tenants(), clock);
    let ask = async |key: &str, page: u32| {
        let headers = [("x-api-key", key), ("linked_account_id", "a")];
        gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await.error_code()
    };
    for page in 1..=2 {
        assert_eq!(ask(KEY, page).await, "UPSTREAM_UNREACHABLE");
        assert_eq!(ask(OTHER_KEY, page).await, "UPSTREAM_UNREACHABLE");
    }
    assert_eq!(
        (ask(KEY, 3).await, ask(OTHER_KEY, 3).await),
        ("UPSTREAM_CIRCUIT_OPEN".to_owned(), "UPSTREAM_CIRCUIT_OPEN".to_owned())
    );
}
