//! Checks whether Refold accepts the org keys: apart from any request, since a 401 to one may be about its linked account.

use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use crate::support::{NEXT_ORG_KEY, ORG_KEY, ScriptedRefold, Tenant, World, eventually};

const CHECK: &str = "/api/v2/public/linked-account?page=1&limit=1";

/// A gateway whose upstream has one status for checks of the org key and one for executions.
struct Checked(World<ScriptedRefold>);

fn is_check(head: &Parts) -> bool {
    head.uri == CHECK
}

fn with_next(tenant: Tenant) -> Tenant {
    tenant.org_key_next("NEXT_ORG_KEY")
}

impl Checked {
    async fn start(setting: &str, key_status: u16) -> Self {
        Self::start_with(setting, key_status, |tenant| tenant).await
    }

    async fn start_with(setting: &str, key_status: u16, change: impl FnOnce(Tenant) -> Tenant) -> Self {
        let refold = ScriptedRefold::start().await;
        let builder = World::builder().refold(refold.clone()).config(|config| config.verify_key(setting).admin());
        answer_checks_with(&refold, key_status);
        Self(builder.tenant(change).start().await)
    }

    fn answer_checks_with(&self, status: u16) {
        answer_checks_with(&self.0.refold, status);
    }

    /// The number of checks that have come in. Each has an org key and nothing of a caller's.
    fn checks(&self) -> usize {
        let checks: Vec<_> = self.0.refold.received().into_iter().filter(is_check).collect();
        for head in &checks {
            let key = head.headers.get("x-api-key").and_then(|key| key.to_str().ok()).expect("the org key");
            assert!([ORG_KEY, NEXT_ORG_KEY].contains(&key) && !head.headers.contains_key("linked_account_id"));
        }
        checks.len()
    }

    /// Lets time pass until a condition holds.
    async fn until(&self, mut condition: impl AsyncFnMut() -> bool) {
        eventually(async || {
            let holds = condition().await;
            if !holds {
                self.0.clock.advance(Duration::from_millis(500));
            }
            holds
        })
        .await;
    }

    async fn until_checked(&self, checks: usize) {
        self.until(async || self.checks() >= checks).await;
    }

    async fn ask(&self, account: &str) -> String {
        let answer = self.0.list(account, "").await;
        if answer.status == StatusCode::OK { "OK".to_owned() } else { answer.error_code() }
    }

    /// The status of `/readyz`, and what `/status` says of the tenant's key.
    async fn state(&self) -> (u16, Value) {
        let ready = self.0.gateway.admin("/readyz", &[]).await;
        assert_eq!(ready.json()["ready"], ready.status == StatusCode::OK);
        let status = self.0.gateway.admin("/status", &[]).await.json();
        (ready.status.as_u16(), status["tenants"][0]["credential_accepted"].clone())
    }

    async fn until_state(&self, ready: u16, accepted: bool) {
        self.until(async || self.state().await == (ready, json!(accepted))).await;
    }
}

fn answer_checks_with(refold: &ScriptedRefold, status: u16) {
    refold.answer_by(move |head| is_check(head).then_some(status));
}

#[tokio::test]
async fn a_401_for_unknown_accounts_says_nothing_about_the_key() {
    for setting in ["warn", "require", "off"] {
        let world = Checked::start(setting, 200).await;
        world.until_state(200, true).await;
        world.0.refold.answer_with(401);
        let before = world.checks();
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
    for change in [|tenant| tenant, with_next] {
        let world = Checked::start_with("warn", 401, change).await;
        world.until_state(200, false).await;
        let metrics = world.0.gateway.metrics();
        assert!(metrics.contains("postern_org_key_accepted{tenant=\"t\"} 0\n"), "{metrics}");
        assert!(metrics.contains("postern_tenant_ready{tenant=\"t\"} 1\n"));
        assert_eq!(world.ask("a").await, "OK", "a request that succeeds is proof");
        assert_eq!(world.state().await, (200, json!(true)));
    }
}

#[tokio::test]
async fn a_key_that_is_refused_later_shows_after_a_request_and_recovers_with_one() {
    for setting in ["warn", "require"] {
        let world = Checked::start(setting, 200).await;
        world.until_checked(1).await;
        world.until_state(200, true).await;
        world.answer_checks_with(401);
        world.0.refold.answer_with(401);
        assert_eq!(world.ask("a").await, "UPSTREAM_CREDENTIAL_REJECTED");
        world.until_state(200, false).await;
        world.answer_checks_with(200);
        assert_eq!(world.ask("b").await, "UPSTREAM_CREDENTIAL_REJECTED");
        world.until_state(200, true).await;
    }
}

#[tokio::test]
async fn require_keeps_a_tenant_not_ready_until_the_key_is_accepted_or_unknown() {
    for later in [200, 404, 429, 500] {
        let world = Checked::start("require", 401).await;
        world.until_state(503, false).await;
        world.until_checked(3).await;
        assert_eq!(world.state().await, (503, json!(false)));
        let gateway = &world.0.gateway;
        assert_eq!(gateway.admin("/status", &[]).await.json()["ready"], false);
        assert_eq!(gateway.admin("/healthz", &[]).await.status, StatusCode::OK, "a restart would not help");
        world.answer_checks_with(later);
        world.until_state(200, true).await;
    }
}

#[tokio::test]
async fn one_of_two_keys_is_enough() {
    for (setting, statuses) in [("require", [401, 200]), ("warn", [401, 403])] {
        let world = Checked::start_with(setting, statuses[0], with_next).await;
        world.until_checked(2).await;
        world.answer_checks_with(statuses[1]);
        if setting == "warn" {
            world.0.refold.answer_with(401);
            assert_eq!(world.ask("a").await, "UPSTREAM_CREDENTIAL_REJECTED");
        }
        world.until_state(200, true).await;
    }
}

#[tokio::test]
async fn a_new_key_after_a_reload_is_checked_and_off_never_asks() {
    let world = Checked::start("warn", 401).await;
    world.until_checked(1).await;
    world.answer_checks_with(200);
    world.0.gateway.reload(&world.0.config().tenant(with_next));
    world.until_state(200, true).await;
    world.until_checked(2).await;
    let off = Checked::start("off", 401).await;
    off.0.refold.answer_with(401);
    for account in ["a", "b", "c"] {
        assert_eq!(off.ask(account).await, "UPSTREAM_CREDENTIAL_REJECTED");
        off.0.clock.advance(Duration::from_mins(1));
    }
    assert_eq!((off.checks(), off.state().await), (0, (200, json!(true))));
}
