//! Callers without a client key: trusted listeners and pages of other origins. Org keys that change.

use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use crate::support::tokens::NOW;
use crate::support::{
    Answer, Configuration, EXECUTIONS, KEY, Listener, NEXT_ORG_KEY, ORG_KEY, ScriptedRefold, Tenant, World, as_account,
};

#[tokio::test]
async fn a_trusted_listener_needs_no_key_and_takes_none() {
    let world = World::builder().listener(|listener| listener.trusted_for(&["acme-*"])).start().await;
    let ask = async |headers: &[(&str, &str)]| world.gateway.get(EXECUTIONS, headers).await;
    let answer = ask(&[("linked_account_id", "acme-1")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(ask(&[("linked_account_id", "globex")]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&[]).await.json()["http_error_type"], "INVALID_LINKED_ACCOUNT_ID");
    for (name, value) in [("x-api-key", KEY), ("x-api-key", ORG_KEY), ("authorization", "Bearer some.session.token")] {
        let answer = ask(&[("linked_account_id", "acme-1"), (name, value)]).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (StatusCode::BAD_REQUEST, "AMBIGUOUS_CREDENTIALS"));
    }
    let target = format!("{EXECUTIONS}/1/stop");
    let stop = world.gateway.send(Method::POST, &target, &[("linked_account_id", "acme-1")]);
    assert_eq!(stop.await.status, StatusCode::FORBIDDEN, "trusted callers are read-only by default");
}

#[test]
fn a_trusted_listener_off_the_loopback_is_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let config = Configuration::new().listeners([Listener::at(address).trusted()]);
        let refused = config.parse().expect_err("the configuration is refused");
        assert!(refused.to_string().contains("loopback"), "{refused}");
    }
}

/// A Refold that accepts one org key at a time.
async fn accepting(org_key: &str) -> ScriptedRefold {
    let refold = ScriptedRefold::start().await;
    refold.accept_only(org_key);
    refold
}

#[tokio::test]
async fn an_org_key_is_rotated_with_no_failed_request() {
    let builder = World::builder().refold(accepting(ORG_KEY).await);
    let world = builder.tenant(|tenant| tenant.org_key_next("NEXT_ORG_KEY")).start().await;
    let mut page = 0;
    let mut ask = async || {
        page += 1;
        world.list("a", &format!("page={page}")).await
    };
    for key in [ORG_KEY, NEXT_ORG_KEY, ORG_KEY, NEXT_ORG_KEY] {
        world.refold.accept_only(key);
        for _ in 0..3 {
            assert_eq!(ask().await.status, StatusCode::OK, "{key}");
        }
    }
    // With neither accepted, the operator's configuration is at fault and not the caller.
    world.refold.accept_only("another");
    assert_eq!(ask().await.error_code(), "UPSTREAM_CREDENTIAL_REJECTED");
}

#[tokio::test]
async fn a_validating_tenant_forwards_the_org_key_of_its_caller() {
    let validating = |tenant: Tenant| tenant.client_keys([]).mode("validate").org_key_next("NEXT_ORG_KEY");
    let world = World::builder().refold(accepting(NEXT_ORG_KEY).await).tenant(validating).start().await;
    let headers = |key| [("x-api-key", key), ("linked_account_id", "a")];
    let ask = async |key| world.gateway.get(EXECUTIONS, &headers(key)).await.status;
    assert_eq!(ask(ORG_KEY).await, StatusCode::UNAUTHORIZED, "the upstream does not accept it");
    assert_eq!(ask(NEXT_ORG_KEY).await, StatusCode::OK);
    assert_eq!(ask("something else").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_cached_page_does_not_outlive_its_session_token() {
    let world = World::builder().refold(ScriptedRefold::start().await).start().await;
    // A token that expires in three seconds; the gateway reads its expiry though it cannot verify it.
    let secret = EncodingKey::from_secret(b"Refold's own");
    let claims = json!({ "iss": "refold", "exp": NOW + 3 });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &secret).expect("a token");
    let authorization = format!("Bearer {token}");
    let ask = async || world.gateway.get(EXECUTIONS, &[("authorization", &authorization)]).await;
    assert_eq!(ask().await.header("cache-control"), "private, max-age=3");
    assert!(ask().await.cache_status().contains("hit"));
    world.clock.advance(Duration::from_secs(3));
    assert!(ask().await.cache_status().contains("fwd=stale"));
}

const APP: &str = "https://app.example.com";

/// A world that pages of two origins may use.
async fn with_pages() -> World {
    let origins = vec![APP, "http://localhost:3000"];
    World::builder().config(|config| config.set("cors.origins", origins)).start().await
}

fn vary(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("vary").iter().map(|value| value.to_str().expect("ASCII")).collect()
}

#[tokio::test]
async fn a_page_of_a_configured_origin_may_read_responses() {
    let world = with_pages().await;
    let preflight_headers = [
        ("origin", APP),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    for (target, methods) in [(EXECUTIONS.to_owned(), "GET, HEAD"), (format!("{EXECUTIONS}/1/stop"), "POST")] {
        let preflight = world.gateway.send(Method::OPTIONS, &target, &preflight_headers).await;
        assert_eq!(preflight.status, StatusCode::NO_CONTENT);
        assert_eq!(preflight.header("access-control-allow-origin"), APP);
        assert_eq!(preflight.header("access-control-allow-methods"), methods);
        assert!(
            preflight.header("access-control-allow-headers").contains("authorization, x-api-key, linked_account_id")
        );
        assert_eq!(preflight.header("access-control-max-age"), "600");
        assert_eq!(vary(&preflight), ["origin"]);
    }
    let headers = [as_account("acme-1").as_slice(), &[("origin", APP)]].concat();
    for answer in [
        world.gateway.get(EXECUTIONS, &headers).await,
        world.gateway.get(EXECUTIONS, &headers).await,
        world.gateway.get(EXECUTIONS, &[("origin", APP)]).await,
        world.gateway.get("/nothing", &headers).await,
    ] {
        assert_eq!(answer.header("access-control-allow-origin"), APP);
        for name in ["x-request-id", "ratelimit", "cache-status"] {
            assert!(answer.header("access-control-expose-headers").contains(name));
        }
        assert!(vary(&answer).contains(&"origin"));
    }
    let plain = world.list("acme-1", "").await;
    assert!(!plain.headers.contains_key("access-control-allow-origin") && vary(&plain).contains(&"origin"));
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let world = with_pages().await;
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://APP.example.com",
    ] {
        let preflight_headers = [("origin", origin), ("access-control-request-method", "GET")];
        let preflight = world.gateway.send(Method::OPTIONS, EXECUTIONS, &preflight_headers).await;
        assert_eq!(preflight.status, StatusCode::METHOD_NOT_ALLOWED, "{origin}");
        assert!(!preflight.headers.contains_key("access-control-allow-origin"));
    }
    let nowhere =
        world.gateway.send(Method::OPTIONS, "/nothing", &[("origin", APP), ("access-control-request-method", "GET")]);
    assert_eq!(nowhere.await.status, StatusCode::NOT_FOUND);
    let without_pages = World::start().await;
    let answer = without_pages.gateway.send(
        Method::OPTIONS,
        EXECUTIONS,
        &[("origin", APP), ("access-control-request-method", "GET")],
    );
    assert_eq!(answer.await.status, StatusCode::METHOD_NOT_ALLOWED);
}
