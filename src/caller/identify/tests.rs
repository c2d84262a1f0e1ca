use std::path::Path;

use http::HeaderMap;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::clock::Clock;
use crate::config::{Config, Environment};

const CONFIG: &str = r#"
[[tenants]]
id = "t"
mode = "inject"
org_key = { env = "ORG_KEY" }

[[issuers]]
issuer = "https://login.example.com/"
audience = ["postern"]
keys = { secret = { env = "SECRET" } }
tenant_claim = "org"

[[issuers]]
issuer = "https://remote.example.com/"
audience = ["postern"]
keys = { url = "http://127.0.0.1:9/jwks" }
tenant = "t"
"#;

const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";

fn callers() -> Callers {
    let mut environment = Environment::default();
    environment.insert("ORG_KEY", "org-key");
    environment.insert("SECRET", SECRET);
    let config =
        Config::parse(CONFIG, Path::new("postern.toml"), &environment).unwrap_or_else(|error| panic!("{error}"));
    Callers::new(&config, &Clock::manual(Timestamp::UNIX_EPOCH), None).expect("an HTTP client")
}

fn identify(token: &str) -> Result<Caller, Unidentified> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("a token"));
    callers().identify(&RequestHeaders::of(&headers), &ListenerIdentity::default(), Moment::default())
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example.com/", "aud": "postern", "org": "t", "linked_account_id": "acme-1", "exp": 60,
    })
}

fn token(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("a token")
}

fn refused(token: &str) -> ClientError {
    match identify(token) {
        Err(Unidentified::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_valid_token_identifies_its_caller() {
    let caller = identify(&token(Algorithm::HS256, &claims(), SECRET)).expect("a valid token");
    assert_eq!(caller.partition().linked_account_id(), Some("acme-1"));
}

#[test]
fn only_the_operator_learns_why_a_token_is_invalid() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        token(Algorithm::HS256, &claims, SECRET)
    };
    let cases = [
        (with("aud", json!("another")), "the claim `aud` names none of the issuer's audiences"),
        (with("exp", json!("soon")), "the claim `exp` is not a NumericDate"),
        (with("exp", Value::Null), "the claim `exp` is not a NumericDate"),
        (with("nbf", json!(1000)), "the claim `nbf` lies in the future"),
        (with("org", json!("another")), "the claim `org` names no tenant"),
        (token(Algorithm::HS256, &claims(), "another secret"), "no key of the issuer verifies the signature"),
        (token(Algorithm::HS384, &claims(), SECRET), "the issuer does not sign with HS384"),
    ];
    for (token, cause) in cases {
        let error = refused(&token);
        assert_eq!(error.body("id"), ClientError::invalid_credentials().body("id"), "{cause}");
        assert_eq!(error.cause().map(ToString::to_string).as_deref(), Some(cause));
    }
}

#[test]
fn an_expired_token_is_refused_as_expired() {
    let mut claims = claims();
    claims["exp"] = json!(-1000);
    let error = refused(&token(Algorithm::HS256, &claims, SECRET));
    assert_eq!(error.operator_code(), "EXPIRED_CREDENTIALS");
    assert_eq!(error.cause().map(ToString::to_string).as_deref(), Some("the claim `exp` lies in the past"));
}

#[test]
fn a_key_that_stays_unknown_makes_the_token_invalid() {
    let mut claims = claims();
    claims["iss"] = json!("https://remote.example.com/");
    let key = EncodingKey::from_ed_pem(include_bytes!("../../../tests/data/issuer-ed25519.pem")).expect("a key");
    let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("a token");
    let unidentified = identify(&token).expect_err("the issuer's keys are not fetched yet");
    assert!(matches!(unidentified, Unidentified::UnknownKey(_)));
    let error = unidentified.into_error();
    assert_eq!(error.body("id"), ClientError::invalid_credentials().body("id"));
    let cause = "the issuer has no key with the `kid` of the token";
    assert_eq!(error.cause().map(ToString::to_string).as_deref(), Some(cause));
}
