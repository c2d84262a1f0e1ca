//! The validity of a JWT over time, its size, and the reason that the operator sees when it is refused.

use std::time::Duration;

use http::StatusCode;
use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::tokens::{ALGORITHMS, KeyServer, NOW, ask, claims, good, header, key_id, private, public, sign};
use crate::support::{Issuer, JWT_SECRET, Listener, Process, World, until};

async fn world(issuer: Issuer) -> World {
    World::builder().config(|config| config.issuer(issuer)).start().await
}

fn with_claims(claims: &Value) -> String {
    sign(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(JWT_SECRET.as_bytes()))
}

fn with_expiry(exp: impl Into<Value>) -> String {
    let mut claims = claims("acme-1");
    claims["exp"] = exp.into();
    with_claims(&claims)
}

/// The status of a request with the token, and the error code of a refusal.
async fn outcome(world: &World, token: &str) -> (StatusCode, Option<String>) {
    let answer = ask(world, token, &[]).await;
    (answer.status, (answer.status != StatusCode::OK).then(|| answer.error_code()))
}

fn accepted() -> (StatusCode, Option<String>) {
    (StatusCode::OK, None)
}

fn expired() -> (StatusCode, Option<String>) {
    (StatusCode::UNAUTHORIZED, Some("EXPIRED_CREDENTIALS".to_owned()))
}

#[tokio::test]
async fn a_remembered_token_expires_when_the_wall_clock_does() {
    let world = world(Issuer::with_secret()).await;
    for (exp, step) in [
        (json!(NOW + 3600), SignedDuration::from_hours(2)),
        // Exactly `exp` and the leeway of 30 s.
        (json!(NOW + 7200 + 60), SignedDuration::from_secs(90)),
        // A NumericDate may have a fraction.
        (json!(1_774_008_000.0 + 7290.0 + 60.5), SignedDuration::from_hours(30 * 24)),
    ] {
        let token = with_expiry(exp.clone());
        assert_eq!(outcome(&world, &token).await, accepted(), "{exp}");
        assert_eq!(outcome(&world, &token).await, accepted(), "{exp}: remembered");
        // As after the sleep of a machine whose monotonic clock stands still meanwhile.
        world.clock.step_wall(step);
        assert_eq!(outcome(&world, &token).await, expired(), "{exp}");
    }
}

#[tokio::test]
async fn a_remembered_token_expires_although_the_wall_clock_is_set_back() {
    for (back, passed) in [(3600, 3630), (10, 3630), (86_400, 3630)] {
        let world = world(Issuer::with_secret()).await;
        let token = with_expiry(NOW + 3600);
        assert_eq!(outcome(&world, &token).await, accepted());
        world.clock.step_wall(SignedDuration::from_secs(-back));
        world.clock.advance(Duration::from_secs(passed - 1));
        assert_eq!(outcome(&world, &token).await, accepted(), "{back}");
        world.clock.advance(Duration::from_secs(1));
        for _ in 0..2 {
            assert_eq!(outcome(&world, &token).await, expired(), "{back}");
        }
    }
}

#[tokio::test]
async fn a_token_verified_with_new_keys_lives_no_longer() {
    let keys = |ids: &[&str]| ids.iter().map(|id| public(Algorithm::RS256, id)).collect::<Vec<_>>();
    let server = KeyServer::start(&keys(&["RS256-1", "old"])).await;
    let world = world(server.issuer()).await;
    let token = good("acme-1");
    assert_eq!(outcome(&world, &token).await, accepted());
    world.clock.step_wall(SignedDuration::from_hours(-1));
    server.publish(&keys(&["RS256-1", "new"]));
    world.clock.advance(Duration::from_secs(3629));
    let with_new = sign(&header(Algorithm::RS256, "new"), &claims("acme-2"), &private(Algorithm::RS256));
    assert_eq!(outcome(&world, &with_new).await, accepted(), "the keys are read again");
    assert_eq!(outcome(&world, &token).await, accepted(), "by the new keys");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&world, &token).await, expired());
}

#[tokio::test]
async fn a_token_may_be_as_large_as_a_header() {
    let server = KeyServer::start(&ALGORITHMS.map(|algorithm| public(algorithm, &key_id(algorithm)))).await;
    let world = world(server.issuer()).await;
    let with_groups = |groups: usize| {
        let mut claims = claims("acme-1");
        claims["groups"] = (0..groups).map(|group| format!("group-{group:032}")).collect();
        sign(&header(Algorithm::RS256, "RS256-1"), &claims, &private(Algorithm::RS256))
    };
    for (groups, least) in [(157, 8500), (200, 11_000), (270, 15_000)] {
        let token = with_groups(groups);
        assert!(token.len() > least && token.len() < 16 << 10, "{}", token.len());
        assert_eq!(outcome(&world, &token).await, accepted(), "{}", token.len());
    }
    let too_large = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Some("HEADERS_TOO_LARGE".to_owned()));
    assert_eq!(outcome(&world, &with_groups(300)).await, too_large);
}

/// Tokens and other credentials that are refused, each with the reason in the metrics.
fn refused_tokens() -> [(String, &'static str); 7] {
    let changed = |name: &str, value: Value| {
        let mut claims = claims("acme-1");
        claims[name] = value;
        with_claims(&claims)
    };
    let good = with_claims(&claims("acme-1"));
    [
        (changed("aud", json!("another")), "token_audience"),
        (changed("exp", json!(NOW - 31)), "token_expired"),
        (changed("exp", json!(null)), "token_dates"),
        (changed("nbf", json!(NOW + 31)), "token_not_yet_valid"),
        (format!("{}{}", &good[..good.len() - 2], "AA"), "token_signature"),
        (sign(&header(Algorithm::RS256, "k"), &claims("acme-1"), &private(Algorithm::RS256)), "token_algorithm"),
        ("not-a-jwt-and-no-session-token".to_owned(), "no_issuer"),
    ]
}

#[tokio::test]
async fn metrics_name_what_was_wrong_with_a_credential() {
    let builder = World::builder().listener(Listener::no_session_tokens);
    let world = builder.config(|config| config.issuer(Issuer::with_secret())).start().await;
    for (token, reason) in refused_tokens() {
        let line = format!("postern_refused_credentials_total{{reason=\"{reason}\"}} 1");
        assert!(!world.gateway.metrics().contains(&line));
        assert_eq!(ask(&world, &token, &[]).await.status, StatusCode::UNAUTHORIZED, "{reason}");
        until(|| world.gateway.metrics().contains(&line)).await;
    }
    for (headers, reason) in
        [([("linked_account_id", "a")].as_slice(), "missing"), (&[("x-api-key", "x")], "unknown_key")]
    {
        assert_eq!(world.gateway.get(crate::support::EXECUTIONS, headers).await.status, StatusCode::UNAUTHORIZED);
        let line = format!("postern_refused_credentials_total{{reason=\"{reason}\"}} 1");
        until(|| world.gateway.metrics().contains(&line)).await;
    }
}

#[tokio::test]
async fn the_log_names_what_was_wrong_with_a_credential() {
    let config = World::start().await.config().listener(Listener::no_session_tokens);
    let mut process = Process::serve_configuration(&config.issuer(Issuer::with_secret()), &[]).await;
    let client = crate::support::Client::new(process.address());
    let far = json!(4_000_000_000_u64);
    let with = |name: &str, value: &Value| {
        let mut claims = claims("acme-1");
        claims["exp"] = far.clone();
        claims[name] = value.clone();
        with_claims(&claims)
    };
    for (token, cause) in [
        (with("aud", &json!("another")), "the claim `aud` names none of the issuer's audiences"),
        (with("nbf", &far), "the claim `nbf` lies in the future"),
        ("made.up.token".to_owned(), "the token is of no configured issuer"),
    ] {
        let authorization = format!("Bearer {token}");
        let answer = client.get(crate::support::EXECUTIONS, &[("authorization", &authorization)]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json()["message"], "Invalid Credentials", "the caller does not learn it");
        process.until_logged(cause, 1).await;
    }
}
