//! Who is let in, as whom, and what they are told otherwise.

use http::{Method, StatusCode};

use crate::harness::{EXECUTIONS, Gateway, KEY, ORG_KEY, Setup, World, as_account, client_key, http_upstream, page_of};

async fn world_with(keys: &str) -> World {
    Setup { tenant: keys.to_owned(), ..Setup::default() }.start().await
}

#[tokio::test]
async fn a_key_sees_the_linked_accounts_that_it_is_for_and_no_others() {
    let world = world_with(&client_key("k", KEY, "linked_accounts = [\"acme-*\", \"globex\"]")).await;
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
async fn a_key_that_may_only_read_neither_stops_nor_reruns() {
    let world = world_with(&client_key("k", KEY, "linked_accounts = [\"*\"]")).await;
    let id = world.list("acme-2", "limit=1").await.json()["docs"][0]["_id"].as_str().expect("an id").to_owned();
    let asked = world.refold.requests();
    for action in ["stop", "rerun"] {
        let answer =
            world.gateway.send(Method::POST, &format!("{EXECUTIONS}/{id}/{action}"), &as_account("acme-2")).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (StatusCode::FORBIDDEN, "READ_ONLY_CREDENTIALS"));
    }
    assert_eq!(world.refold.requests(), asked);
}

#[tokio::test]
async fn an_expired_key_says_so_and_only_a_good_one_does() {
    let keys = client_key("old", "pst_old", "linked_accounts = [\"*\"]\nexpires = 2026-03-20T12:00:10Z");
    let world = world_with(&keys).await;
    let ask = async || world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_old"), ("linked_account_id", "a")]).await;
    assert_eq!(ask().await.status, StatusCode::OK);
    world.clock.advance(std::time::Duration::from_secs(10));
    let answer = ask().await;
    assert_eq!((answer.status, answer.error_code().as_str()), (StatusCode::UNAUTHORIZED, "EXPIRED_CREDENTIALS"));
    assert!(!answer.header("www-authenticate").is_empty());
}

#[tokio::test]
async fn credentials_that_could_be_read_in_two_ways_are_refused() {
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
async fn a_credential_that_is_not_good_is_refused_always_in_the_same_words() {
    let world = World::start().await;
    let account = ("linked_account_id", "acme-1");
    let tables: [&[(&str, &str)]; 12] = [
        &[account],
        &[("x-api-key", ""), account],
        &[("x-api-key", "pst_all_account"), account],
        &[("x-api-key", "PST_ALL_ACCOUNTS"), account],
        &[("x-api-key", "pst_all_accounts x"), account],
        // The org key itself is no credential where a client key is asked for.
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
            serde_json::json!({
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
        // An answer that showed the key would be kept from everybody.
        page_of(&serde_json::json!({ "as_it_came": request.headers()["x-api-key"] == "tk_other_org" }))
    })
    .await;
    let text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n[server]\nworkers = 1\n[upstream]\nbase_url = \"http://{upstream}\"\n[[tenants]]\nid = \"v\"\nmode = \"validate\"\norg_key = {{ env = \"OTHER_ORG_KEY\" }}\n"
    );
    let gateway = Gateway::start_with(&text, Setup::default().clock);
    let ask = async |key: &str| gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "a")]).await;
    let answer = ask("tk_other_org").await;
    assert_eq!((answer.status, &answer.json()["docs"][0]["as_it_came"]), (StatusCode::OK, &true.into()));
    assert_eq!(ask("tk_other_orh").await.status, StatusCode::UNAUTHORIZED);
    // And session tokens are taken only where a listener says so.
    let token = gateway.get(EXECUTIONS, &[("authorization", "Bearer abc")]).await;
    assert_eq!(token.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_token_sees_its_account_and_is_cached_for_itself_alone() {
    let world = World::start().await;
    let bearer = |account: &str| format!("Bearer {}", world.refold.session_token(account));
    let ask = async |authorization: &str| world.gateway.get(EXECUTIONS, &[("authorization", authorization)]).await;
    for account in ["acme-1", "globex"] {
        let first = ask(&bearer(account)).await;
        assert_eq!(first.status, StatusCode::OK);
        assert_eq!(first.json()["docs"][0]["linked_account_id"], account);
        assert_eq!(first.header("ratelimit"), "", "its budget is its own only once it is known");
        let second = ask(&bearer(account)).await;
        assert!(second.header("cache-status").starts_with("postern; hit"), "{second:?}");
        assert_eq!(second.json()["docs"][0]["linked_account_id"], account);
        assert!(!second.header("ratelimit").is_empty());
    }
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_refused_session_token_is_remembered_for_a_few_seconds() {
    let world = World::start().await;
    let ask = async || world.gateway.get(EXECUTIONS, &[("authorization", "Bearer made-up")]).await;
    for _ in 0..5 {
        assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.refold.requests(), 1);
    world.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_revoked_session_token_loses_what_was_cached_for_it() {
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
async fn made_up_tokens_spend_a_small_budget_of_their_own() {
    let setup = Setup { top: String::new(), ..Setup::default() };
    let world = setup.start().await;
    let mut refused = 0;
    for number in 0..50 {
        let authorization = format!("Bearer made-up-{number}");
        let answer = world.gateway.get(EXECUTIONS, &[("authorization", &authorization)]).await;
        refused += u64::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
    }
    // A quarter of the upstream's burst of 5, rounded up.
    assert_eq!((world.refold.requests(), refused), (2, 48));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK, "a client key is served all the same");
}
