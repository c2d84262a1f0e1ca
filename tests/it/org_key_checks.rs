//! Checks whether Refold accepts the org keys: apart from any request, since a 401 to one may be about its linked account.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    ADMIN, EXECUTIONS, Gateway, NEXT_ORG_KEY, ORG_KEY, Setup, as_account, configuration, http_upstream, page_of,
};

const CHECK: &str = "/api/v2/public/linked-account?page=1&limit=1";

/// A gateway whose upstream has one status for checks of the org key and one for executions.
struct Checked {
    gateway: Gateway,
    clock: postern::clock::Clock,
    key_status: Arc<AtomicU16>,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicU64>,
    configuration: String,
}

impl Checked {
    async fn start(setting: &str, key_status: u16, tenant_lines: &str) -> Self {
        let key_status = Arc::new(AtomicU16::new(key_status));
        let status = Arc::new(AtomicU16::new(200));
        let checks = Arc::new(AtomicU64::new(0));
        let (of_keys, of_executions, count) = (Arc::clone(&key_status), Arc::clone(&status), Arc::clone(&checks));
        let upstream = http_upstream(move |request: Request<_>| {
            let is_check = request.uri() == CHECK;
            if is_check {
                let key = request.headers().get("x-api-key").and_then(|key| key.to_str().ok()).expect("the org key");
                assert!([ORG_KEY, NEXT_ORG_KEY].contains(&key) && !request.headers().contains_key("linked_account_id"));
                count.fetch_add(1, Ordering::SeqCst);
            }
            let status = if is_check { &of_keys } else { &of_executions }.load(Ordering::SeqCst);
            async move {
                let mut page = page_of(&json!({ "status": "COMPLETED" }));
                *page.status_mut() = StatusCode::from_u16(status).expect("a status");
                page
            }
        })
        .await;
        let Setup { top, tenant, clock, .. } = Setup::default();
        let top = format!("verify_key = \"{setting}\"\n{top}{ADMIN}");
        let configuration = configuration(upstream, &top, &format!("{tenant_lines}{tenant}"));
        let gateway = Gateway::start_with(&configuration, clock.clone());
        Self { gateway, clock, key_status, status, checks, configuration }
    }

    /// Lets time pass until a condition holds.
    async fn until(&self, mut done: impl AsyncFnMut() -> bool) {
        let holds = async {
            while !done().await {
                self.clock.advance(Duration::from_millis(500));
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), holds).await.expect("it holds in the end");
    }

    async fn until_checked(&self, checks: u64) {
        self.until(async || self.checks.load(Ordering::SeqCst) >= checks).await;
    }

    async fn ask(&self, account: &str) -> String {
        let answer = self.gateway.get(EXECUTIONS, &as_account(account)).await;
        if answer.status == StatusCode::OK { "OK".to_owned() } else { answer.error_code() }
    }

    /// The status of `/readyz`, and what `/status` says of the tenant's key.
    async fn state(&self) -> (u16, Value) {
        let ready = self.gateway.admin("/readyz", &[]).await;
        let status = self.gateway.admin("/status", &[]).await.json();
        (ready.status.as_u16(), status["tenants"][0]["credential_accepted"].clone())
    }

    async fn until_state(&self, ready: u16, accepted: bool) {
        self.until(async || self.state().await == (ready, json!(accepted))).await;
    }
}

#[tokio::test]
async fn a_401_for_unknown_accounts_says_nothing_about_the_key() {
    for setting in ["warn", "require", "off"] {
        let world = Checked::start(setting, 200, "").await;
        world.until_state(200, true).await;
        world.status.store(401, Ordering::SeqCst);
        let before = world.checks.load(Ordering::SeqCst);
        for account in ["unknown", "gone", "never-was"] {
            assert_eq!(world.ask(account).await, "UPSTREAM_CREDENTIAL_REJECTED");
            assert_eq!(world.state().await, (200, json!(true)), "{setting}");
        }
        if setting != "off" {
            world.until_checked(before + 1).await;
        }
        assert_eq!(world.state().await, (200, json!(true)), "{setting}");
    }
}

#[tokio::test]
async fn a_refused_key_shows_before_the_first_request_and_leaves_the_tenant_ready() {
    for lines in ["", "org_key_next = { env = \"NEXT_ORG_KEY\" }\n"] {
        let world = Checked::start("warn", 401, lines).await;
        world.until_state(200, false).await;
        let metrics = world.gateway.metrics();
        assert!(metrics.contains("postern_org_key_accepted{tenant=\"t\"} 0\n"), "{metrics}");
        assert!(metrics.contains("postern_tenant_ready{tenant=\"t\"} 1\n"));
        assert_eq!(world.ask("a").await, "OK", "a request that succeeds is proof");
        assert_eq!(world.state().await, (200, json!(true)));
    }
}

#[tokio::test]
async fn a_key_that_is_refused_later_shows_after_a_request_and_recovers_with_one() {
    for setting in ["warn", "require"] {
        let world = Checked::start(setting, 200, "").await;
        world.until_checked(1).await;
        world.until_state(200, true).await;
        world.key_status.store(401, Ordering::SeqCst);
        world.status.store(401, Ordering::SeqCst);
        assert_eq!(world.ask("a").await, "UPSTREAM_CREDENTIAL_REJECTED");
        world.until_state(200, false).await;
        world.key_status.store(200, Ordering::SeqCst);
        assert_eq!(world.ask("b").await, "UPSTREAM_CREDENTIAL_REJECTED");
        world.until_state(200, true).await;
    }
}

#[tokio::test]
async fn require_keeps_a_tenant_not_ready_until_the_key_is_accepted_or_unknown() {
    for later in [200, 404, 429, 500] {
        let world = Checked::start("require", 401, "").await;
        world.until_state(503, false).await;
        world.until_checked(3).await;
        assert_eq!(world.state().await, (503, json!(false)));
        world.key_status.store(later, Ordering::SeqCst);
        world.until_state(200, true).await;
    }
}

#[tokio::test]
async fn one_of_two_keys_is_enough() {
    for (setting, statuses) in [("require", [401, 200]), ("warn", [401, 403])] {
        let world = Checked::start(setting, statuses[0], "org_key_next = { env = \"NEXT_ORG_KEY\" }\n").await;
        world.until_checked(2).await;
        world.key_status.store(statuses[1], Ordering::SeqCst);
        if setting == "warn" {
            world.status.store(401, Ordering::SeqCst);
            assert_eq!(world.ask("a").await, "UPSTREAM_CREDENTIAL_REJECTED");
        }
        world.until_state(200, true).await;
    }
}

#[tokio::test]
async fn a_new_key_after_a_reload_is_checked_and_off_never_asks() {
    let world = Checked::start("warn", 401, "").await;
    world.until_checked(1).await;
    let with_next = world
        .configuration
        .replace("[[tenants.client_keys]]", "org_key_next = { env = \"NEXT_ORG_KEY\" }\n[[tenants.client_keys]]");
    world.key_status.store(200, Ordering::SeqCst);
    world.gateway.reload(&with_next);
    world.until_state(200, true).await;
    world.until_checked(2).await;
    let off = Checked::start("off", 401, "").await;
    off.status.store(401, Ordering::SeqCst);
    for account in ["a", "b", "c"] {
        assert_eq!(off.ask(account).await, "UPSTREAM_CREDENTIAL_REJECTED");
        off.clock.advance(Duration::from_mins(1));
    }
    assert_eq!((off.checks.load(Ordering::SeqCst), off.state().await), (0, (200, json!(true))));
}
