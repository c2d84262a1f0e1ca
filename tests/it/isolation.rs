//! No response shows a byte of another partition, however requests are mixed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use crate::support::{
    ClientKey, Configuration, Dice, EXECUTIONS, Folder, Gateway, Listener, Tenant, World, http_upstream, page_of,
    seeded,
};

const SEED: u64 = 0x5eed;
const TENANTS: usize = 4;
const ACCOUNTS: usize = 6;
const TOKENS: usize = 6;

/// The partition of a request, as the upstream can tell from the gateway's headers.
fn partition(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).map_or("-", |value| value.to_str().expect("ASCII"));
    // Not the key itself: the gateway withholds a response that contains it.
    let tenant = text("x-api-key").strip_prefix("org-key-").unwrap_or("-").to_owned();
    format!("{tenant}|{}|{}", text("linked_account_id"), text("authorization"))
}

#[derive(Clone)]
struct Caller {
    headers: Vec<(&'static str, String)>,
    partition: String,
}

/// A linked account's name. All tenants have the same names, and they run into each other.
fn account(number: usize) -> String {
    ["acme", "acme-1", "acme-1/x", "Acme", "a|b", "acme%2D1"][number % ACCOUNTS].to_owned()
}

fn all_callers() -> Vec<Caller> {
    let mut all = Vec::new();
    for tenant in 0..TENANTS {
        for number in 0..ACCOUNTS {
            all.push(Caller {
                headers: vec![("x-api-key", format!("pst_key_of_{tenant}")), ("linked_account_id", account(number))],
                partition: format!("{tenant}|{}|-", account(number)),
            });
        }
    }
    for number in 0..TOKENS {
        let token = format!("Bearer token-{number}");
        all.push(Caller { headers: vec![("authorization", token.clone())], partition: format!("-|-|{token}") });
    }
    all
}

/// Several tenants, each with an org key and a client key of its own.
fn configuration(secrets: &Folder) -> Configuration {
    let tenants: Vec<_> = (0..TENANTS)
        .map(|tenant| {
            let org_key = secrets.write(&format!("org-key-{tenant}"), format!("org-key-{tenant}\n"));
            let client_key = ClientKey::new("k", &format!("pst_key_of_{tenant}")).write();
            Tenant::new(&format!("t{tenant}")).org_key_file(&org_key).client_key(client_key)
        })
        .collect();
    Configuration::new().drain_timeout("1s").listeners([Listener::new().session_tokens("t0")]).tenants(tenants)
}

/// An upstream whose pages name their partition. Its responses overtake each other, and some fail.
async fn upstream() -> SocketAddr {
    let dice = Dice::new(SEED);
    http_upstream(move |request| answer(request, dice.byte())).await
}

async fn answer(request: Request<Incoming>, roll: u8) -> Response<Full<bytes::Bytes>> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    for _ in 0..roll % 32 {
        tokio::task::yield_now().await;
    }
    let status = ["COMPLETED", "RUNNING"][usize::from(roll & 1)];
    let mut response = page_of(&json!({ "partition": partition(request.headers()), "query": query, "status": status }));
    match roll {
        0..8 => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        8..12 => *response.status_mut() = StatusCode::UNAUTHORIZED,
        12..16 => drop(response.headers_mut().insert("cache-control", "no-store".parse().expect("a value"))),
        _ => {}
    }
    if roll.is_multiple_of(3) {
        // The same validator in all partitions: a 304 must not mix them up either.
        response.headers_mut().insert("etag", "\"same\"".parse().expect("a value"));
        if request.headers().get("if-none-match").is_some() && roll > 16 {
            response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
    }
    response
}

#[tokio::test]
async fn no_caller_sees_a_byte_of_another_partition() {
    let secrets = Folder::new();
    let builder = World::builder().refold(upstream().await);
    let World { gateway, clock, .. } = builder.config(|_| configuration(&secrets)).start().await;
    let (gateway, callers) = (Arc::new(gateway), Arc::new(all_callers()));
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (gateway, callers, clock) = (Arc::clone(&gateway), Arc::clone(&callers), clock.clone());
            let mut dice = seeded(SEED + task);
            tokio::spawn(async move {
                let mut pages = 0;
                for _ in 0..400 {
                    let caller = dice.choice(callers.iter()).expect("there are callers");
                    pages += ask(&gateway, caller, &mut dice).await;
                    if dice.u8(..) < 8 {
                        clock.advance(Duration::from_millis(dice.u64(..3000)));
                    }
                }
                pages
            })
        })
        .collect();
    let mut pages = 0;
    for task in tasks {
        pages += task.await.expect("no partition was mixed up");
    }
    assert!(pages > 3000, "most requests are answered: {pages}");
}

/// Requests a page as a caller; returns 1 for a page, which has to be of the caller's partition, and 0 for an error.
async fn ask(gateway: &Gateway, caller: &Caller, dice: &mut fastrand::Rng) -> usize {
    let headers: Vec<(&str, &str)> = caller.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if dice.u8(..) < 6 {
        gateway.send(Method::POST, &format!("{EXECUTIONS}/1/stop"), &headers).await;
    }
    let page = dice.u8(1..4);
    let answer = gateway.get(&format!("{EXECUTIONS}?page={page}"), &headers).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains("org-key-"), "{text}");
    if answer.status != StatusCode::OK {
        return 0;
    }
    let document = answer.first_document();
    assert_eq!(document["partition"], caller.partition.as_str());
    assert_eq!(document["query"], format!("page={page}&limit=10"));
    1
}
