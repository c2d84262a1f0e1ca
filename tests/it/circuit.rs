//! Evidence against Refold's health: it opens the circuit of one tenant, or of all.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tokio::io::AsyncWriteExt;

use crate::support::{
    Answer, ClientKey, Configuration, EMPTY_PAGE, EXECUTIONS, KEY, OTHER_ORG_KEY, Port, ScriptedRefold, Tenant, World,
    as_account, read_head, spawn_upstream,
};

/// A client key of the second tenant, which also has an org key of its own.
const OTHER_KEY: &str = "pst_other_tenant";

fn two_tenants(config: Configuration) -> Configuration {
    config.tenants([
        Tenant::new("t").client_key(ClientKey::new("all", KEY)),
        Tenant::new("other").org_key("OTHER_ORG_KEY").client_key(ClientKey::new("other", OTHER_KEY)),
    ])
}

/// A gateway whose upstream answers with the status in the query parameter `workflow_id`, by default 200.
struct Statuses {
    world: World<ScriptedRefold>,
    questions: AtomicU64,
}

/// The status that a request has in its query.
fn requested_status(head: &Parts) -> Option<u16> {
    let (_, rest) = head.uri.query()?.split_once("workflow_id=")?;
    Some(rest[..3].parse().expect("a status"))
}

impl Statuses {
    async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    async fn start_with(change: impl FnOnce(Configuration) -> Configuration) -> Self {
        let refold = ScriptedRefold::start().await;
        refold.answer_by(requested_status);
        let world = World::builder().refold(refold).config(two_tenants).config(change).start().await;
        Self { world, questions: AtomicU64::new(0) }
    }

    /// A new question that the upstream answers with a status.
    async fn ask(&self, headers: &[(&str, &str)], status: u16) -> Answer {
        let page = self.questions.fetch_add(1, Ordering::SeqCst) + 1;
        self.world.gateway.get(&format!("{EXECUTIONS}?page={page}&workflow_id={status}"), headers).await
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
    let world = Statuses::start().await;
    for status in [500, 501, 505, 599] {
        for number in 0..15 {
            assert_eq!(world.as_account(&format!("acme-{}", number % 3), status).await.as_u16(), status);
        }
        assert_eq!(world.as_account("acme-7", 200).await, StatusCode::OK, "after {status}");
    }
}

#[tokio::test]
async fn tokens_that_were_never_accepted_do_not_touch_the_circuit() {
    let world = Statuses::start().await;
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
    let world = Statuses::start().await;
    for number in 0..10 {
        world.as_account(["a", "b"][number % 2], 502).await;
    }
    assert_eq!(world.ask(&as_account("a"), 200).await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
    for round in 0..3 {
        world.world.clock.advance(Duration::from_secs(5));
        assert_eq!(world.as_token(&format!("made-up-{round}"), 503).await.as_u16(), 503);
        assert_eq!(world.as_token(&format!("unwanted-{round}"), 500).await.as_u16(), 500);
    }
    assert_eq!(world.as_account("a", 200).await, StatusCode::OK, "the probe was left to a known caller");
    assert_eq!(world.as_account("b", 200).await, StatusCode::OK);
}

#[tokio::test]
async fn a_bad_id_does_not_keep_an_open_circuit_open() {
    let world = Statuses::start().await;
    for number in 0..10 {
        world.as_account(["a", "b"][number % 2], 504).await;
    }
    world.world.clock.advance(Duration::from_secs(5));
    for status in [500, 501, 500] {
        assert_eq!(world.as_account("a", status).await.as_u16(), status);
    }
    assert_eq!(world.as_account("b", 200).await, StatusCode::OK);
    assert_eq!(world.as_account("a", 200).await, StatusCode::OK);
}

#[tokio::test]
async fn the_circuit_is_a_tenant_s_and_needs_several_accounts_or_the_only_one() {
    for status in [502, 503, 504] {
        let world = Statuses::start().await;
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

/// An upstream that begins each answer to the usual tenant with these bytes, and never ends it.
async fn stalls_after(beginning: &'static str) -> SocketAddr {
    spawn_upstream(move |listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    let is_other = head.contains(OTHER_ORG_KEY);
                    let _ = stream.write_all(if is_other { EMPTY_PAGE } else { beginning }.as_bytes()).await;
                    if !is_other {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    })
    .await
}

#[tokio::test]
async fn time_outs_open_the_circuit_of_their_tenant() {
    for beginning in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let builder = World::builder().refold(stalls_after(beginning).await).config(two_tenants);
        let hurried = |config: Configuration| {
            let config = config.set("upstream.breaker.failures", 4).set("upstream.total_timeout", "100ms");
            config.set("upstream.first_byte_timeout", "50ms")
        };
        let gateway = builder.config(hurried).start().await.gateway;
        for (number, target) in ["", "/e1", "/e1/nodes/n1/batches", "?page=2"].into_iter().enumerate() {
            let answer = gateway.get(&format!("{EXECUTIONS}{target}"), &as_account(["a", "b"][number % 2])).await;
            assert_eq!(answer.error(), (504, "UPSTREAM_TIMEOUT".to_owned()), "{beginning:?}, {target}");
        }
        let refused = gateway.list("c", "").await;
        assert_eq!(refused.error_code(), "UPSTREAM_CIRCUIT_OPEN", "{beginning:?}");
        let other = gateway.get(EXECUTIONS, &[("x-api-key", OTHER_KEY), ("linked_account_id", "b")]).await;
        assert_eq!(other.status, StatusCode::OK, "{beginning:?}: {:?}", other.body);
    }
}

#[tokio::test]
async fn fewer_failures_than_half_of_all_leave_the_circuit_closed() {
    let world = Statuses::start().await;
    for number in 0..40 {
        let account = ["a", "b"][number % 2];
        assert_eq!(world.as_account(account, 200).await, StatusCode::OK);
        assert_eq!(world.as_account(account, 200).await, StatusCode::OK);
        assert_eq!(world.as_account(account, 503).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(world.world.refold.requests(), 120);
}

#[tokio::test]
async fn pass_through_routes_do_not_touch_the_circuit() {
    let route = "[[pass_through]]\npath = \"/api/v1/workflow\"\nmethods = [\"GET\"]\nscope = \"org\"";
    let world = Statuses::start_with(|config| config.toml(route)).await;
    for status in [502, 503, 504] {
        for number in 0..12 {
            let target = format!("/api/v1/workflow?page={number}&workflow_id={status}");
            let headers = as_account(["a", "b"][number % 2]);
            assert_eq!(world.world.gateway.get(&target, &headers).await.status.as_u16(), status);
        }
        assert_eq!(world.as_account("a", 200).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn an_address_without_a_server_opens_every_tenant_s_circuit() {
    // The port is bound, and no process listens at it.
    let port = Port::take();
    let builder = World::builder().refold(port.address()).config(two_tenants);
    let world = builder.config(|config| config.set("upstream.breaker.failures", 4)).start().await;
    let ask = async |key: &str, page: u32| {
        let headers = [("x-api-key", key), ("linked_account_id", "a")];
        world.gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await.error_code()
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

#[tokio::test]
async fn metrics_and_status_show_what_becomes_of_an_idle_tenant_s_circuit() {
    for status in [502, 503, 504] {
        let world = Statuses::start_with(Configuration::admin).await;
        let shown = async || {
            let metrics = world.world.gateway.metrics();
            let is_open = |line: &str| line == "postern_upstream_circuit_open{tenant=\"t\"} 1";
            let status = world.world.gateway.admin("/status", &[]).await.json();
            (metrics.lines().any(is_open), status["tenants"][0]["circuit"].as_str().expect("a state").to_owned())
        };
        for number in 0..10 {
            world.as_account(["a", "b"][number % 2], status).await;
        }
        for (seconds, expected) in
            [(0, (true, "open")), (5, (true, "half_open")), (9, (true, "half_open")), (1, (false, "closed"))]
        {
            world.world.clock.advance(Duration::from_secs(seconds));
            assert_eq!(shown().await, (expected.0, expected.1.to_owned()), "{status}, {seconds} s later");
        }
        assert_eq!(world.as_account("a", status).await.as_u16(), status);
        assert_eq!(world.as_account("b", 200).await, StatusCode::OK);
    }
}
