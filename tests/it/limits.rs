//! What callers may ask, and what is asked of Refold.

use std::time::Duration;

use http::StatusCode;

use crate::harness::{EXECUTIONS, KEY, Setup, client_key};

#[tokio::test]
async fn each_linked_account_has_a_budget_that_hits_count_against() {
    let setup = Setup::default();
    let top = "[limits.client]\nper_second = 2\nburst = 4\n".to_owned();
    let world = Setup { top, ..setup }.start().await;
    for left in (0..4).rev() {
        let answer = world.list("acme-2", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("ratelimit"), format!("\"default\";r={left};t={}", if left < 2 { 2 } else { 1 }));
        assert_eq!(answer.header("ratelimit-policy"), "\"default\";q=4;w=2");
    }
    let refused = world.list("acme-2", "").await;
    assert_eq!((refused.status, refused.error_code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("ratelimit"), "\"default\";r=0;t=2");
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK, "another account has its own");
    world.clock.advance(Duration::from_millis(500));
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK);
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_bad_query_spends_budget_too_and_a_bad_key_has_none_to_spend() {
    let world =
        Setup { top: "[limits.client]\nper_second = 1\nburst = 2\n".to_owned(), ..Setup::default() }.start().await;
    for _ in 0..2 {
        assert_eq!(world.list("acme-2", "status=nonsense").await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(world.list("acme-2", "status=nonsense").await.status, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..5 {
        let answer = world.gateway.get(EXECUTIONS, &[("x-api-key", "nobody"), ("linked_account_id", "acme-3")]).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (StatusCode::UNAUTHORIZED, ""));
    }
}

#[tokio::test]
async fn a_client_key_can_have_a_budget_of_its_own() {
    let tenant = client_key("k", KEY, "linked_accounts = [\"*\"]\nper_second = 1\nburst = 3");
    let world = Setup { tenant, ..Setup::default() }.start().await;
    for account in ["a", "b", "c"] {
        assert_eq!(world.list(account, "").await.status, StatusCode::OK);
    }
    assert_eq!(world.list("d", "").await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn refold_is_never_asked_more_than_it_grants() {
    // The published limit on both sides: were the gateway too fast, the simulated Refold would say so.
    let settings = postern::simulator::SimulatorSettings { rate: Some((20, 5)), ..Setup::default().settings };
    let top = "[limits.upstream]\nmax_wait = \"2s\"\n".to_owned();
    let world = std::sync::Arc::new(Setup { settings, top, ..Setup::default() }.start().await);
    let callers: Vec<_> = (0..80)
        .map(|number| {
            let world = std::sync::Arc::clone(&world);
            tokio::spawn(async move { world.list(&format!("account-{number}"), "").await })
        })
        .collect();
    // Time moves in small steps until everybody has an answer.
    let mut finished = 0;
    while finished < callers.len() {
        world.clock.advance(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
        finished = callers.iter().filter(|caller| caller.is_finished()).count();
    }
    let (mut served, mut refused) = (0, 0);
    for caller in callers {
        let answer = caller.await.expect("nobody has ended it");
        match answer.status {
            StatusCode::OK => served += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                assert_eq!(answer.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
                assert!(answer.header("retry-after").parse::<u64>().expect("a number") >= 1);
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(world.refold.rate_limited(), 0);
    // The burst, and what comes back within the two seconds that a fetch may wait; a little more if some came later.
    assert!((42..=60).contains(&served), "{served} served, {refused} refused");
}

#[tokio::test]
async fn a_key_that_has_spent_its_own_budget_takes_nothing_of_its_accounts() {
    let tenant = client_key("greedy", "pst_greedy", "linked_accounts = [\"*\"]\nper_second = 1\nburst = 1")
        + &client_key("modest", KEY, "linked_accounts = [\"*\"]");
    let top = "[limits.client]\nper_second = 1\nburst = 5\n".to_owned();
    let world = Setup { top, tenant, ..Setup::default() }.start().await;
    for asked in 0..20 {
        let answer =
            world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_greedy"), ("linked_account_id", "acme-2")]).await;
        assert_eq!(answer.status == StatusCode::OK, asked == 0);
        if asked > 0 {
            assert_eq!(answer.header("ratelimit"), "\"default\";r=0;t=1");
        }
    }
    let modest = world.list("acme-2", "").await;
    assert_eq!((modest.status, modest.header("ratelimit")), (StatusCode::OK, "\"default\";r=3;t=2"));
}

#[tokio::test]
async fn the_first_requests_of_a_session_token_wait_for_its_verdict_and_spend_probation_once() {
    let top = "[limits.upstream]\nper_second = 4\nburst = 8\n".to_owned();
    let world = std::sync::Arc::new(Setup { top, ..Setup::default() }.start().await);
    let token = format!("Bearer {}", world.refold.session_token("acme-1"));
    let asking: Vec<_> = (1..5)
        .map(|page| {
            let (world, token) = (std::sync::Arc::clone(&world), token.clone());
            tokio::spawn(async move {
                world.gateway.get(&format!("{EXECUTIONS}?page={page}"), &[("authorization", &token)]).await
            })
        })
        .collect();
    for answer in asking {
        assert_eq!(answer.await.expect("no panic").status, StatusCode::OK);
    }
    // A made-up one has one request go, and the others hear of it.
    let before = world.refold.requests();
    let asking: Vec<_> = (1..5)
        .map(|page| {
            let world = std::sync::Arc::clone(&world);
            tokio::spawn(async move {
                world.gateway.get(&format!("{EXECUTIONS}?page={page}"), &[("authorization", "Bearer made-up")]).await
            })
        })
        .collect();
    for answer in asking {
        assert_eq!(answer.await.expect("no panic").status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.refold.requests() - before, 1);
}
