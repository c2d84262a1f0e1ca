//! Who may see what without a key of one's own: trusted listeners, pages of other origins; and keys that change.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::harness::{
    Answer, EXECUTIONS, Gateway, KEY, NEXT_ORG_KEY, ORG_KEY, Setup, World, as_account, configuration, http_upstream,
    page_of,
};

async fn trusted(lines: &str) -> World {
    let setup = Setup::default();
    let settings = setup.settings.clone();
    let refold = postern::simulator::Simulator::new(settings, setup.clock.clone());
    let served = refold.clone();
    let upstream = crate::harness::spawn_upstream(|listener| async move {
        let _ = served.serve(listener).await;
    })
    .await;
    let text = configuration(upstream, &setup.top, &setup.tenant).replace("session_tokens = \"t\"", lines);
    let gateway = Gateway::start_with(&text, setup.clock.clone());
    World { gateway, refold, refold_address: upstream, clock: setup.clock }
}

#[tokio::test]
async fn whoever_reaches_a_trusted_listener_needs_no_key() {
    let world = trusted("trusted = { tenant = \"t\", linked_accounts = [\"acme-*\"] }").await;
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
    assert_eq!(stop.await.status, StatusCode::FORBIDDEN, "it may read, unless the configuration says more");
}

#[test]
fn a_trusted_listener_that_others_could_reach_is_refused_at_the_start() {
    let mut environment = postern::config::Environment::default();
    environment.insert("ORG_KEY", ORG_KEY);
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let text = configuration(SocketAddr::from(([127, 0, 0, 1], 1)), "", "")
            .replace("127.0.0.1:0", address)
            .replace("session_tokens = \"t\"", "trusted = { tenant = \"t\" }");
        let refused = postern::config::Config::parse(&text, std::path::Path::new("postern.toml"), &environment)
            .expect_err("it must not start");
        assert!(refused.to_string().contains("loopback"), "{refused}");
    }
}

/// An upstream that takes one org key at a time.
async fn choosy(good: Arc<Mutex<String>>) -> SocketAddr {
    http_upstream(move |request| {
        let good = Arc::clone(&good);
        async move {
            let key = request.headers().get("x-api-key").map_or("", |key| key.to_str().expect("ASCII"));
            if key == *good.lock().expect("no panic") {
                return page_of(&json!({ "status": "COMPLETED" }));
            }
            let mut refused = http::Response::new(Full::default());
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            refused
        }
    })
    .await
}

#[tokio::test]
async fn an_org_key_is_rotated_with_no_failed_request() {
    let good = Arc::new(Mutex::new(ORG_KEY.to_owned()));
    let upstream = choosy(Arc::clone(&good)).await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let text = configuration(upstream, &top, &tenant)
        .replace("org_key = ", "org_key_next = { env = \"NEXT_ORG_KEY\" }\norg_key = ");
    let gateway = Gateway::start_with(&text, clock.clone());
    let mut page = 0;
    let mut ask = async || {
        page += 1;
        gateway.get(&format!("{EXECUTIONS}?page={page}"), &as_account("a")).await
    };
    for key in [ORG_KEY, NEXT_ORG_KEY, ORG_KEY, NEXT_ORG_KEY] {
        key.clone_into(&mut good.lock().expect("no panic"));
        for _ in 0..3 {
            assert_eq!(ask().await.status, StatusCode::OK, "{key}");
        }
    }
    // Neither is good: the operator's fault, and still not the caller's.
    "another".clone_into(&mut good.lock().expect("no panic"));
    assert_eq!(ask().await.error_code(), "UPSTREAM_CREDENTIAL_REJECTED");
}

#[tokio::test]
async fn a_tenant_that_validates_takes_both_org_keys_and_sends_the_very_one_on() {
    let good = Arc::new(Mutex::new(NEXT_ORG_KEY.to_owned()));
    let upstream = choosy(Arc::clone(&good)).await;
    let Setup { clock, top, .. } = Setup::default();
    let text = configuration(upstream, &top, "")
        .replace("mode = \"inject\"", "mode = \"validate\"")
        .replace("org_key = ", "org_key_next = { env = \"NEXT_ORG_KEY\" }\norg_key = ");
    let gateway = Gateway::start_with(&text, clock);
    let ask = async |key| gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "a")]).await.status;
    assert_eq!(ask(ORG_KEY).await, StatusCode::UNAUTHORIZED, "the upstream does not take it");
    assert_eq!(ask(NEXT_ORG_KEY).await, StatusCode::OK);
    assert_eq!(ask("something else").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_cached_page_does_not_outlive_its_session_token() {
    let upstream = http_upstream(|_| async { page_of(&json!({ "status": "COMPLETED" })) }).await;
    let Setup { clock, top, tenant, .. } = Setup::default();
    let gateway = Gateway::start(upstream, &top, &tenant, clock.clone());
    // Three seconds from now, at the tests' moment; nobody here can verify it.
    let secret = jsonwebtoken::EncodingKey::from_secret(b"Refold's own");
    let claims = json!({ "iss": "refold", "exp": 1_774_008_003 });
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &secret).expect("a token");
    let authorization = format!("Bearer {token}");
    let ask = async || gateway.get(EXECUTIONS, &[("authorization", &authorization)]).await;
    assert_eq!(ask().await.header("cache-control"), "private, max-age=3");
    assert!(ask().await.header("cache-status").contains("hit"));
    clock.advance(Duration::from_secs(3));
    assert!(ask().await.header("cache-status").contains("fwd=stale"));
}

const APP: &str = "https://app.example.com";

async fn with_pages() -> World {
    let setup = Setup::default();
    let top = setup.top.clone() + "[cors]\norigins = [\"https://app.example.com\", \"http://localhost:3000\"]\n";
    Setup { top, ..setup }.start().await
}

fn vary(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("vary").iter().map(|value| value.to_str().expect("ASCII")).collect()
}

#[tokio::test]
async fn a_page_of_a_known_origin_is_answered_and_may_read_what_it_needs() {
    let world = with_pages().await;
    let asks = [
        ("origin", APP),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    for (target, methods) in [(EXECUTIONS.to_owned(), "GET, HEAD"), (format!("{EXECUTIONS}/1/stop"), "POST")] {
        let preflight = world.gateway.send(Method::OPTIONS, &target, &asks).await;
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
async fn a_page_of_another_origin_is_told_nothing() {
    let world = with_pages().await;
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://APP.example.com",
    ] {
        let asks = [("origin", origin), ("access-control-request-method", "GET")];
        let preflight = world.gateway.send(Method::OPTIONS, EXECUTIONS, &asks).await;
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
