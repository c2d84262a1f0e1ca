//! Every kind of secret changes under continuous load, one after the other, and not one request fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use http_body_util::Full;
use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::encryption::{Folder, ask, client_config, install, tls_lines};
use crate::harness::{Gateway, NEXT_ORG_KEY, ORG_KEY, Setup, client_key, configuration, http_upstream, page_of};
use crate::issuer::{KeyServer, claims, header, private, public, sign};

fn token(id: &str) -> String {
    format!("Bearer {}", sign(&header(Algorithm::ES256, id), &claims("acme-1"), &private(Algorithm::ES256)))
}

/// What the load presents at the moment.
struct Presented {
    client_key: &'static str,
    bearer: String,
}

#[tokio::test]
async fn client_key_org_key_issuer_key_and_certificate_change_under_load_without_a_failed_request() {
    let org_key = Arc::new(Mutex::new(ORG_KEY));
    let taken = Arc::clone(&org_key);
    let upstream = http_upstream(move |request| {
        let taken = Arc::clone(&taken);
        async move {
            if request.headers()["x-api-key"] == *taken.lock().expect("no panic") {
                return page_of(&json!({ "status": "RUNNING" }));
            }
            let mut refused = http::Response::new(Full::default());
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            refused
        }
    })
    .await;
    let folder = Folder::new("rotation");
    install(&folder, "server-1");
    let issuer = KeyServer::start(&[public(Algorithm::ES256, "one")]).await;
    let Setup { clock, top, .. } = Setup::default();
    let keys = client_key("old", "pst_old", "linked_accounts = [\"*\"]\nexpires = 2026-03-20T12:01:00Z")
        + &client_key("new", "pst_new", "linked_accounts = [\"*\"]")
        + &issuer.lines("");
    // Nobody may lose patience with a fetch under way when the clock jumps.
    let top = top.replacen("burst = 100000\n", "burst = 100000\nmax_wait = \"1h\"\n", 1);
    let text = configuration(upstream, &top, &keys)
        .replace("session_tokens = \"t\"", &tls_lines(&folder, ""))
        .replace("org_key = ", "org_key_next = { env = \"NEXT_ORG_KEY\" }\norg_key = ");
    let gateway = Gateway::start_with(&text, clock.clone());
    let address = gateway.address;

    let presented = Arc::new(Mutex::new(Presented { client_key: "pst_old", bearer: token("one") }));
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (presented, over, done) = (Arc::clone(&presented), Arc::clone(&over), Arc::clone(&done));
            tokio::spawn(async move {
                let config = client_config(None);
                let mut certificates = std::collections::HashSet::new();
                while !over.load(Ordering::SeqCst) {
                    let (key, bearer) = {
                        let presented = presented.lock().expect("no panic");
                        (presented.client_key, presented.bearer.clone())
                    };
                    let headers: &[(&str, &str)] = if number % 2 == 0 {
                        &[("x-api-key", key), ("linked_account_id", "acme-1")]
                    } else {
                        &[("authorization", &bearer)]
                    };
                    let (status, certificate) = ask(address, &config, headers).await.expect("an answer");
                    assert_eq!(status, StatusCode::OK);
                    certificates.insert(certificate);
                    done.fetch_add(1, Ordering::SeqCst);
                }
                certificates.len()
            })
        })
        .collect();
    // Some requests, with time passing so that they are not all answered from the cache.
    let some = async || {
        let target = done.load(Ordering::SeqCst) + 40;
        while done.load(Ordering::SeqCst) < target {
            assert!(!load.iter().any(tokio::task::JoinHandle::is_finished), "a request has failed");
            clock.advance(Duration::from_millis(50));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    some().await;
    presented.lock().expect("no panic").client_key = "pst_new";
    some().await;
    clock.advance(Duration::from_mins(2));
    some().await;
    *org_key.lock().expect("no panic") = NEXT_ORG_KEY;
    some().await;
    issuer.publish(&[public(Algorithm::ES256, "one"), public(Algorithm::ES256, "two")]);
    presented.lock().expect("no panic").bearer = token("two");
    some().await;
    issuer.publish(&[public(Algorithm::ES256, "two")]);
    clock.advance(Duration::from_mins(6));
    some().await;
    install(&folder, "server-2");
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        some().await;
    }
    over.store(true, Ordering::SeqCst);
    for task in load {
        assert_eq!(task.await.expect("no request has failed"), 2, "both certificates were seen");
    }
}
