//! Forged, confused and malformed JWTs.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::support::tokens::{
    ALGORITHMS, KeyServer, NOW, RSA_PUBLIC, STRANGER, ask, claims, good, header, jwk_of, key_id, private, public, sign,
};
use crate::support::{EXECUTIONS, Listener, ORG_KEY, World};

/// A token with its defect.
type Bad = (&'static str, String);

fn encoded(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A header and claims as they are, signed with a key.
fn signed(header: &Value, claims: &Value, key: &EncodingKey) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::RS256).expect("a signature");
    format!("{message}.{signature}")
}

fn stranger() -> EncodingKey {
    EncodingKey::from_rsa_pem(STRANGER).expect("a good key")
}

/// A good token with one more field in its header.
fn with_header(name: &str, value: Value) -> String {
    let mut header = json!({ "alg": "RS256", "kid": key_id(Algorithm::RS256) });
    header[name] = value;
    signed(&header, &claims("acme-1"), &private(Algorithm::RS256))
}

/// A good token with changed claims.
fn with_claims(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims("acme-1");
    change(&mut claims);
    sign(&header(Algorithm::RS256, &key_id(Algorithm::RS256)), &claims, &private(Algorithm::RS256))
}

fn with_claim(name: &str, value: Value) -> String {
    with_claims(|claims| claims[name] = value)
}

/// Tokens that are no three parts of the expected content.
fn malformed() -> Vec<Bad> {
    let key = key_id(Algorithm::RS256);
    let token = good("acme-1");
    let [head, body, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    vec![
        ("no algorithm", format!("{}.{body}.", encoded(&json!({ "alg": "none", "kid": key })))),
        ("no algorithm, in capitals", format!("{}.{body}.", encoded(&json!({ "alg": "NONE", "kid": key })))),
        ("no algorithm, with the signature", format!("{}.{body}.{signature}", encoded(&json!({ "alg": "none" })))),
        ("no header at all", format!("e30.{body}.{signature}")),
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{token}.{signature}")),
        ("another's claims", format!("{head}.{}.{signature}", encoded(&claims("acme-2")))),
        ("a cut signature", format!("{head}.{body}.{}", &signature[..signature.len() - 4])),
        ("claims that are a list", format!("{head}.{}.{signature}", encoded(&json!([1])))),
        ("claims that are no JSON", format!("{head}.bm90IGpzb24.{signature}")),
        ("bytes that are no base64", format!("{head}.{body}.*{}", &signature[1..])),
        ("dots", "..".to_owned()),
        ("nothing", String::new()),
        ("padding", format!("{head}.{body}.{signature}==")),
    ]
}

/// Tokens that name or bring a key or an algorithm of the forger's choice.
fn confused() -> Vec<Bad> {
    let key = key_id(Algorithm::RS256);
    let ec_key = key_id(Algorithm::ES256);
    let with_algorithm = |algorithm, id: &str, key: &EncodingKey| sign(&header(algorithm, id), &claims("acme-1"), key);
    let public_key = EncodingKey::from_secret(RSA_PUBLIC);
    let own_key = jwk_of(&stranger(), Algorithm::RS256, "own");
    let embedded = json!({ "alg": "RS256", "kid": key, "jwk": own_key });
    vec![
        ("an oversized one", with_header("x", json!("x".repeat(9000))) + "AA"),
        ("another's signature", with_algorithm(Algorithm::RS256, &key, &stranger())),
        ("the public key as a secret, 256", with_algorithm(Algorithm::HS256, &key, &public_key)),
        ("the public key as a secret, 384", with_algorithm(Algorithm::HS384, &key, &public_key)),
        ("the public key as a secret, 512", with_algorithm(Algorithm::HS512, &key, &public_key)),
        ("a key of its own", signed(&embedded, &claims("acme-1"), &stranger())),
        ("a key behind a URL", with_header("jku", json!("https://evil.example/jwks.json"))),
        ("a certificate behind a URL", with_header("x5u", json!("https://evil.example/cert.pem"))),
        ("a certificate of its own", with_header("x5c", json!(["MIIB"]))),
        ("something critical", with_header("crit", json!(["exp"]))),
        ("compressed", with_header("zip", json!("DEF"))),
        ("a key by path", with_header("kid", json!("../../../../dev/null"))),
        ("a key by query", with_header("kid", json!("' OR 1=1 --"))),
        ("a key that is a number", with_header("kid", json!(1))),
        ("the key of another algorithm", with_algorithm(Algorithm::RS256, &ec_key, &private(Algorithm::RS256))),
        ("an algorithm that the key is not for", with_algorithm(Algorithm::PS256, &ec_key, &private(Algorithm::RS256))),
    ]
}

/// Tokens of the issuer whose claims do not hold.
fn with_bad_claims() -> Vec<Bad> {
    vec![
        ("another audience", with_claim("aud", json!("billing"))),
        ("no audience", with_claim("aud", json!(null))),
        ("an audience that is a list of others", with_claim("aud", json!(["billing", "postern2"]))),
        ("no end", with_claims(|claims| drop(claims.as_object_mut().expect("an object").remove("exp")))),
        ("an end that is text", with_claim("exp", json!("9999999999"))),
        ("an end beyond numbers", with_claim("exp", json!(1e300))),
        ("not yet", with_claim("nbf", json!(NOW + 600))),
        ("a beginning that is text", with_claim("nbf", json!("0"))),
        ("another issuer", with_claim("iss", json!("https://evil.example/"))),
        ("an issuer without the slash", with_claim("iss", json!("https://login.example.com"))),
        ("no issuer", with_claim("iss", json!(null))),
    ]
}

#[tokio::test]
async fn every_invalid_token_is_refused_alike_and_not_echoed() {
    let server = KeyServer::start(&ALGORITHMS.map(|algorithm| public(algorithm, &key_id(algorithm)))).await;
    // The listener takes no session tokens: as such a forged token would be passed on to the upstream.
    let builder = World::builder().config(|config| config.issuer(server.issuer()));
    let world = builder.listener(Listener::no_session_tokens).start().await;
    let documented = json!({ "status_code": 401, "http_error_type": "UNAUTHORIZED", "error_code": "SERVER_ERROR", "message": "Invalid Credentials" });
    let tokens = [malformed(), confused(), with_bad_claims()].concat();
    assert!(tokens.len() >= 40, "{}", tokens.len());
    for (what, token) in tokens {
        let answer = ask(&world, &token, &[]).await;
        let mut body = answer.json();
        body.as_object_mut().expect("an object").remove("request_id");
        assert_eq!((answer.status, body), (StatusCode::UNAUTHORIZED, documented.clone()), "{what}");
        assert!(token.len() < 3 || !format!("{:?} {:?}", answer.headers, answer.body).contains(&token), "{what}");
    }
    assert_eq!(world.refold.requests(), 0, "none of them has reached Refold");
    // Unknown and misspelled client keys get the same refusal, and so do the org key and an empty key.
    for key in ["pst_unknown", "pst_all_accountz", "PST_ALL_ACCOUNTS", ORG_KEY, "", " "] {
        let answer = world.gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", "acme-1")]).await;
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("Invalid Credentials")),
            "{key}"
        );
    }
    assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK, "a good token passes");
}
