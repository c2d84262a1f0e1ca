//! Shares of the upstream: of the places in flight between tenants, and of the org key's budget between credentials.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::json;

use crate::support::{
    ClientKey, Configuration, EXECUTIONS, Gateway, KEY, PendingAnswer, ScriptedRefold, Tenant, World, http_upstream,
    page_of, until,
};

const OTHER: &str = "pst_of_another_caller";

fn ask(gateway: &Gateway, key: &str, account: &str, query: &str) -> PendingAnswer {
    gateway.spawn_get(&format!("{EXECUTIONS}?{query}"), &[("x-api-key", key), ("linked_account_id", account)])
}

/// The value of a metric without labels.
fn metric(gateway: &Gateway, name: &str) -> usize {
    let text = gateway.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("a metric");
    line.parse().expect("a number")
}

/// An upstream that never answers questions about the workflow `hangs`.
async fn hanging_upstream() -> SocketAddr {
    http_upstream(|request: Request<_>| async move {
        if request.uri().to_string().contains("workflow_id=hangs") {
            std::future::pending::<()>().await;
        }
        page_of(&json!({ "status": "COMPLETED" }))
    })
    .await
}

/// Waits until the hanging requests hold so many places, and asserts that another caller is served nevertheless.
async fn assert_served(gateway: &Gateway, key: &str, taken: usize, places: u32) {
    until(|| metric(gateway, "postern_upstream_in_flight") == taken).await;
    for page in 1..=5 {
        let answer = ask(gateway, key, "b", &format!("page={page}")).answer().await;
        assert_eq!(answer.status, StatusCode::OK, "{places} places");
    }
    assert_eq!(metric(gateway, "postern_upstream_in_flight"), taken);
}

/// The usual tenant, and others with a client key and an org key that is not the usual one's.
fn tenants(others: usize) -> Vec<Tenant> {
    let other = |number: usize| {
        let key = if number == 0 { OTHER.to_owned() } else { format!("pst_{number}") };
        let tenant = Tenant::new(&format!("other-{number}")).org_key("OTHER_ORG_KEY");
        tenant.client_key(ClientKey::new("other", &key))
    };
    let usual = Tenant::new("t").client_key(ClientKey::new("all", KEY));
    std::iter::once(usual).chain((0..others).map(other)).collect()
}

#[tokio::test]
async fn requests_that_hang_leave_places_for_other_tenants() {
    // Other tenants, places, and places that one tenant can take.
    for (others, places, taken) in [(1, 4_u32, 3), (1, 100, 75), (3, 8, 5)] {
        let builder = World::builder().refold(hanging_upstream().await);
        let builder = builder.config(|config| config.set("upstream.max_concurrent", places));
        let world = builder.config(|config| config.tenants(tenants(others))).start().await;
        let hanging: Vec<_> = (1..=places + 5)
            .map(|page| ask(&world.gateway, KEY, "a", &format!("page={page}&workflow_id=hangs")))
            .collect();
        assert_served(&world.gateway, OTHER, taken, places).await;
        hanging.iter().for_each(PendingAnswer::abort);
    }
}

#[tokio::test]
async fn made_up_tokens_that_hang_leave_places_for_everyone_else() {
    // One peer takes half of a quarter.
    for (places, taken) in [(4_u32, 1), (8, 1), (10, 2)] {
        let builder = World::builder().refold(hanging_upstream().await);
        let world = builder.config(|config| config.set("upstream.max_concurrent", places)).start().await;
        let target = format!("{EXECUTIONS}?workflow_id=hangs");
        let hanging: Vec<_> = (0..places + 5)
            .map(|number| {
                let token = format!("Bearer made-up-{number}");
                world.gateway.spawn_get(&target, &[("authorization", &token)])
            })
            .collect();
        assert_served(&world.gateway, KEY, taken, places).await;
        hanging.iter().for_each(PendingAnswer::abort);
    }
}

/// The place in the upstream's order of a request for the account `real`, which comes in after 60 with the key `flood` for as
/// many other accounts.
async fn place_behind_a_flood(flood: ClientKey) -> usize {
    let real = ClientKey::new("real", OTHER).accounts(&["real"]);
    let builder = World::builder().refold(ScriptedRefold::start().await);
    let builder = builder.config(|_| Configuration::with_default_limits().max_wait("60s"));
    let World { gateway, refold, clock, .. } = builder.client_keys([flood, real]).start().await;
    let waiting = || gateway.waiting().callers;
    let _flood: Vec<_> = (0..60).map(|number| ask(&gateway, KEY, &format!("made-up-{number}"), "")).collect();
    until(|| refold.requests() + waiting() == 60).await;
    let queued = waiting();
    let served = ask(&gateway, OTHER, "real", "");
    until(|| waiting() == queued + 1).await;
    while refold.requests() < 61 {
        let before = refold.requests();
        clock.advance(Duration::from_millis(51));
        until(|| refold.requests() > before).await;
    }
    assert_eq!(served.answer().await.status, StatusCode::OK);
    let is_real = |account: Option<&http::HeaderValue>| account.is_some_and(|account| account == "real");
    let order = refold.received();
    let place = order.iter().position(|head| is_real(head.headers.get("linked_account_id")));
    place.expect("the request was sent") - (60 - queued)
}

#[tokio::test]
async fn a_credential_that_makes_up_accounts_does_not_starve_another() {
    let all = ClientKey::new("flood", KEY);
    let some = ClientKey::new("flood", KEY).accounts(&["made-up-*"]).write();
    for flood in [all, some] {
        let description = format!("{flood:?}");
        let place = place_behind_a_flood(flood).await;
        assert!(place <= 2, "{place}: {description}");
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_place_pays_once() {
    // The budget grants four requests at once, and no other until the clock moves.
    for (places, requests, sent) in [(1_u32, 4, 4), (2, 4, 4), (3, 4, 4), (1, 6, 4)] {
        let builder = World::builder().refold(ScriptedRefold::gated().await);
        let builder = builder.config(|config| config.upstream_limit(1, 5).one_worker().max_wait("60s"));
        let world = builder.config(|config| config.set("upstream.max_concurrent", places)).start().await;
        let World { gateway, refold, clock, .. } = &world;
        let mut waiting: Vec<_> = (1..=requests).map(|page| gateway.spawn_list("a", &format!("page={page}"))).collect();
        gateway.until_joined("a", requests).await;
        refold.until_received(usize::try_from(places).expect("few")).await;
        refold.release();
        refold.until_received(sent).await;
        for _ in sent..waiting.len() {
            let before = refold.requests();
            clock.advance(Duration::from_millis(1010));
            until(|| refold.requests() > before).await;
        }
        for answer in waiting.drain(..) {
            assert_eq!(answer.answer().await.status, StatusCode::OK, "{places} places, {requests} requests");
        }
    }
}
