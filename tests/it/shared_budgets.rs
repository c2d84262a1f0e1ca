//! Effect of an upstream 429 on tokens and the org, and budgets that tenants share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;

use crate::support::{
    Answer, ClientKey, Configuration, EXECUTIONS, Gateway, KEY, ScriptedRefold, Tenant, World, as_account,
};

/// A gateway whose upstream limits tokens whose name begins with `made-up`, and questions about the workflow `limited`.
struct Limited {
    world: World<ScriptedRefold>,
    questions: AtomicU64,
}

/// The status of requests that the upstream limits.
fn limit(head: &Parts) -> Option<u16> {
    let token = head.headers.get("authorization").map_or("", |value| value.to_str().expect("ASCII"));
    let is_limited = token.starts_with("Bearer made-up") || head.uri.to_string().contains("workflow_id=limited");
    is_limited.then_some(429)
}

impl Limited {
    async fn start() -> Self {
        let refold = ScriptedRefold::start().await;
        refold.answer_by(limit);
        refold.send_header("retry-after", "60");
        let world = World::builder().refold(refold).config(|config| config.max_wait("1s")).start().await;
        Self { world, questions: AtomicU64::new(0) }
    }

    async fn ask(&self, headers: &[(&str, &str)], query: &str) -> Answer {
        let page = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
        self.world.gateway.get(&format!("{EXECUTIONS}?page={page}{query}"), headers).await
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
    let limited = Limited::start().await;
    for number in 0..20 {
        let token = format!("made-up-{number}");
        for _ in 0..2 {
            let answer = limited.as_token(&token, "").await;
            assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "60"));
        }
    }
    assert_eq!(limited.world.refold.requests(), 20, "a token that was limited is not sent again");
    assert_eq!(limited.as_account().await, StatusCode::OK);
    assert_eq!(limited.as_token("good", "").await.status, StatusCode::OK);
    assert!(limited.world.gateway.metrics().contains("postern_upstream_budget_pace_ratio{tenant=\"t\"} 1\n"));
}

#[tokio::test]
async fn a_429_to_an_accepted_token_stops_it_until_its_pause_is_over() {
    let limited = Limited::start().await;
    assert_eq!(limited.as_token("one", "").await.status, StatusCode::OK);
    for _ in 0..3 {
        let answer = limited.as_token("one", LIMITED).await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "60"));
    }
    assert_eq!(limited.world.refold.requests(), 2);
    assert_eq!(limited.as_token("one", "").await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    assert_eq!(limited.as_account().await, StatusCode::OK);
    assert_eq!(limited.as_token("two", "").await.status, StatusCode::OK);
    limited.world.clock.advance(Duration::from_mins(1));
    assert_eq!(limited.as_token("one", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn two_accepted_tokens_that_are_limited_within_ten_seconds_hold_the_org() {
    for (between, held) in [(0, true), (10, true), (11, false)] {
        let limited = Limited::start().await;
        for token in ["one", "two"] {
            assert_eq!(limited.as_token(token, "").await.status, StatusCode::OK);
        }
        limited.as_token("one", LIMITED).await;
        // A token that Refold never accepted is no second witness.
        limited.as_token("made-up", "").await;
        assert_eq!(limited.as_account().await, StatusCode::OK);
        limited.world.clock.advance(Duration::from_secs(between));
        limited.as_token("two", LIMITED).await;
        let answer = limited.ask(&as_account("acme-1"), "").await;
        assert_eq!(answer.status == StatusCode::TOO_MANY_REQUESTS, held, "after {between} s");
    }
}

#[tokio::test]
async fn a_429_to_the_org_key_holds_its_org() {
    let limited = Limited::start().await;
    assert_eq!(limited.ask(&as_account("acme-1"), LIMITED).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.as_account().await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        limited.as_token("good", "").await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "it spends from the same budget"
    );
}

/// A client key of the second tenant.
const OTHER: &str = "pst_of_the_other_tenant";

fn usual() -> Tenant {
    Tenant::new("t").client_key(ClientKey::new("all", KEY))
}

/// A second tenant with the org key of the first.
fn same(id: &str) -> Tenant {
    Tenant::new(id).client_key(ClientKey::new("other", OTHER))
}

/// A budget of 20 requests at once and one a second.
fn budget(_: Configuration) -> Configuration {
    Configuration::with_default_limits().upstream_limit(1, 20).max_wait("0s")
}

async fn world(other: Tenant) -> World<ScriptedRefold> {
    let builder = World::builder().refold(ScriptedRefold::start().await).config(budget);
    builder.config(|config| config.tenants([usual(), other])).start().await
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
    let fewer = same("other").set("limits.upstream.burst", 10);
    let another = same("other").org_key("OTHER_ORG_KEY");
    let same_next = another.clone().org_key_next("ORG_KEY");
    // One of the burst is kept in reserve. The lower limit applies to a shared budget; a key that is not in use is not counted.
    for (other, expected) in [(same("other"), 19), (fewer, 9), (another, 38), (same_next, 38)] {
        let description = format!("{other:?}");
        assert_eq!(granted(&world(other).await.gateway).await, expected, "{description}");
    }
}

#[tokio::test]
async fn a_reload_neither_splits_nor_refills_a_shared_budget() {
    let world = world(same("other")).await;
    let gateway = &world.gateway;
    let ask = async |key: &str| gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "b")]).await;
    assert_eq!(granted(gateway).await, 19);
    for tenants in
        [vec![usual(), same("other")], vec![usual()], vec![usual(), same("other")], vec![usual(), same("renamed")]]
    {
        gateway.reload(&world.config().tenants(tenants));
        assert_eq!(ask(KEY).await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    }
    assert_eq!(ask(OTHER).await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    gateway.reload(&world.config().tenants([usual(), same("other").org_key("OTHER_ORG_KEY")]));
    assert_eq!(ask(OTHER).await.status, StatusCode::OK, "another key has its own");
}
