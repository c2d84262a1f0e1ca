//! JWTs of configured issuers.

use std::time::Duration;

use http::{Method, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::harness::{Answer, EXECUTIONS, ORG_KEY, Setup, World, client_key};
use crate::issuer::{self, KeyServer, RSA_PUBLIC, STRANGER, claims, header, private, public, sign};

const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn id(algorithm: Algorithm) -> String {
    format!("{algorithm:?}-1")
}

async fn world(issuers: &str) -> World {
    let setup = Setup::default();
    let tenant = setup.tenant.clone() + issuers;
    Setup { tenant, ..setup }.start().await
}

async fn with_key_server() -> (World, KeyServer) {
    let keys = ALGORITHMS.map(|algorithm| public(algorithm, &id(algorithm)));
    let server = KeyServer::start(&keys).await;
    let world = world(&server.lines("")).await;
    (world, server)
}

async fn ask(world: &World, token: &str, headers: &[(&str, &str)]) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [&[("authorization", authorization.as_str())], headers].concat();
    world.gateway.get(EXECUTIONS, &headers).await
}

fn good(linked_account: &str) -> String {
    sign(&header(Algorithm::RS256, &id(Algorithm::RS256)), &claims(linked_account), &private(Algorithm::RS256))
}

#[tokio::test]
async fn a_token_of_every_algorithm_is_taken_and_reads_its_linked_account() {
    let (world, _server) = with_key_server().await;
    let page = world.list("acme-1", "").await;
    for algorithm in ALGORITHMS {
        let token = sign(&header(algorithm, &id(algorithm)), &claims("acme-1"), &private(algorithm));
        let answer = ask(&world, &token, &[]).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, &page.body), "{algorithm:?}");
        assert!(answer.header("cache-status").starts_with("postern; hit"), "it shares its account's cache");
    }
}

#[tokio::test]
async fn keys_come_from_a_pem_or_a_jwks_file_or_a_secret() {
    let folder = std::env::temp_dir().join(format!("postern-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let pem = folder.join("issuer.pem");
    std::fs::write(&pem, RSA_PUBLIC).expect("a temporary file");
    let jwks = folder.join("jwks.json");
    let keys = json!({ "keys": [public(Algorithm::ES256, "a"), public(Algorithm::EdDSA, "b"), { "kty": "oct", "k": "c2VjcmV0" }] });
    std::fs::write(&jwks, keys.to_string()).expect("a temporary file");
    let world_of = async |keys: String| world(&issuer::issuer(&keys, "")).await;
    let first = world_of(format!("file = \"{}\"", pem.display())).await;
    assert_eq!(ask(&first, &good("acme-1"), &[]).await.status, StatusCode::OK);
    let second = world_of(format!("file = \"{}\"", jwks.display())).await;
    for (algorithm, key) in [(Algorithm::ES256, "a"), (Algorithm::EdDSA, "b")] {
        let token = sign(&header(algorithm, key), &claims("acme-1"), &private(algorithm));
        assert_eq!(ask(&second, &token, &[]).await.status, StatusCode::OK);
    }
    let third = world_of("secret = { env = \"JWT_SECRET\" }".to_owned()).await;
    let secret = EncodingKey::from_secret(crate::harness::JWT_SECRET.as_bytes());
    let token = sign(&Header::new(Algorithm::HS256), &claims("acme-1"), &secret);
    assert_eq!(ask(&third, &token, &[]).await.status, StatusCode::OK);
    std::fs::remove_dir_all(&folder).expect("it is ours");
}

#[tokio::test]
async fn a_token_reads_the_accounts_it_names_and_no_other() {
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
    let unsaid = ask(&world, &several, &[]).await;
    assert_eq!(
        (unsaid.status, unsaid.json()["http_error_type"].as_str()),
        (StatusCode::BAD_REQUEST, Some("INVALID_LINKED_ACCOUNT_ID"))
    );
    for none in [json!(null), json!([]), json!(""), json!(7), json!({})] {
        assert_eq!(status(&token(none), "acme-1").await.status, StatusCode::FORBIDDEN);
    }
    // What no header can hold, or not as it is, would go upstream as nobody's request or as another's.
    let asked = world.refold.requests();
    for strange in ["acme\n1", "acme-1 ", "\tacme-1", "acme\u{0}", &"a".repeat(300)] {
        assert_eq!(ask(&world, &token(json!(strange)), &[]).await.status, StatusCode::FORBIDDEN, "{strange:?}");
    }
    assert_eq!(world.refold.requests(), asked);
}

#[tokio::test]
async fn a_key_scoped_to_a_prefix_reads_what_begins_so_and_nothing_else() {
    let tenant = client_key("acme", "pst_acme", "linked_accounts = [\"acme-*\"]");
    let world = Setup { tenant, ..Setup::default() }.start().await;
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
async fn writing_needs_the_word_in_the_scope() {
    let (world, _server) = with_key_server().await;
    let id_of = world.list("acme-1", "limit=1").await.json()["docs"][0]["_id"].as_str().expect("one").to_owned();
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
async fn a_claim_can_name_the_tenant_and_paths_go_into_objects() {
    let server = KeyServer::start(&[public(Algorithm::RS256, "k")]).await;
    let lines = server
        .lines("linked_account_claim = \"https://example.com/refold.account\"")
        .replace("tenant = \"t\"", "tenant_claim = \"org.refold\"");
    let world = world(&lines).await;
    let token = |tenant: &str| {
        let mut claims = claims("nobody");
        claims["org"] = json!({ "refold": tenant });
        claims["https://example.com/refold.account"] = json!("acme-1");
        sign(&header(Algorithm::RS256, "k"), &claims, &private(Algorithm::RS256))
    };
    assert_eq!(ask(&world, &token("t"), &[]).await.status, StatusCode::OK);
    assert_eq!(ask(&world, &token("T"), &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn keys_rotate_without_a_failed_request_and_a_removed_key_is_forgotten() {
    let (world, server) = with_key_server().await;
    let token = |id: &str| sign(&header(Algorithm::RS256, id), &claims("acme-1"), &private(Algorithm::RS256));
    let old = good("acme-1");
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::OK);
    // A new key beside the old one: the first token that names it has the keys fetched.
    let asked = server.asked();
    world.clock.advance(Duration::from_secs(11));
    server.publish(&[public(Algorithm::RS256, "next"), public(Algorithm::RS256, &id(Algorithm::RS256))]);
    assert_eq!(ask(&world, &token("next"), &[]).await.status, StatusCode::OK);
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::OK);
    assert_eq!(server.asked(), asked + 1);
    // Made-up names cost one fetch in the cooldown, however many there are.
    for number in 0..20 {
        assert_eq!(ask(&world, &token(&format!("made-up-{number}")), &[]).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.asked(), asked + 1);
    // While the document can't be had, what is known holds.
    world.clock.advance(Duration::from_secs(11));
    server.fail(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&world, &token("later"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::OK);
    // The old key is taken away: its tokens are good no longer, though one was verified before.
    world.clock.advance(Duration::from_secs(11));
    server.publish(&[public(Algorithm::RS256, "next")]);
    assert_eq!(ask(&world, &token("later"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&world, &token("next"), &[]).await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(11));
    assert_eq!(ask(&world, &old, &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_time_and_says_so() {
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

fn encoded(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with a header of one's own making.
fn with_header(header: &Value) -> String {
    let message = format!("{}.{}", encoded(header), encoded(&claims("acme-1")));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &private(Algorithm::RS256), Algorithm::RS256);
    format!("{message}.{}", signature.expect("a signature"))
}

/// Tokens that are forged, confused or malformed, each with what is wrong about it.
fn bad_tokens() -> Vec<(String, String)> {
    let key = id(Algorithm::RS256);
    let rs256 = || header(Algorithm::RS256, &key);
    let mine = || private(Algorithm::RS256);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims("acme-1");
        change(&mut claims);
        sign(&rs256(), &claims, &mine())
    };
    let token = good("acme-1");
    let mut parts = token.split('.');
    let (head, body, signature) =
        (parts.next().expect("three"), parts.next().expect("three"), parts.next().expect("three"));
    let stranger = EncodingKey::from_rsa_pem(STRANGER).expect("a good key");
    let own_key = issuer::jwk_of(&stranger, Algorithm::RS256, "own");
    let embedded = {
        let header = json!({ "alg": "RS256", "kid": key, "jwk": own_key });
        let message = format!("{}.{body}", encoded(&header));
        format!(
            "{message}.{}",
            jsonwebtoken::crypto::sign(message.as_bytes(), &stranger, Algorithm::RS256).expect("signed")
        )
    };
    let confused = |algorithm| sign(&header(algorithm, &key), &claims("acme-1"), &EncodingKey::from_secret(RSA_PUBLIC));
    let extra = |name: &str, value: Value| {
        let mut header = json!({ "alg": "RS256", "kid": key });
        header[name] = value;
        with_header(&header)
    };
    let mut all = vec![
        ("no algorithm", format!("{}.{body}.", encoded(&json!({ "alg": "none", "kid": key })))),
        ("no algorithm, in capitals", format!("{}.{body}.", encoded(&json!({ "alg": "NONE", "kid": key })))),
        ("no algorithm, with the signature", format!("{}.{body}.{signature}", encoded(&json!({ "alg": "none" })))),
        ("no header at all", format!("e30.{body}.{signature}")),
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{token}.{signature}")),
        ("another's signature", sign(&rs256(), &claims("acme-1"), &stranger)),
        ("another's claims", format!("{head}.{}.{signature}", encoded(&claims("acme-2")))),
        ("a cut signature", format!("{head}.{body}.{}", &signature[..signature.len() - 4])),
        ("the public key as a secret, 256", confused(Algorithm::HS256)),
        ("the public key as a secret, 384", confused(Algorithm::HS384)),
        ("the public key as a secret, 512", confused(Algorithm::HS512)),
        ("a key of its own", embedded),
        ("a key behind a URL", extra("jku", json!("https://evil.example/jwks.json"))),
        ("a certificate behind a URL", extra("x5u", json!("https://evil.example/cert.pem"))),
        ("a certificate of its own", extra("x5c", json!(["MIIB"]))),
        ("something critical", extra("crit", json!(["exp"]))),
        ("compressed", extra("zip", json!("DEF"))),
        ("a key by path", extra("kid", json!("../../../../dev/null"))),
        ("a key by query", extra("kid", json!("' OR 1=1 --"))),
        ("a key that is a number", extra("kid", json!(1))),
        (
            "the key of another algorithm",
            sign(&header(Algorithm::RS256, &id(Algorithm::ES256)), &claims("acme-1"), &mine()),
        ),
        (
            "an algorithm that the key is not for",
            sign(&header(Algorithm::PS256, &id(Algorithm::ES256)), &claims("acme-1"), &mine()),
        ),
        ("another audience", with(&|claims| claims["aud"] = json!("billing"))),
        ("no audience", with(&|claims| claims["aud"] = json!(null))),
        ("an audience that is a list of others", with(&|claims| claims["aud"] = json!(["billing", "postern2"]))),
        ("no end", with(&|claims| drop(claims.as_object_mut().expect("an object").remove("exp")))),
        ("an end that is text", with(&|claims| claims["exp"] = json!("9999999999"))),
        ("an end beyond numbers", with(&|claims| claims["exp"] = json!(1e300))),
        ("not yet", with(&|claims| claims["nbf"] = json!(1_774_008_000 + 600))),
        ("a beginning that is text", with(&|claims| claims["nbf"] = json!("0"))),
        ("another issuer", with(&|claims| claims["iss"] = json!("https://evil.example/"))),
        ("an issuer without the slash", with(&|claims| claims["iss"] = json!("https://login.example.com"))),
        ("no issuer", with(&|claims| claims["iss"] = json!(null))),
        ("an oversized one", with(&|claims| claims["padding"] = json!("x".repeat(9000)))),
        ("claims that are a list", format!("{head}.{}.{signature}", encoded(&json!([1])))),
        ("claims that are no JSON", format!("{head}.bm90IGpzb24.{signature}")),
        ("bytes that are no base64", format!("{head}.{body}.*{}", &signature[1..])),
        ("dots", "..".to_owned()),
        ("nothing", String::new()),
    ];
    all.push(("padding", format!("{head}.{body}.{signature}==")));
    all.into_iter().map(|(what, token)| (what.to_owned(), token)).collect()
}

#[tokio::test]
async fn forged_confused_and_malformed_tokens_are_refused_alike_and_not_echoed() {
    let server = KeyServer::start(&ALGORITHMS.map(|algorithm| public(algorithm, &id(algorithm)))).await;
    // A listener that takes session tokens must not be a way round: it does not here.
    let setup = Setup { session_tokens: false, ..Setup::default() };
    let tenant = setup.tenant.clone() + &server.lines("");
    let world = Setup { tenant, ..setup }.start().await;
    let documented = json!({ "status_code": 401, "http_error_type": "UNAUTHORIZED", "error_code": "SERVER_ERROR", "message": "Invalid Credentials" });
    let tokens = bad_tokens();
    assert!(tokens.len() >= 40, "{}", tokens.len());
    for (what, token) in tokens {
        let answer = ask(&world, &token, &[]).await;
        let mut body = answer.json();
        body.as_object_mut().expect("an object").remove("request_id");
        assert_eq!((answer.status, body), (StatusCode::UNAUTHORIZED, documented.clone()), "{what}");
        assert!(token.len() < 3 || !format!("{:?} {:?}", answer.headers, answer.body).contains(&token), "{what}");
    }
    assert_eq!(world.refold.requests(), 0, "none of them has reached Refold");
    // Keys that are unknown and keys that are wrong look alike as well, and so do the org key and the empty one.
    for key in ["pst_unknown", "pst_all_accountz", "PST_ALL_ACCOUNTS", ORG_KEY, "", " "] {
        let answer = world.gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "acme-1")]).await;
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("Invalid Credentials")),
            "{key}"
        );
    }
    assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK, "a good one passes");
}

#[tokio::test]
async fn an_issuers_bad_token_is_never_tried_as_a_session_token() {
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
