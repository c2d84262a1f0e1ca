//! The configuration changes while the gateway serves: cached pages, budgets and credentials.

use http::StatusCode;
use jsonwebtoken::Algorithm;

use crate::support::connection::{Connection, with_key};
use crate::support::tls::{TlsClient, clock_of_certificates, data, folder_with};
use crate::support::tokens::{KeyServer, es256_token_of, public};
use crate::support::{
    Answer, ClientKey, Configuration, EXECUTIONS, KEY, Listener, NEXT_ORG_KEY, ORG_KEY, OTHER_ORG_KEY, ScriptedRefold,
    Tenant, World, WorldBuilder,
};

/// A world whose simulated Refold accepts all org keys of the tests, and whose gateway gives connections that it closes enough
/// time for one more request.
fn builder() -> WorldBuilder {
    let org_keys = [ORG_KEY, NEXT_ORG_KEY, OTHER_ORG_KEY].map(str::to_owned).to_vec();
    let builder = World::builder().simulator(|settings| settings.org_keys = org_keys);
    builder.config(|config| config.drain_timeout("1s"))
}

/// A page of a linked account, requested with a client key.
async fn list(world: &World, key: &str, account: &str) -> Answer {
    world.gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", account)]).await
}

/// A change that touches nothing that a request depends on.
fn harmless(config: Configuration) -> Configuration {
    config.drain_timeout("900ms")
}

#[tokio::test]
async fn cached_pages_survive_an_unrelated_change() {
    let world = builder().start().await;
    assert_eq!(list(&world, KEY, "acme-2").await.cache_status(), "postern; fwd=uri-miss; stored");
    let more = ClientKey::new("new", "pst_new").accounts(&["acme-*"]).limit(1, 1);
    world.gateway.reload(&harmless(world.config()).tenant(|tenant| tenant.client_key(more)));
    assert!(list(&world, "pst_new", "acme-2").await.is_hit());
    assert!(list(&world, KEY, "acme-2").await.is_hit());
    assert_eq!(world.refold.requests(), 1);
    let reloads = world.gateway.reloads();
    assert_eq!((reloads.succeeded, reloads.refused, reloads.last_succeeded()), (1, 0, true));
}

#[tokio::test]
async fn a_rotated_org_key_keeps_the_pages_and_another_drops_them() {
    type Change = fn(Tenant) -> Tenant;
    let world = builder().start().await;
    list(&world, KEY, "acme-2").await;
    let changes: [(Change, bool); 3] = [
        (|tenant| tenant.org_key_next("NEXT_ORG_KEY"), true),
        (|tenant| tenant.org_key("NEXT_ORG_KEY"), true),
        (|tenant| tenant.org_key("OTHER_ORG_KEY"), false),
    ];
    for (number, (change, hit)) in changes.into_iter().enumerate() {
        world.gateway.reload(&world.config().tenant(change));
        assert_eq!(list(&world, KEY, "acme-2").await.is_hit(), hit, "change {number}");
    }
}

#[tokio::test]
async fn pages_of_another_upstream_or_other_queries_are_dropped() {
    let world = builder().start().await;
    let other = ScriptedRefold::start().await;
    for changed in [
        world.config().set("upstream.dialect", "v3"),
        world.config().set("query.unknown_parameters", "drop"),
        world.config().set("cache.capacity", "1MiB"),
        world.config().upstream(other.address()),
    ] {
        world.gateway.reload(&world.config());
        list(&world, KEY, "acme-2").await;
        assert!(list(&world, KEY, "acme-2").await.is_hit());
        world.gateway.reload(&changed);
        let answer = list(&world, KEY, "acme-2").await;
        assert_eq!(answer.cache_status(), "postern; fwd=uri-miss; stored", "{}", changed.to_toml());
    }
    assert_eq!(list(&world, KEY, "acme-2").await.first_document()["_id"], 1, "the page of the other upstream");
    assert_eq!(other.requests(), 1);
}

#[tokio::test]
async fn a_reload_refills_no_budget_unless_its_rate_changes() {
    let keys = [ClientKey::new("all", KEY), ClientKey::new("small", "pst_small").limit(1, 2)];
    let limits = Configuration::with_default_limits().upstream_limit(1, 3).max_wait("0s").client_limit(1, 6);
    let limits = limits.set("cache.capacity", 0);
    let world = builder().config(|_| limits).client_keys(keys).start().await;
    let spend = async |key, account| list(&world, key, account).await;
    while spend(KEY, "acme-1").await.status == StatusCode::OK {}
    while spend("pst_small", "acme-3").await.error_code() != "RATE_LIMIT_EXCEEDED" {}
    world.gateway.reload(&world.config().tenant(|tenant| tenant.client_key(ClientKey::new("new", "pst_new"))));
    assert_eq!(spend(KEY, "acme-1").await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    assert_eq!(spend("pst_small", "acme-3").await.error_code(), "RATE_LIMIT_EXCEEDED");
    while spend(KEY, "acme-1").await.error_code() != "RATE_LIMIT_EXCEEDED" {}
    world.gateway.reload(&world.config());
    assert_eq!(spend(KEY, "acme-1").await.error_code(), "RATE_LIMIT_EXCEEDED");
    // A client budget with another rate begins full; what was spent of Refold's budget stays spent.
    world.gateway.reload(&world.config().client_limit(1, 7).upstream_limit(1, 4));
    let before = world.refold.requests();
    let answers = [spend(KEY, "acme-1").await, spend(KEY, "acme-1").await];
    assert_eq!(world.refold.requests() - before, 1, "the larger burst grants one more at once");
    assert_eq!(answers[0].status, StatusCode::OK);
    assert_eq!(answers[1].error_code(), "UPSTREAM_BUDGET_EXCEEDED");
}

#[tokio::test]
async fn withdrawn_rights_are_refused_on_open_connections() {
    let other = ClientKey::new("other", "pst_other");
    let world = builder().tenant(|tenant| tenant.client_key(other.clone())).start().await;
    let token = format!("authorization: Bearer {}\r\n", world.refold.session_token("acme-1"));
    let restricted = [ClientKey::new("all", KEY).write(), other.accounts(&["x"])];
    let with_other = || with_key("pst_other", "acme-1");
    for (before, after, lines, status) in [
        (world.config(), world.config().client_keys([ClientKey::new("all", KEY).write()]), with_other(), "401"),
        (world.config(), world.config().client_keys(restricted), with_other(), "403"),
        (world.config(), world.config().listener(Listener::no_session_tokens), token, "401"),
        (
            world.config().listener(Listener::trusted),
            world.config().listener(Listener::no_session_tokens),
            "linked_account_id: acme-1\r\n".to_owned(),
            "401",
        ),
        (
            world.config(),
            world.config().tenant(|tenant| tenant.set("id", "u")).listener(Listener::no_session_tokens),
            with_key(KEY, "acme-1"),
            "200",
        ),
    ] {
        world.gateway.reload(&before);
        let mut connection = Connection::open(world.gateway.address).await;
        for _ in 0..2 {
            let head = connection.ask(&lines).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        world.gateway.reload(&after);
        let head = connection.ask(&lines).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{}\n{head}", after.to_toml());
        assert!(!head.contains("connection: close"), "the connection stays open");
    }
}

/// The header of a caller whose certificate is its credential.
const ACCOUNT: [(&str, &str); 1] = [("linked_account_id", "acme-1")];

#[tokio::test]
async fn a_client_certificate_has_the_rights_of_the_present_configuration() {
    let folder = folder_with("server-1");
    let listener = Listener::new().tls(&folder).client_ca(&data("ca.pem"));
    let builder = builder().clock(clock_of_certificates().0).config(|config| config.listeners([listener]));
    let world = builder.tenant(|tenant| tenant.client_certificate(&["acme-*"])).start().await;
    let client = TlsClient::new(world.gateway.address, Some("client-app"));
    for (changed, status) in [
        (world.config().tenant(|tenant| tenant.client_certificate(&["globex"])), StatusCode::FORBIDDEN),
        (world.config().tenant(|tenant| tenant.without("client_certificates")), StatusCode::UNAUTHORIZED),
        (world.config().listener(|listener| listener.client_ca(&data("server-1.pem"))), StatusCode::UNAUTHORIZED),
        (harmless(world.config()), StatusCode::OK),
    ] {
        world.gateway.reload(&world.config());
        let mut connection = client.open().await;
        assert_eq!(connection.ask(&ACCOUNT).await.0, StatusCode::OK);
        world.gateway.reload(&changed);
        assert_eq!(connection.ask(&ACCOUNT).await.0, status, "{}", changed.to_toml());
    }
}

#[tokio::test]
async fn a_reload_applies_an_authority_replaced_on_disk_at_once() {
    let folder = folder_with("server-1");
    let put = |authority: &str| folder.write("clients.pem", std::fs::read(data(authority)).expect("the file is there"));
    let listener = Listener::new().tls(&folder).client_ca(&put("ca.pem"));
    let builder = builder().clock(clock_of_certificates().0).config(|config| config.listeners([listener]));
    let world = builder.tenant(|tenant| tenant.client_certificate(&["acme-*"])).start().await;
    let mut connection = TlsClient::new(world.gateway.address, Some("client-app")).open().await;
    assert_eq!(connection.ask(&ACCOUNT).await.0, StatusCode::OK);
    put("server-1.pem");
    world.gateway.reload(&world.config());
    assert_eq!(connection.ask(&ACCOUNT).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_request_ends_with_the_configuration_it_began_with() {
    let world = World::builder().refold(ScriptedRefold::gated().await).start().await;
    let mut begun = Connection::open(world.gateway.address).await;
    begun.send(&with_key(KEY, "acme-1")).await;
    world.refold.until_received(1).await;
    world.gateway.reload(&world.config().client_keys([ClientKey::new("all", "pst_another")]));
    let mut after = Connection::open(world.gateway.address).await;
    assert!(after.ask(&with_key(KEY, "acme-1")).await.starts_with("HTTP/1.1 401"));
    world.refold.release();
    assert!(begun.receive().await.starts_with("HTTP/1.1 200"));
    assert!(begun.ask(&with_key(KEY, "acme-1")).await.starts_with("HTTP/1.1 401"));
    // Its page serves later callers.
    let later = after.ask(&with_key("pst_another", "acme-1")).await;
    assert!(later.contains("cache-status: postern; hit"), "{later}");
}

#[tokio::test]
async fn issuer_keys_survive_a_reload_and_tokens_follow_the_settings() {
    let server = KeyServer::start(&[public(Algorithm::ES256, "one")]).await;
    let world = builder().config(|config| config.issuer(server.issuer())).start().await;
    let ask = async |account| {
        let token = es256_token_of(account, "one");
        world.gateway.get(EXECUTIONS, &[("authorization", &token)]).await.status
    };
    assert_eq!(ask("acme-1").await, StatusCode::OK);
    server.fail(StatusCode::SERVICE_UNAVAILABLE);
    world.gateway.reload(&world.config().issuer(server.issuer().set("leeway", "10s")));
    assert_eq!((ask("acme-1").await, ask("acme-2").await), (StatusCode::OK, StatusCode::OK));
    world.gateway.reload(&world.config().issuer(server.issuer().audience("another")));
    assert_eq!((ask("acme-1").await, ask("acme-2").await), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    world.gateway.reload(&world.config().no_issuer().listener(Listener::no_session_tokens));
    assert_eq!(ask("acme-1").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_accepted_session_token_is_checked_again_at_another_upstream() {
    let world = builder().start().await;
    let token = format!("Bearer {}", world.refold.session_token("acme-2"));
    let ask = async || world.gateway.get(EXECUTIONS, &[("authorization", &token)]).await;
    assert_eq!(ask().await.status, StatusCode::OK);
    world.gateway.reload(&harmless(world.config()));
    assert!(ask().await.is_hit());
    let refuses = ScriptedRefold::start().await;
    refuses.answer_with(401);
    world.gateway.reload(&world.config().upstream(refuses.address()));
    assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
}
