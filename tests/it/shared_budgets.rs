//! Effect of an upstream 429 on tokens and the org, and budgets that tenants share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;

use crate::harness::{
    Answer, EXECUTIONS, Gateway, KEY, Setup, as_account, client_key, configuration, http_upstream, page_of,
};

/// A gateway whose upstream limits tokens whose name begins with `made-up`, and questions about the workflow `limited`.
struct Limited {
    gateway: Gateway,
    clock: postern::clock::Clock,
    asked: Arc<AtomicU64>,
    questions: AtomicU64,
}

impl Limited {
    async fn start() -> Self {
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let upstream = http_upstream(move |request: Request<_>| {
            count.fetch_add(1, Ordering::SeqCst);
            let header =
                |name: &str| request.headers().get(name).map_or("", |value| value.to_str().expect("ASCII")).to_owned();
            let (token, query) = (header("authorization"), request.uri().to_string());
            async move {
                let mut response = page_of(&json!({ "status": "COMPLETED" }));
                if token.starts_with("Bearer made-up") || query.contains("workflow_id=limited") {
                    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                    response.headers_mut().insert("retry-after", "60".parse().expect("a value"));
                }
                response
            }
        })
        .await;
        let Setup { top, tenant, clock, .. } = Setup::default();
        let top = top.replace("[limits.upstream]", "[limits.upstream]\nmax_wait = \"1s\"");
        let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
        Self { gateway, clock, asked, questions: AtomicU64::new(0) }
    }

    async fn ask(&self, headers: &[(&str, &str)], query: &str) -> Answer {
        let page = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
        self.gateway.get(&format!("{EXECUTIONS}?page={page}{query}"), headers).await
    }

    async fn as_token(&self, token: &str, query: &str) -> Answer {
        self.ask(&[("authorization", &format!("Bearer {token}"))], query).await
    }

    async fn as_account(&self) -> StatusCode {
        self.ask(&as_account("acme-1"), "").await.status
    }
}

const LIMITED: &str = "&workflow_id=limited";

#[tokio::test]
async fn a_429_to_made_up_tokens_stops_those_tokens_and_no_one_else() {
    let world = Limited::start().await;
    for number in 0..20 {
        let token = format!("made-up-{number}");
        for _ in 0..2 {
            let answer = world.as_token(&token, "").await;
            assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "60"));
        }
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 20, "a token that was limited is not sent again");
    assert_eq!(world.as_account().await, StatusCode::OK);
    assert_eq!(world.as_token("good", "").await.status, StatusCode::OK);
    assert!(world.gateway.metrics().contains("postern_upstream_budget_pace_ratio{tenant=\"t\"} 1\n"));
}

#[tokio::test]
async fn a_429_to_an_accepted_token_stops_it_until_its_pause_is_over() {
    let world = Limited::start().await;
    assert_eq!(world.as_token("one", "").await.status, StatusCode::OK);
    for _ in 0..3 {
        let answer = world.as_token("one", LIMITED).await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "60"));
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 2);
    assert_eq!(world.as_token("one", "").await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    assert_eq!(world.as_account().await, StatusCode::OK);
    assert_eq!(world.as_token("two", "").await.status, StatusCode::OK);
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(world.as_token("one", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn two_accepted_tokens_that_are_limited_within_ten_seconds_hold_the_org() {
    for (between, held) in [(0, true), (10, true), (11, false)] {
        let world = Limited::start().await;
        for token in ["one", "two"] {
            assert_eq!(world.as_token(token, "").await.status, StatusCode::OK);
        }
        world.as_token("one", LIMITED).await;
        // A token that Refold never accepted is no second witness.
        world.as_token("made-up", "").await;
        assert_eq!(world.as_account().await, StatusCode::OK);
        world.clock.advance(Duration::from_secs(between));
        world.as_token("two", LIMITED).await;
        let answer = world.ask(&as_account("acme-1"), "").await;
        assert_eq!(answer.status == StatusCode::TOO_MANY_REQUESTS, held, "after {between} s");
    }
}

#[tokio::test]
async fn a_429_to_the_org_key_holds_its_org() {
    let world = Limited::start().await;
    assert_eq!(world.ask(&as_account("acme-1"), LIMITED).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.as_account().await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        world.as_token("good", "").await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "it spends from the same budget"
    );
}

/// Tenants `t` and `other`, and a budget of 20 requests at once and one a second.
fn tenants(other: &str) -> String {
    let Setup { tenant, .. } = Setup::default();
    format!(
        "{tenant}[[tenants]]\nid = \"other\"\nmode = \"inject\"\n{other}\n{}",
        client_key("other", OTHER, "linked_accounts = [\"*\"]")
    )
}

const OTHER: &str = "pst_of_the_other_tenant";
const BUDGET: &str = "[limits.upstream]\nper_second = 1\nburst = 20\nmax_wait = \"0s\"\n";
const SAME_KEY: &str = "org_key = { env = \"ORG_KEY\" }";
const OTHER_KEY: &str = "org_key = { env = \"OTHER_ORG_KEY\" }";

async fn good_upstream() -> std::net::SocketAddr {
    http_upstream(|_| async { page_of(&json!({ "status": "COMPLETED" })) }).await
}

/// The number of requests that reach the upstream of 30 by each tenant's caller.
async fn granted(gateway: &Gateway) -> usize {
    let mut granted = 0;
    for page in 1..=30 {
        for key in [KEY, OTHER] {
            let headers = [("x-api-key", key), ("linked_account_id", "a")];
            let answer = gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await;
            granted += usize::from(answer.status == StatusCode::OK);
        }
    }
    granted
}

#[tokio::test]
async fn tenants_with_one_org_key_share_its_budget_and_others_do_not() {
    let fewer = format!("{SAME_KEY}\nlimits.upstream = {{ burst = 10 }}");
    let same_next = format!("{OTHER_KEY}\norg_key_next = {{ env = \"ORG_KEY\" }}");
    // One of the burst is kept in reserve. The lower limit applies to a shared budget; a key that is not in use is not counted.
    for (other, expected) in [(SAME_KEY, 19), (&*fewer, 9), (OTHER_KEY, 38), (&same_next, 38)] {
        let Setup { clock, .. } = Setup::default();
        let gateway = Gateway::start(good_upstream().await, BUDGET, &tenants(other), clock);
        assert_eq!(granted(&gateway).await, expected, "{other}");
    }
}

#[tokio::test]
async fn a_reload_neither_splits_nor_refills_a_shared_budget() {
    let Setup { clock, tenant, .. } = Setup::default();
    let upstream = good_upstream().await;
    let of = |tenants: &str| configuration(upstream, BUDGET, tenants);
    let gateway = Gateway::start_with(&of(&tenants(SAME_KEY)), clock);
    assert_eq!(granted(&gateway).await, 19);
    for tenants in [
        tenants(SAME_KEY),
        tenant,
        tenants(SAME_KEY),
        tenants(SAME_KEY).replace("\"other\"\nmode", "\"renamed\"\nmode"),
    ] {
        gateway.reload(&of(&format!("{tenants}\n")));
        let headers = [("x-api-key", KEY), ("linked_account_id", "b")];
        assert_eq!(gateway.get(EXECUTIONS, &headers).await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    }
    let headers = [("x-api-key", OTHER), ("linked_account_id", "b")];
    assert_eq!(gateway.get(EXECUTIONS, &headers).await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    gateway.reload(&of(&tenants(OTHER_KEY)));
    assert_eq!(gateway.get(EXECUTIONS, &headers).await.status, StatusCode::OK, "another key has its own");
}
