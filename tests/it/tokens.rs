//! JWTs of configured issuers.

use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::tokens::{
    ALGORITHMS, KeyServer, RSA_PUBLIC, STRANGER, ask, claims, good, header, key_id as id, private, public, sign,
};
use crate::support::{ClientKey, EXECUTIONS, Folder, Issuer, JWT_SECRET, World};

async fn world(issuer: Issuer) -> World {
    World::builder().config(|config| config.issuer(issuer)).start().await
}

async fn with_key_server() -> (World, KeyServer) {
    let keys = ALGORITHMS.map(|algorithm| public(algorithm, &id(algorithm)));
    let server = KeyServer::start(&keys).await;
    let world = world(server.issuer()).await;
    (world, server)
}

#[tokio::test]
async fn a_token_of_every_algorithm_reads_its_linked_account() {
    let (world, _server) = with_key_server().await;
    let page = world.list("acme-1", "").await;
    for algorithm in ALGORITHMS {
        let token = sign(&header(algorithm, &id(algorithm)), &claims("acme-1"), &private(algorithm));
        let answer = ask(&world, &token, &[]).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, &page.body), "{algorithm:?}");
        assert!(answer.header("cache-status").starts_with("postern; hit"), "tokens of an account share its cache");
    }
}

#[tokio::test]
async fn keys_come_from_pem_files_jwks_files_or_secrets() {
    let folder = Folder::new();
    let pem = folder.write("issuer.pem", RSA_PUBLIC);
    let keys = json!({ "keys": [public(Algorithm::ES256, "a"), public(Algorithm::EdDSA, "b"), { "kty": "oct", "k": "c2VjcmV0" }] });
    let jwks = folder.write("jwks.json", keys.to_string());
    let first = world(Issuer::with_file(&pem)).await;
    assert_eq!(ask(&first, &good("acme-1"), &[]).await.status, StatusCode::OK);
    let second = world(Issuer::with_file(&jwks)).await;
    for (algorithm, key) in [(Algorithm::ES256, "a"), (Algorithm::EdDSA, "b")] {
        let token = sign(&header(algorithm, key), &claims("acme-1"), &private(algorithm));
        assert_eq!(ask(&second, &token, &[]).await.status, StatusCode::OK);
    }
    let third = world(Issuer::with_secret()).await;
    let secret = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    let token = sign(&Header::new(Algorithm::HS256), &claims("acme-1"), &secret);
    assert_eq!(ask(&third, &token, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_reads_only_the_accounts_it_names() {
    let (world, _server) = with_key_server().await;
    let one = good("acme-1");
    let status = async |token: &str, account: &str| ask(&world, token, &[("linked_account_id", account)]).await;
    assert_eq!(status(&one, "acme-1").await.status, StatusCode::OK);
    for other in ["acme-2", "Acme-1", "acme", "acme-1x", "*"] {
        let answer = status(&one, other).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (StatusCode::FORBIDDEN, "LINKED_ACCOUNT_NOT_ALLOWED")
        );
    }
    let token = |accounts: Value| {
        let mut claims = claims("");
        claims["linked_account_id"] = accounts;
        sign(&header(Algorithm::RS256, &id(Algorithm::RS256)), &claims, &private(Algorithm::RS256))
    };
    let several = token(json!(["acme-1", "acme-2"]));
    assert_eq!(status(&several, "acme-2").await.status, StatusCode::OK);
    assert_eq!(status(&several, "acme-3").await.status, StatusCode::FORBIDDEN);
    let unnamed = ask(&world, &several, &[]).await;
    assert_eq!(
        (unnamed.status, unnamed.json()["http_error_type"].as_str()),
        (StatusCode::BAD_REQUEST, Some("INVALID_LINKED_ACCOUNT_ID"))
    );
    for none in [json!(null), json!([]), json!(""), json!(7), json!({})] {
        assert_eq!(status(&token(none), "acme-1").await.status, StatusCode::FORBIDDEN);
    }
    // A name that no header can hold unchanged would reach the upstream as another account's.
    let requests = world.refold.requests();
    for strange in ["acme\n1", "acme-1 ", "\tacme-1", "acme\u{0}", &"a".repeat(300)] {
        assert_eq!(ask(&world, &token(json!(strange)), &[]).await.status, StatusCode::FORBIDDEN, "{strange:?}");
    }
    assert_eq!(world.refold.requests(), requests);
}

#[tokio::test]
async fn a_key_for_a_prefix_reads_only_accounts_that_begin_so() {
    let world = World::builder().client_keys([ClientKey::new("acme", "pst_acme").accounts(&["acme-*"])]).start().await;
    for (account, status) in [
        ("acme-1", StatusCode::OK),
        ("acme-", StatusCode::OK),
        ("Acme-1", StatusCode::FORBIDDEN),
        ("acme", StatusCode::FORBIDDEN),
        ("xacme-1", StatusCode::FORBIDDEN),
        ("acme-*", StatusCode::OK),
        ("*", StatusCode::FORBIDDEN),
    ] {
        let answer = world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_acme"), ("linked_account_id", account)]).await;
        assert_eq!(answer.status, status, "{account}");
    }
}

#[tokio::test]
async fn writing_needs_the_configured_scope() {
    let (world, _server) = with_key_server().await;
    let id_of = world.list("acme-1", "limit=1").await.first_id();
    for (scope, status) in [
        (json!("openid executions:write"), StatusCode::OK),
        (json!(["executions:write"]), StatusCode::OK),
        (json!("executions:writer"), StatusCode::FORBIDDEN),
        (json!(null), StatusCode::FORBIDDEN),
    ] {
        let mut claims = claims("acme-1");
        claims["scope"] = scope.clone();
        let token = sign(&header(Algorithm::RS256, &id(Algorithm::RS256)), &claims, &private(Algorithm::RS256));
        let target = format!("{EXECUTIONS}/{id_of}/rerun");
        let authorization = format!("Bearer {token}");
        let answer = world.gateway.send(Method::POST, &target, &[("authorization", &authorization)]).await;
        assert_eq!(answer.status, status, "{scope}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_nested_claim_can_name_the_tenant() {
    let server = KeyServer::start(&[public(Algorithm::RS256, "k")]).await;
    let issuer = server.issuer().set("linked_account_claim", "https://example.com/refold.account");
    let world = world(issuer.without("tenant").set("tenant_claim", "org.refold")).await;
    let token = |tenant: &str| {
        let mut claims = claims("unused");
        claims["org"] = json!({ "refold": tenant });
        claims["https://example.com/refold.account"] = json!("acme-1");
        sign(&header(Algorithm::RS256, "k"), &claims, &private(Algorithm::RS256))
    };
    assert_eq!(ask(&world, &token("t"), &[]).await.status, StatusCode::OK);
    assert_eq!(ask(&world, &token("T"), &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn keys_rotate_without_a_failed_request() {
    let (world, server) = with_key_server().await;
    let token = |id: &str| sign(&header(Algorithm::RS256, id), &claims("acme-1"), &private(Algorithm::RS256));
    let old = good("acme-1");
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::OK);
    // A new key beside the old one: the first token that names it makes the gateway fetch the keys.
    let requests = server.requests();
    world.clock.advance(Duration::from_secs(11));
    server.publish(&[public(Algorithm::RS256, "next"), public(Algorithm::RS256, &id(Algorithm::RS256))]);
    assert_eq!(ask(&world, &token("next"), &[]).await.status, StatusCode::OK);
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::OK);
    assert_eq!(server.requests(), requests + 1);
    // Made-up key ids cost no fetch within the cooldown.
    for number in 0..20 {
        assert_eq!(ask(&world, &token(&format!("made-up-{number}")), &[]).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.requests(), requests + 1);
    // While the document is unavailable, the known keys stay valid.
    world.clock.advance(Duration::from_secs(11));
    server.fail(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&world, &token("later"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::OK);
    // The old key is withdrawn: its tokens are refused, though one was verified before.
    world.clock.advance(Duration::from_secs(11));
    server.publish(&[public(Algorithm::RS256, "next")]);
    assert_eq!(ask(&world, &token("later"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&world, &token("next"), &[]).await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_verified_token_is_refused_as_expired_after_its_leeway() {
    let (world, _server) = with_key_server().await;
    let token = good("acme-1");
    assert_eq!(ask(&world, &token, &[]).await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(3600 + 29));
    assert_eq!(ask(&world, &token, &[]).await.status, StatusCode::OK, "the leeway");
    world.clock.advance(Duration::from_secs(1));
    let answer = ask(&world, &token, &[]).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (StatusCode::UNAUTHORIZED, "EXPIRED_CREDENTIALS"));
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn an_invalid_token_of_an_issuer_is_no_session_token() {
    let (world, _server) = with_key_server().await;
    let forged = sign(
        &header(Algorithm::RS256, &id(Algorithm::RS256)),
        &claims("acme-1"),
        &EncodingKey::from_rsa_pem(STRANGER).expect("a good key"),
    );
    assert_eq!(ask(&world, &forged, &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.refold.requests(), 0);
    let session = world.refold.session_token("acme-1");
    assert_eq!(ask(&world, &session, &[]).await.status, StatusCode::OK);
    assert_eq!(world.refold.requests(), 1);
}
