//! Metrics that name a cause: the client key of refused requests, the age of what was served, the last sign of life of Refold.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::samples::{assert_samples, samples};
use crate::support::tokens::{ISSUER, token_of};
use crate::support::{
    ClientKey, Configuration, EXECUTIONS, Issuer, KEY, ORG_KEY, OTHER_ORG_KEY, ScriptedRefold, Tenant, World,
    eventually, signature, until,
};

fn requests(credential: &str, name: &str, outcome: &str) -> String {
    format!(
        "postern_caller_requests_total{{credential=\"{credential}\",name=\"{name}\",outcome=\"{outcome}\",tenant=\"t\"}}"
    )
}

/// Sends a request for `acme-1` with a client key.
async fn ask<R>(world: &World<R>, key: &str) -> StatusCode {
    world.gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "acme-1")]).await.status
}

#[tokio::test]
async fn requests_are_counted_by_client_key() {
    let keys = [
        ClientKey::new("dashboards", KEY),
        ClientKey::new("batch", "pst_batch").limit(1, 2),
        ClientKey::new("old", "pst_old").expires("2020-01-01"),
        ClientKey::new("idle", "pst_idle"),
    ];
    let world = World::builder().client_keys(keys).start().await;
    for _ in 0..5 {
        ask(&world, KEY).await;
        ask(&world, "pst_batch").await;
    }
    assert_eq!(ask(&world, "pst_old").await, StatusCode::UNAUTHORIZED);
    let counted = samples(&world.gateway);
    assert_samples!(
        &counted,
        &requests("client_key", "dashboards", "2xx") => 5.0,
        &requests("client_key", "dashboards", "429") => 0.0,
        &requests("client_key", "batch", "2xx") => 2.0,
        &requests("client_key", "batch", "429") => 3.0,
        &requests("client_key", "old", "4xx") => 1.0,
        &requests("client_key", "idle", "2xx") => 0.0,
        "postern_client_key_expiry_timestamp_seconds{name=\"old\",tenant=\"t\"}" => 1_577_836_800.0,
    );
    assert_eq!(counted.of_metric("postern_client_key_expiry_timestamp_seconds").len(), 1);
    // The count of a key outlives a reload, and the end of a removed key is not shown any more.
    world.gateway.reload(&world.config().client_keys([ClientKey::new("batch", "pst_new")]));
    ask(&world, "pst_new").await;
    let counted = samples(&world.gateway);
    assert_samples!(&counted, &requests("client_key", "batch", "2xx") => 3.0);
    assert!(counted.of_metric("postern_client_key_expiry_timestamp_seconds").is_empty());
}

#[tokio::test]
async fn tokens_are_counted_by_their_issuer_and_others_by_their_kind() {
    let world = World::builder().config(|config| config.issuer(Issuer::with_secret())).start().await;
    let token = format!("Bearer {}", world.refold.session_token("acme-1"));
    let send = async |authorization: &str, query: &str| {
        world.gateway.get(&format!("{EXECUTIONS}{query}"), &[("authorization", authorization)]).await.status
    };
    for authorization in [&token_of("acme-1"), &token_of("acme-1"), &token_of("globex"), &token, &token] {
        assert_eq!(send(authorization, "").await, StatusCode::OK);
    }
    assert_eq!(send(&token_of("globex"), "?limit=0").await, StatusCode::BAD_REQUEST);
    assert_samples!(
        samples(&world.gateway),
        &requests("jwt", ISSUER, "2xx") => 3.0,
        &requests("jwt", ISSUER, "4xx") => 1.0,
        &requests("session_token", "", "2xx") => 2.0,
    );
}

#[tokio::test]
async fn the_age_of_what_is_served_is_counted_fresh_and_stale_apart() {
    let refold = ScriptedRefold::start().await;
    let config = |config: Configuration| config.stale("1h", "0s");
    let world = World::builder().refold(refold.clone()).config(config).start().await;
    world.list("acme-1", "").await;
    world.clock.advance(Duration::from_secs(3));
    world.list("acme-1", "").await;
    refold.hold();
    world.clock.advance(Duration::from_secs(37));
    let stale = world.list("acme-1", "").await;
    assert_eq!((stale.cache_status(), stale.header("age")), ("postern; hit; ttl=-35; detail=stale", "40"));
    let of =
        |part: &str, served: &str| format!("postern_response_age_seconds_{part}{{served=\"{served}\",tenant=\"t\"}}");
    assert_samples!(
        samples(&world.gateway),
        &of("count", "fetched") => 1.0,
        &of("sum", "fetched") => 0.0,
        &of("count", "fresh") => 1.0,
        &of("sum", "fresh") => 3.0,
        &of("count", "stale") => 1.0,
        &of("sum", "stale") => 40.0,
        "postern_request_duration_seconds_count{cache=\"hit\"}" => 1.0,
        "postern_request_duration_seconds_count{cache=\"hit_stale\"}" => 1.0,
    );
}

#[tokio::test]
async fn the_error_that_keeps_a_page_stale_is_counted() {
    let refold = ScriptedRefold::start().await;
    let config = |config: Configuration| config.stale("1h", "0s").retries(0);
    let world = World::builder().refold(refold.clone()).config(config).start().await;
    world.list("acme-1", "").await;
    refold.answer_with(503);
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(world.list("acme-1", "").await.cache_status(), "postern; hit; ttl=-1; detail=stale");
    let metric = "postern_renewal_errors_total";
    until(|| !samples(&world.gateway).of_metric(metric).is_empty()).await;
    let counted = format!("{metric}{{error_code=\"UPSTREAM\",tenant=\"t\"}}");
    assert_samples!(samples(&world.gateway), &counted => 1.0);
}

#[tokio::test]
async fn the_last_webhook_and_the_last_key_check_are_known() {
    let builder = World::builder().config(|config| config.admin().verify_key("warn")).tenant(Tenant::webhooks);
    let world = builder.start().await;
    let tenant = async || world.gateway.admin("/status", &[]).await.json()["tenants"][0].clone();
    let check = "postern_org_key_last_check_timestamp_seconds{key=\"current\",result=\"accepted\",tenant=\"t\"}";
    eventually(async || tenant().await["key_check"]["result"] == "accepted").await;
    assert_samples!(samples(&world.gateway), check => 1_774_008_000.0);
    let deliver = async |signature: &str| {
        world.gateway.post("/hooks/refold/t", &[("x-cobalt-signature", signature)], "{}").await.status
    };
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(deliver(&signature("another key", "{}")).await, StatusCode::UNAUTHORIZED);
    let webhook = "postern_webhook_last_accepted_timestamp_seconds";
    assert!(samples(&world.gateway).of_metric(webhook).is_empty());
    assert_eq!(tenant().await["last_webhook"], Value::Null);
    assert_eq!(deliver(&signature(ORG_KEY, "{}")).await, StatusCode::NO_CONTENT);
    assert_samples!(samples(&world.gateway), &format!("{webhook}{{tenant=\"t\"}}") => 1_774_008_060.0);
    let shown = tenant().await;
    assert_eq!((&shown["webhooks"], &shown["last_webhook"]), (&json!(true), &json!("2026-03-20T12:01:00Z")));
}

#[tokio::test]
async fn a_removed_tenant_leaves_no_series() {
    let with_other = |config: Configuration| {
        let keys = [ClientKey::new("other", "pst_other"), ClientKey::new("limited", "pst_limited").limit(1, 1)];
        let other = keys.into_iter().fold(Tenant::new("other").org_key("OTHER_ORG_KEY").webhooks(), Tenant::client_key);
        config.tenants([Tenant::new("t").client_key(ClientKey::new("all", KEY)), other])
    };
    let builder = World::builder().refold(ScriptedRefold::start().await).config(|config| config.verify_key("warn"));
    let world = builder.start().await;
    let of_other = || {
        let metrics = world.gateway.metrics();
        metrics.lines().filter(|line| line.contains("tenant=\"other\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    let counted = requests("client_key", "other", "2xx").replace("tenant=\"t\"", "tenant=\"other\"");
    for _ in 0..2 {
        world.gateway.reload(&with_other(world.config()));
        assert_eq!(ask(&world, KEY).await, StatusCode::OK);
        for key in ["pst_other", "pst_limited", "pst_limited"] {
            ask(&world, key).await;
        }
        let webhook = [("x-cobalt-signature", &*signature(OTHER_ORG_KEY, "{}"))];
        assert_eq!(world.gateway.post("/hooks/refold/other", &webhook, "{}").await.status, StatusCode::NO_CONTENT);
        until(|| of_other().iter().any(|line| line.starts_with("postern_org_key_last_check"))).await;
        assert_samples!(samples(&world.gateway), &counted => 1.0);
        world.gateway.reload(&world.config());
        assert_eq!(of_other(), Vec::<String>::new());
    }
    assert_samples!(samples(&world.gateway), &requests("client_key", "all", "2xx") => 2.0);
}

#[tokio::test]
async fn invalid_credentials_have_their_own_code_for_operators() {
    let world = World::builder().config(Configuration::admin).start().await;
    let refused = world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_unknown"), ("linked_account_id", "a")]).await;
    assert_eq!(refused.error(), (401, "SERVER_ERROR".to_owned()), "as Refold's documentation has it");
    let shown = world.gateway.admin("/status", &[]).await.json()["errors"][0].clone();
    assert_eq!((&shown["error_code"], &shown["reason"]), (&json!("INVALID_CREDENTIALS"), &json!("unknown_key")));
    assert_samples!(
        samples(&world.gateway),
        "postern_errors_total{error_code=\"INVALID_CREDENTIALS\",tenant=\"\"}" => 1.0,
    );
}
