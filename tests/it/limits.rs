//! The budgets of callers, and the budget of requests to Refold.

use std::time::Duration;

use http::StatusCode;

use crate::support::{Answer, ClientKey, Configuration, EXECUTIONS, KEY, PendingAnswer, World, until};

/// A world with the default limits but for the budget of each linked account.
async fn client_limited(per_second: u32, burst: u32) -> World {
    let config = |_| Configuration::with_default_limits().client_limit(per_second, burst);
    World::builder().config(config).start().await
}

#[tokio::test]
async fn hits_count_against_the_budget_of_their_linked_account() {
    let world = client_limited(2, 4).await;
    for left in (0..4).rev() {
        let answer = world.list("acme-2", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(state("account", &answer), format!("\"account\";r={left};t={}", if left < 2 { 2 } else { 1 }));
        assert_eq!(answer.header("ratelimit-policy"), "\"account\";q=4;w=2, \"upstream\";q=20;w=1");
    }
    let refused = world.list("acme-2", "").await;
    assert_eq!(refused.error(), (429, "RATE_LIMIT_EXCEEDED".to_owned()));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("ratelimit"), "\"account\";r=0;t=2");
    assert!(refused.message().starts_with("the callers of this linked account have used up its budget;"));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK, "another account has its own");
    world.clock.advance(Duration::from_millis(500));
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK);
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.refold.requests(), 2);
}

#[tokio::test]
async fn a_bad_query_spends_budget_and_a_bad_key_does_not() {
    let world = client_limited(1, 2).await;
    for _ in 0..2 {
        assert_eq!(world.list("acme-2", "status=nonsense").await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(world.list("acme-2", "status=nonsense").await.status, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..5 {
        let headers = [("x-api-key", "pst_unknown"), ("linked_account_id", "acme-3")];
        let answer = world.gateway.get(EXECUTIONS, &headers).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (StatusCode::UNAUTHORIZED, ""));
    }
}

#[tokio::test]
async fn a_client_key_can_have_a_budget_of_its_own() {
    let world = World::builder().client_keys([ClientKey::new("k", KEY).limit(1, 3)]).start().await;
    for account in ["a", "b", "c"] {
        assert_eq!(world.list(account, "").await.status, StatusCode::OK);
    }
    let refused = world.list("d", "").await;
    assert_eq!(refused.error(), (429, "RATE_LIMIT_EXCEEDED".to_owned()));
    assert!(refused.message().starts_with("this client key has used up its own budget;"));
    assert_eq!((refused.header("ratelimit"), refused.header("retry-after")), ("\"key\";r=0;t=3", "1"));
}

#[tokio::test]
async fn every_budget_of_a_request_is_named() {
    let config = Configuration::with_default_limits().client_limit(2, 4);
    let keys = [ClientKey::new("k", KEY).limit(1, 3)];
    let world = World::builder().config(|_| config).client_keys(keys).start().await;
    let miss = world.list("acme-2", "").await;
    assert_eq!(miss.header("ratelimit-policy"), "\"account\";q=4;w=2, \"key\";q=3;w=3, \"upstream\";q=20;w=1");
    // Of the burst of five one is kept in reserve, and this request took another.
    assert_eq!(miss.header("ratelimit"), "\"account\";r=3;t=1, \"key\";r=2;t=1, \"upstream\";r=3;t=1");
    let hit = world.list("acme-2", "").await;
    assert_eq!(hit.header("ratelimit"), "\"account\";r=2;t=1, \"key\";r=1;t=2", "it spent nothing at Refold");
    let bad = world.list("acme-2", "page=0").await;
    assert_eq!(bad.header("ratelimit"), "\"account\";r=1;t=2, \"key\";r=0;t=3");
}

#[tokio::test]
async fn a_session_token_has_a_budget_of_its_own_name() {
    let config = Configuration::with_default_limits().client_limit(1, 2);
    let world = World::builder().config(|_| config).start().await;
    let authorization = format!("Bearer {}", world.refold.session_token("acme-1"));
    let ask = async || world.gateway.get(EXECUTIONS, &[("authorization", &authorization)]).await;
    assert_eq!(ask().await.header("ratelimit"), "", "Refold had not accepted it yet");
    let known = ask().await;
    assert_eq!(known.header("ratelimit-policy"), "\"token\";q=2;w=2, \"upstream\";q=20;w=1");
    assert_eq!(known.header("ratelimit"), "\"token\";r=1;t=1");
    ask().await;
    let refused = ask().await;
    assert_eq!((refused.status, refused.header("ratelimit")), (StatusCode::TOO_MANY_REQUESTS, "\"token\";r=0;t=2"));
    assert!(refused.message().starts_with("this session token has used up its budget;"));
}

#[tokio::test]
async fn the_budget_at_refold_is_named_by_its_own_429() {
    let config = Configuration::with_default_limits().upstream_limit(1, 2).max_wait("0s");
    let world = World::builder().config(|_| config).start().await;
    let granted = world.list("acme-1", "").await;
    assert_eq!(granted.header("ratelimit-policy"), "\"account\";q=100;w=2, \"upstream\";q=2;w=2");
    assert_eq!(state("upstream", &granted), "\"upstream\";r=0;t=2");
    let refused = world.list("acme-2", "").await;
    assert_is_out_of_budget(&refused);
    assert!(refused.message().starts_with("the org's budget at Refold, which all callers share, is used up;"));
    assert_eq!(state("upstream", &refused), format!("\"upstream\";r=0;t={}", refused.header("retry-after")));
}

/// The item of `RateLimit` with this name.
fn state<'a>(name: &str, answer: &'a Answer) -> &'a str {
    let named = format!("\"{name}\";");
    let mut items = answer.header("ratelimit").split(", ");
    items.find(|item| item.starts_with(&named)).unwrap_or_else(|| panic!("no {name}: {answer:?}"))
}

/// The published limit of Refold, which is the gateway's default.
const RATE: (u32, u32) = (20, 5);
/// The time between two permits: the gateway keeps 1 % below the limit.
const PERMIT: Duration = Duration::from_micros(50_500);
/// The longest wait for a permit, and the number of permits that are granted in it.
const MAX_WAIT: Duration = Duration::from_secs(2);
const PERMITS_IN_MAX_WAIT: u64 = 39;

#[tokio::test]
async fn the_gateway_keeps_to_the_published_limit_of_refold() {
    // The simulated Refold has the same limit: it would refuse requests if the gateway were too fast.
    let builder = World::builder().simulator(|settings| settings.rate = Some((RATE.0, RATE.1)));
    let world = builder.config(|_| Configuration::with_default_limits().max_wait("2s")).start().await;
    let ask = |number: u32| world.gateway.spawn_list(&format!("account-{number}"), "");
    let callers: Vec<PendingAnswer> = (0..80).map(ask).collect();
    let refused = || callers.iter().filter(|caller| caller.is_finished()).count() as u64 - world.refold.requests();
    // The burst but for one goes out at once; of the others, those that would wait too long are refused at once.
    let burst = u64::from(RATE.1) - 1;
    until(|| callers.iter().filter(|caller| caller.is_finished()).count() as u64 == 80 - PERMITS_IN_MAX_WAIT).await;
    assert_eq!((world.refold.requests(), refused()), (burst, 80 - PERMITS_IN_MAX_WAIT - burst));
    for permit in 1..=PERMITS_IN_MAX_WAIT {
        world.clock.advance(PERMIT);
        until(|| world.refold.requests() == burst + permit).await;
    }
    assert!(PERMIT * u32::try_from(PERMITS_IN_MAX_WAIT).expect("few") <= MAX_WAIT);
    let mut served = 0;
    for caller in callers {
        let answer = caller.answer().await;
        match answer.status {
            StatusCode::OK => served += 1,
            _ => assert_is_out_of_budget(&answer),
        }
    }
    assert_eq!(served, burst + PERMITS_IN_MAX_WAIT);
    assert_eq!(world.refold.rate_limited(), 0);
}

fn assert_is_out_of_budget(answer: &Answer) {
    assert_eq!(answer.error(), (429, "UPSTREAM_BUDGET_EXCEEDED".to_owned()));
    assert!(answer.header("retry-after").parse::<u64>().expect("a number") >= 1);
}

#[tokio::test]
async fn a_key_beyond_its_own_budget_spends_nothing_of_its_account() {
    let greedy = ClientKey::new("greedy", "pst_greedy").limit(1, 1);
    let config = Configuration::with_default_limits().client_limit(1, 5);
    let builder = World::builder().config(|_| config).client_keys([greedy, ClientKey::new("modest", KEY)]);
    let world = builder.start().await;
    for number in 0..20 {
        let headers = [("x-api-key", "pst_greedy"), ("linked_account_id", "acme-2")];
        let answer = world.gateway.get(EXECUTIONS, &headers).await;
        assert_eq!(answer.status == StatusCode::OK, number == 0);
        if number > 0 {
            // The account's budget is not looked at.
            assert_eq!(answer.header("ratelimit"), "\"key\";r=0;t=1");
        }
    }
    let modest = world.list("acme-2", "").await;
    assert_eq!((modest.status, modest.header("ratelimit")), (StatusCode::OK, "\"account\";r=3;t=2"));
}

#[tokio::test]
async fn concurrent_requests_of_a_new_session_token_wait_for_the_first() {
    let config = Configuration::with_default_limits().upstream_limit(4, 8);
    let world = World::builder().config(|_| config).start().await;
    let ask = |token: &str| {
        let authorization = format!("Bearer {token}");
        let page = |page: u32| format!("{EXECUTIONS}?page={page}");
        [1, 2, 3, 4].map(|number| world.gateway.spawn_get(&page(number), &[("authorization", &authorization)]))
    };
    for pending in ask(&world.refold.session_token("acme-1")) {
        assert_eq!(pending.answer().await.status, StatusCode::OK);
    }
    // Of a made-up token one request is sent, and its refusal answers the others.
    let before = world.refold.requests();
    for pending in ask("made-up") {
        assert_eq!(pending.answer().await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.refold.requests() - before, 1);
}
