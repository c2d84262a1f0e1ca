//! Shares of the upstream: of the places in flight between tenants, and of the org key's budget between credentials.

use std::sync::Arc;
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
        let mut tenants = tenant.clone();
        for number in 0..others {
            let key = if number == 0 { OTHER.to_owned() } else { format!("pst_{number}") };
            tenants += &format!(
                "[[tenants]]\nid = \"other-{number}\"\nmode = \"inject\"\norg_key = {{ env = \"OTHER_ORG_KEY\" }}\n{}",
                client_key("other", &key, "linked_accounts = [\"*\"]")
            );
        }
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

/// Callers with ever new accounts by one credential, and one caller of an account by another credential: returns how many of
/// the latter's ten requests were served.
async fn served_beside_a_flood(tenant: &str, flood: &[(&'static str, &str)], clock: postern::clock::Clock) -> usize {
    let upstream = http_upstream(|_| async { page_of(&json!({ "status": "COMPLETED" })) }).await;
    let top = "[limits.client]\nper_second = 100000\nburst = 100000\n[limits.upstream]\nmax_wait = \"2s\"\n";
    let gateway = Arc::new(Gateway::start(upstream, top, tenant, clock.clone()));
    let flood: Vec<(&'static str, String)> = flood.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let mut made_up: Vec<JoinHandle<StatusCode>> = Vec::new();
    let mut known: Vec<JoinHandle<Answer>> = Vec::new();
    for second in 0..10 {
        for number in 0..60 {
            let (gateway, mut headers) = (Arc::clone(&gateway), flood.clone());
            headers.push(("linked_account_id", format!("made-up-{second}-{number}")));
            made_up.push(tokio::spawn(async move {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                gateway.get(EXECUTIONS, &headers).await.status
            }));
        }
        let spent = made_up.len();
        let depth = || gateway.server().gateway().tenants()[0].upstream_budget().queue_depth().total();
        until(|| depth() > 20 || made_up.iter().filter(|asked| asked.is_finished()).count() + 1 >= spent).await;
        known.push(ask(&gateway, OTHER, "real", &format!("page={}", second + 1)));
        for _ in 0..100 {
            clock.advance(Duration::from_millis(10));
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }
    let mut served = 0;
    for asked in known {
        while !asked.is_finished() {
            clock.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
        served += usize::from(asked.await.expect("no panic").status == StatusCode::OK);
    }
    made_up.iter().for_each(JoinHandle::abort);
    served
}

#[tokio::test]
async fn a_credential_that_makes_up_accounts_does_not_starve_another() {
    let real = client_key("real", OTHER, "linked_accounts = [\"real\"]");
    let flooding = client_key("flood", KEY, "linked_accounts = [\"*\"]");
    let prefix = client_key("flood", KEY, "linked_accounts = [\"made-up-*\"]\naccess = \"read+write\"");
    for flood in [flooding, prefix] {
        let Setup { clock, .. } = Setup::default();
        let served = served_beside_a_flood(&format!("{flood}{real}"), &[("x-api-key", KEY)], clock).await;
        assert_eq!(served, 10, "{flood}");
    }
}
