//! Shares of the upstream: of the places in flight between tenants, and of the org key's budget between credentials.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Answer, EXECUTIONS, Gateway, KEY, Setup, client_key, http_upstream, page_of, until};

const OTHER: &str = "pst_of_another_caller";

fn ask(gateway: &Arc<Gateway>, key: &'static str, account: &str, query: &str) -> JoinHandle<Answer> {
    let (gateway, account, target) = (Arc::clone(gateway), account.to_owned(), format!("{EXECUTIONS}?{query}"));
    tokio::spawn(async move { gateway.get(&target, &[("x-api-key", key), ("linked_account_id", &account)]).await })
}

/// The value of a metric without labels.
fn metric(gateway: &Gateway, name: &str) -> usize {
    let text = gateway.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("a metric");
    line.parse().expect("a number")
}

/// An upstream that never answers questions about the workflow `hangs`.
async fn hanging_upstream() -> std::net::SocketAddr {
    http_upstream(|request: Request<_>| async move {
        if request.uri().to_string().contains("workflow_id=hangs") {
            std::future::pending::<()>().await;
        }
        page_of(&json!({ "status": "COMPLETED" }))
    })
    .await
}

#[tokio::test]
async fn requests_that_hang_leave_places_for_other_tenants() {
    let Setup { top, tenant, clock, .. } = Setup::default();
    // As many tenants, places, and places that one tenant can take.
    for (others, places, taken) in [(1, 4, 3), (1, 100, 75), (3, 8, 5)] {
        let other = |number: i32| {
            let key = if number == 0 { OTHER.to_owned() } else { format!("pst_{number}") };
            let key = client_key("other", &key, "linked_accounts = [\"*\"]");
            let org_key = "mode = \"inject\"\norg_key = { env = \"OTHER_ORG_KEY\" }";
            format!("[[tenants]]\nid = \"other-{number}\"\n{org_key}\n{key}")
        };
        let tenants = tenant.clone() + &(0..others).map(other).collect::<String>();
        let top = format!("max_concurrent = {places}\n{top}");
        let gateway = Arc::new(Gateway::start(hanging_upstream().await, &top, &tenants, clock.clone()));
        let hanging: Vec<_> = (0..places + 5)
            .map(|page| ask(&gateway, KEY, "a", &format!("page={}&workflow_id=hangs", page + 1)))
            .collect();
        until(|| metric(&gateway, "postern_upstream_in_flight") == taken).await;
        for page in 1..=5 {
            let answer = ask(&gateway, OTHER, "b", &format!("page={page}")).await.expect("no panic");
            assert_eq!(answer.status, StatusCode::OK, "{places} places");
        }
        assert_eq!(metric(&gateway, "postern_upstream_in_flight"), taken);
        hanging.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test]
async fn made_up_tokens_that_hang_leave_places_for_everyone_else() {
    for (places, taken) in [(4, 1), (8, 2), (10, 3)] {
        let Setup { top, tenant, clock, .. } = Setup::default();
        let top = format!("max_concurrent = {places}\n{top}");
        let gateway = Arc::new(Gateway::start(hanging_upstream().await, &top, &tenant, clock));
        let hanging: Vec<_> = (0..places + 5)
            .map(|number| {
                let gateway = Arc::clone(&gateway);
                let token = format!("Bearer made-up-{number}");
                let target = format!("{EXECUTIONS}?workflow_id=hangs");
                tokio::spawn(async move { gateway.get(&target, &[("authorization", &token)]).await })
            })
            .collect();
        until(|| metric(&gateway, "postern_upstream_in_flight") == taken).await;
        for page in 1..=5 {
            let answer = ask(&gateway, KEY, "b", &format!("page={page}")).await.expect("no panic");
            assert_eq!(answer.status, StatusCode::OK, "{places} places");
        }
        assert_eq!(metric(&gateway, "postern_upstream_in_flight"), taken);
        hanging.iter().for_each(JoinHandle::abort);
    }
}

/// The place in the upstream's order of a request for the account `real`, which arrives after 60 for as many other accounts.
async fn place_behind_a_flood(tenant: &str, flood: &[(&'static str, String)], real: &'static str) -> usize {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let upstream = http_upstream(move |request: Request<_>| {
        let account =
            request.headers().get("linked_account_id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
        seen.lock().expect("no panic").push(account);
        async { page_of(&json!({ "status": "COMPLETED" })) }
    })
    .await;
    let Setup { clock, .. } = Setup::default();
    let top = "[limits.upstream]\nmax_wait = \"60s\"\n";
    let gateway = Arc::new(Gateway::start(upstream, top, tenant, clock.clone()));
    let waiting = || gateway.server().gateway().tenants()[0].upstream_budget().queue_depth().total();
    let asked = || order.lock().expect("no panic").len();
    let mut callers: Vec<JoinHandle<StatusCode>> = Vec::new();
    for number in 0..60 {
        let (gateway, mut headers) = (Arc::clone(&gateway), flood.to_vec());
        headers.push(("linked_account_id", format!("made-up-{number}")));
        callers.push(tokio::spawn(async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            gateway.get(EXECUTIONS, &headers).await.status
        }));
    }
    until(|| asked() + waiting() == 60).await;
    let queued = waiting();
    let served = ask(&gateway, real, "real", "");
    until(|| waiting() == queued + 1).await;
    while asked() < 61 {
        let before = asked();
        clock.advance(Duration::from_millis(51));
        until(|| asked() > before).await;
    }
    assert_eq!(served.await.expect("no panic").status, StatusCode::OK);
    let order = order.lock().expect("no panic");
    order.iter().position(|account| account == "real").expect("it was asked") - (60 - queued)
}

#[tokio::test]
async fn a_credential_that_makes_up_accounts_does_not_starve_another() {
    let real = client_key("real", OTHER, "linked_accounts = [\"real\"]");
    let key = [("x-api-key", KEY.to_owned())];
    for lines in ["linked_accounts = [\"*\"]", "linked_accounts = [\"made-up-*\"]\naccess = \"read+write\""] {
        let flood = client_key("flood", KEY, lines);
        let place = place_behind_a_flood(&format!("{flood}{real}"), &key, OTHER).await;
        assert!(place <= 2, "{place}: {lines}");
    }
}
