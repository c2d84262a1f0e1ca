//! Credentials: the callers they stand for, and the refusals.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{
    ClientKey, Configuration, EXECUTIONS, KEY, Listener, ORG_KEY, OTHER_ORG_KEY, Tenant, World, as_account,
    http_upstream, page_of,
};

async fn world_with(key: ClientKey) -> World {
    World::builder().client_keys([key]).start().await
}

#[tokio::test]
async fn a_client_key_sees_only_its_linked_accounts() {
    let world = world_with(ClientKey::new("k", KEY).accounts(&["acme-*", "globex"])).await;
    for (account, status) in [
        ("acme-1", 200),
        ("acme-", 200),
        ("globex", 200),
        ("acme", 403),
        ("Acme-1", 403),
        ("globex2", 403),
        ("globe", 403),
        ("GLOBEX", 403),
        ("xacme-1", 403),
        ("*", 403),
    ] {
        let answer = world.list(account, "").await;
        assert_eq!(answer.status.as_u16(), status, "{account}");
        if status == 403 {
            assert_eq!(answer.error_code(), "LINKED_ACCOUNT_NOT_ALLOWED");
        }
    }
}

#[tokio::test]
async fn a_read_only_key_neither_stops_nor_reruns() {
    let world = world_with(ClientKey::new("k", KEY)).await;
    let id = world.list("acme-2", "limit=1").await.first_id();
    let requests = world.refold.requests();
    for action in ["stop", "rerun"] {
        let answer =
            world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/{action}"), &as_account("acme-2")).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (StatusCode::FORBIDDEN, "READ_ONLY_CREDENTIALS"));
    }
    assert_eq!(world.refold.requests(), requests);
}

#[tokio::test]
async fn an_expired_key_is_refused_as_expired() {
    let world = world_with(ClientKey::new("old", "pst_old").expires("2026-03-20T12:00:10Z")).await;
    let ask = async || world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_old"), ("linked_account_id", "a")]).await;
    assert_eq!(ask().await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(10));
    let answer = ask().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (StatusCode::UNAUTHORIZED, "EXPIRED_CREDENTIALS"));
    assert!(!answer.header("www-authenticate").is_empty());
}

#[tokio::test]
async fn ambiguous_credentials_are_refused() {
    let world = World::start().await;
    let token = format!("Bearer {}", world.refold.session_token("acme-1"));
    let tables: [&[(&str, &str)]; 7] = [
        &[("x-api-key", KEY), ("authorization", &token), ("linked_account_id", "acme-1")],
        &[("x-api-key", KEY), ("x-api-key", KEY), ("linked_account_id", "acme-1")],
        &[("x-api-key", KEY), ("x-api-key", "other"), ("linked_account_id", "acme-1")],
        &[("authorization", &token), ("authorization", &token)],
        &[("x-api-key", KEY), ("linked_account_id", "acme-1"), ("linked_account_id", "acme-1")],
        &[("x-api-key", KEY), ("linked_account_id", "acme-1"), ("linked-account-id", "acme-1")],
        &[("x-api-key", KEY), ("linked-account-id", "acme-1"), ("linked-account-id", "acme-2")],
    ];
    for headers in tables {
        let answer = world.gateway.get(EXECUTIONS, headers).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{headers:?}");
        assert_eq!(answer.error_code(), "AMBIGUOUS_CREDENTIALS", "{headers:?}");
    }
    assert_eq!(world.refold.requests(), 0);
}

#[tokio::test]
async fn a_linked_account_beside_a_session_token_is_checked() {
    let world = World::start().await;
    let token = format!("Bearer {}", world.refold.session_token("acme-1"));
    let ask = async |fields: &[(&str, &str)]| {
        let answer = world.gateway.get(EXECUTIONS, &[&[("authorization", &*token)], fields].concat()).await;
        (answer.status, answer.status.is_client_error().then(|| answer.error_code()))
    };
    let too_long = "a".repeat(257);
    for (fields, code) in [
        (vec![("linked_account_id", "acme-1"), ("linked-account-id", "acme-1")], "AMBIGUOUS_CREDENTIALS"),
        (vec![("linked_account_id", "acme-1"), ("linked_account_id", "acme-2")], "AMBIGUOUS_CREDENTIALS"),
        (vec![("linked-account-id", "a"), ("linked-account-id", "a")], "AMBIGUOUS_CREDENTIALS"),
        (vec![("linked_account_id", &*too_long)], "MALFORMED_REQUEST"),
    ] {
        assert_eq!(ask(&fields).await, (StatusCode::BAD_REQUEST, Some(code.to_owned())), "{fields:?}");
    }
    assert_eq!(world.refold.requests(), 0);
    for fields in [vec![], vec![("linked_account_id", "")], vec![("linked-account-id", "another")]] {
        assert_eq!(ask(&fields).await, (StatusCode::OK, None), "{fields:?}");
    }
}

#[tokio::test]
async fn every_invalid_credential_is_refused_with_the_same_body() {
    let world = World::start().await;
    let account = ("linked_account_id", "acme-1");
    let tables: [&[(&str, &str)]; 12] = [
        &[account],
        &[("x-api-key", ""), account],
        &[("x-api-key", "pst_all_account"), account],
        &[("x-api-key", "PST_ALL_ACCOUNTS"), account],
        &[("x-api-key", "pst_all_accounts x"), account],
        // In mode `inject` the org key itself is no credential.
        &[("x-api-key", ORG_KEY), account],
        &[("authorization", "Bearer"), account],
        &[("authorization", "Bearer "), account],
        &[("authorization", "Basic cHN0Og=="), account],
        &[("authorization", KEY), account],
        &[("authorization", "Bearer sim.61.00"), account],
        &[("x-api-key", "no such key")],
    ];
    for headers in tables {
        let answer = world.gateway.get(EXECUTIONS, headers).await;
        let mut body = answer.json();
        body["request_id"] = "".into();
        assert_eq!(
            body,
            json!({
                "status_code": 401, "http_error_type": "UNAUTHORIZED", "error_code": "SERVER_ERROR",
                "message": "Invalid Credentials", "request_id": "",
            }),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn in_mode_validate_the_org_key_is_the_credential() {
    let upstream = http_upstream(|request| async move {
        // Not the key itself: the gateway withholds a response that contains it.
        page_of(&json!({ "as_it_came": request.headers()["x-api-key"] == OTHER_ORG_KEY }))
    })
    .await;
    let tenant = Tenant::new("v").mode("validate").org_key("OTHER_ORG_KEY");
    let config = Configuration::bare().listeners([Listener::new()]).tenants([tenant]);
    let gateway = World::builder().refold(upstream).config(|_| config).start().await.gateway;
    let ask = async |key: &str| gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "a")]).await;
    let answer = ask(OTHER_ORG_KEY).await;
    assert_eq!((answer.status, &answer.first_document()["as_it_came"]), (StatusCode::OK, &true.into()));
    assert_eq!(ask("tk_other_orh").await.status, StatusCode::UNAUTHORIZED);
    // Only a listener that is configured for session tokens takes them.
    let token = gateway.get(EXECUTIONS, &[("authorization", "Bearer abc")]).await;
    assert_eq!(token.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_token_sees_its_account_and_has_its_own_cache() {
    let world = World::start().await;
    let bearer = |account: &str| format!("Bearer {}", world.refold.session_token(account));
    let ask = async |authorization: &str| world.gateway.get(EXECUTIONS, &[("authorization", authorization)]).await;
    for account in ["acme-1", "globex"] {
        let first = ask(&bearer(account)).await;
        assert_eq!(first.status, StatusCode::OK);
        assert_eq!(first.first_document()["linked_account_id"], account);
        assert_eq!(first.header("ratelimit"), "", "an unproven token has no budget of its own");
        let second = ask(&bearer(account)).await;
        assert!(second.is_hit(), "{second:?}");
        assert_eq!(second.first_document()["linked_account_id"], account);
        assert!(!second.header("ratelimit").is_empty());
    }
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_refused_session_token_is_remembered_for_five_seconds() {
    let world = World::start().await;
    let ask = async || world.gateway.get(EXECUTIONS, &[("authorization", "Bearer made-up")]).await;
    for _ in 0..5 {
        assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.refold.requests(), 1);
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_revoked_session_token_loses_its_cached_pages() {
    let world = World::start().await;
    let token = world.refold.session_token("acme-2");
    let authorization = format!("Bearer {token}");
    let ask = async |query: &str| {
        world.gateway.get(&format!("{EXECUTIONS}?{query}"), &[("authorization", &authorization)]).await.status
    };
    assert_eq!(ask("page=1").await, StatusCode::OK);
    world.refold.revoke_session_token(&token);
    assert_eq!(ask("page=1").await, StatusCode::OK, "still fresh");
    assert_eq!(ask("page=2").await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("page=1").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn made_up_session_tokens_share_a_small_budget() {
    let world = World::builder().config(|_| Configuration::with_default_limits().max_wait("0s")).start().await;
    let mut refused = 0;
    for number in 0..50 {
        let authorization = format!("Bearer made-up-{number}");
        let answer = world.gateway.get(EXECUTIONS, &[("authorization", &authorization)]).await;
        refused += u64::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
    }
    // A quarter of the upstream's burst of 5, rounded up.
    assert_eq!((world.refold.requests(), refused), (2, 48));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK, "the client key's budget is untouched");
}
