//! Issuers whose keys can't be read: at the start, for a while, or never.

use std::time::Duration;

use http::StatusCode;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::support::tokens::{ISSUER, KeyServer, ask, claims, good, header, private, public, sign};
use crate::support::{Client, Configuration, EXECUTIONS, PendingAnswer, World, as_account, until};

async fn world(server: &KeyServer) -> World {
    World::builder().config(|config| config.issuer(server.issuer()).admin()).start().await
}

/// A key server that fails from the start.
async fn failing() -> KeyServer {
    let server = KeyServer::start(&[public(Algorithm::RS256, "RS256-1")]).await;
    server.fail(StatusCode::BAD_GATEWAY);
    server
}

fn of_key(id: &str) -> String {
    sign(&header(Algorithm::RS256, id), &claims("acme-1"), &private(Algorithm::RS256))
}

fn spawn(world: &World, token: &str) -> PendingAnswer {
    world.gateway.spawn_get(EXECUTIONS, &[("authorization", &format!("Bearer {token}"))])
}

#[tokio::test]
async fn tokens_of_an_issuer_without_keys_get_503() {
    let server = failing().await;
    let world = world(&server).await;
    for token in [good("acme-1"), of_key("made-up"), good("acme-2")] {
        let answer = ask(&world, &token, &[]).await;
        assert_eq!(answer.error(), (503, "ISSUER_KEYS_UNAVAILABLE".to_owned()));
        let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
        assert!((1..=8).contains(&seconds), "{seconds}");
    }
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK, "other credentials are not concerned");
    assert_eq!(ask(&world, "made-up.session.token", &[]).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_failed_fetch_of_keys_is_tried_again_after_seconds() {
    for failures in [1, 2, 5] {
        let server = failing().await;
        let world = world(&server).await;
        for failure in 0..failures {
            assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
            if failure + 1 < failures {
                world.clock.advance(Duration::from_secs(8));
            }
        }
        server.publish(&[public(Algorithm::RS256, "RS256-1")]);
        world.clock.advance(Duration::from_secs(8));
        assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK, "after {failures} failures");
    }
}

#[tokio::test]
async fn failed_keys_are_fetched_again_without_a_token() {
    let server = failing().await;
    let world = world(&server).await;
    let readiness = async || world.gateway.admin("/readyz", &[]).await;
    until(|| server.requests() > 0).await;
    server.publish(&[public(Algorithm::RS256, "RS256-1")]);
    let mut polls = 0;
    while readiness().await.json()["issuers_without_keys"] != json!([]) {
        polls += 1;
        assert!(polls < 1000, "the keys are not fetched again");
        world.clock.advance(Duration::from_secs(1));
    }
    let requests = server.requests();
    assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK);
    assert_eq!(server.requests(), requests);
}

#[tokio::test]
async fn readiness_lists_issuers_without_keys_and_stays_green() {
    let server = failing().await;
    let world = world(&server).await;
    assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let answer = world.gateway.admin("/readyz", &[]).await;
    assert_eq!((answer.status, &answer.json()["issuers_without_keys"]), (StatusCode::OK, &json!([ISSUER])));
    let gauge = |value: u8| format!("postern_issuer_keys_available{{issuer=\"{ISSUER}\"}} {value}");
    assert!(world.gateway.metrics().contains(&gauge(0)), "{}", world.gateway.metrics());
    server.publish(&[public(Algorithm::RS256, "RS256-1")]);
    world.clock.advance(Duration::from_secs(8));
    assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK);
    let answer = world.gateway.admin("/readyz", &[]).await;
    assert_eq!((answer.status, &answer.json()["issuers_without_keys"]), (StatusCode::OK, &json!([])));
    assert!(world.gateway.metrics().contains(&gauge(1)));
    // A later failure leaves the keys in use.
    server.fail(StatusCode::BAD_GATEWAY);
    world.clock.advance(Duration::from_mins(10));
    assert_eq!(ask(&world, &of_key("unknown"), &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.gateway.admin("/readyz", &[]).await.json()["issuers_without_keys"], json!([]));
}

#[tokio::test]
async fn a_token_with_an_unknown_key_does_not_wait_for_a_hanging_fetch() {
    for known in [[].as_slice(), &[public(Algorithm::RS256, "RS256-1")]] {
        let server = KeyServer::start(known).await;
        if known.is_empty() {
            server.hang();
        }
        let world = world(&server).await;
        if !known.is_empty() {
            assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK);
            server.hang();
            world.clock.advance(Duration::from_secs(11));
        }
        let waiting: Vec<PendingAnswer> =
            (0..20).map(|number| spawn(&world, &of_key(&format!("k-{number}")))).collect();
        until(|| {
            world.clock.advance(Duration::from_millis(100));
            waiting.iter().all(PendingAnswer::is_finished)
        })
        .await;
        for answer in waiting {
            assert_eq!(answer.answer().await.error(), (503, "ISSUER_KEYS_UNAVAILABLE".to_owned()));
        }
        assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn tokens_that_wait_for_keys_share_one_fetch() {
    let server = KeyServer::start(&[public(Algorithm::RS256, "RS256-1")]).await;
    let issuer = server.issuer().set("keys.cooldown", "0s");
    let world = World::builder().config(|config: Configuration| config.issuer(issuer)).start().await;
    assert_eq!(ask(&world, &good("acme-1"), &[]).await.status, StatusCode::OK);
    server.hang();
    let requests = server.requests();
    let waiting: Vec<PendingAnswer> = (0..10).map(|number| spawn(&world, &of_key(&format!("k-{number}")))).collect();
    until(|| server.requests() > requests).await;
    until(|| {
        world.clock.advance(Duration::from_millis(100));
        waiting.iter().all(PendingAnswer::is_finished)
    })
    .await;
    assert_eq!(server.requests(), requests + 1);
}

#[tokio::test]
async fn the_requests_that_wait_for_keys_are_bounded() {
    let server = KeyServer::start(&[]).await;
    server.hang();
    let world = world(&server).await;
    let clients: Vec<Client> = (0..4).map(|_| Client::new(world.gateway.address)).collect();
    let authorization = format!("Bearer {}", good("acme-1"));
    let headers = [("authorization", authorization.as_str())];
    let waiting: Vec<PendingAnswer> =
        (0..320).map(|number| clients[number % 4].spawn_get(EXECUTIONS, &headers)).collect();
    // The clock stands still: those beyond the bound are answered at once.
    until(|| waiting.iter().filter(|answer| answer.is_finished()).count() >= 64).await;
    assert_eq!(world.gateway.get(EXECUTIONS, &as_account("acme-1")).await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(3));
    for answer in waiting {
        assert_eq!(answer.answer().await.error(), (503, "ISSUER_KEYS_UNAVAILABLE".to_owned()));
    }
}
