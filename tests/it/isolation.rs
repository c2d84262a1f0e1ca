//! Nobody sees a byte of another partition, however requests are mixed.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{EXECUTIONS, Gateway, Setup, client_key, http_upstream, page_of};

const TENANTS: usize = 4;
const ACCOUNTS: usize = 6;
const TOKENS: usize = 6;

/// Who asks, as the upstream can tell from what the gateway sends it.
fn owner(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).map_or("-", |value| value.to_str().expect("ASCII"));
    // Not the key itself: the gateway shows no answer that has it in it.
    let tenant = text("x-api-key").strip_prefix("org-key-").unwrap_or("-").to_owned();
    format!("{tenant}|{}|{}", text("linked_account_id"), text("authorization"))
}

#[derive(Clone)]
struct Somebody {
    headers: Vec<(&'static str, String)>,
    owner: String,
}

/// Linked accounts have the same names in all tenants, and names that run into each other.
fn account(number: usize) -> String {
    ["acme", "acme-1", "acme-1/x", "Acme", "a|b", "acme%2D1"][number % ACCOUNTS].to_owned()
}

fn everybody() -> Vec<Somebody> {
    let mut all = Vec::new();
    for tenant in 0..TENANTS {
        for number in 0..ACCOUNTS {
            all.push(Somebody {
                headers: vec![("x-api-key", format!("pst_key_of_{tenant}")), ("linked_account_id", account(number))],
                owner: format!("{tenant}|{}|-", account(number)),
            });
        }
    }
    for number in 0..TOKENS {
        let token = format!("Bearer token-{number}");
        all.push(Somebody { headers: vec![("authorization", token.clone())], owner: format!("-|-|{token}") });
    }
    all
}

fn configuration(upstream: std::net::SocketAddr) -> String {
    let mut text = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\nsession_tokens = \"t0\"\n[admin]\naddress = \"off\"\n[server]\nworkers = 2\ndrain_timeout = \"1s\"\n[upstream]\nbase_url = \"http://{upstream}\"\n{}",
        Setup::default().top
    );
    text.extend((0..TENANTS).map(|tenant| {
        format!(
            "[[tenants]]\nid = \"t{tenant}\"\nmode = \"inject\"\norg_key = {{ file = \"{}\" }}\n{}",
            secret_file(tenant).display(),
            client_key("k", &format!("pst_key_of_{tenant}"), "linked_accounts = [\"*\"]\naccess = \"read+write\"")
        )
    }));
    text
}

fn secret_file(tenant: usize) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("postern-it-{}-{tenant}", std::process::id()));
    std::fs::write(&path, format!("org-key-{tenant}\n")).expect("a temporary file");
    path
}

#[tokio::test]
async fn nobody_sees_a_byte_of_another_partition() {
    let seed = 0x5eed;
    let upstream = http_upstream(|request| async move {
        let page = request.uri().query().unwrap_or_default().to_owned();
        let roll = fastrand::u8(..);
        // Answers overtake each other, and some fail.
        for _ in 0..roll % 32 {
            tokio::task::yield_now().await;
        }
        let status = ["COMPLETED", "RUNNING"][usize::from(roll & 1)];
        let mut response = page_of(&json!({ "owner": owner(request.headers()), "query": page, "status": status }));
        match roll {
            0..8 => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            8..12 => *response.status_mut() = StatusCode::UNAUTHORIZED,
            12..16 => drop(response.headers_mut().insert("cache-control", "no-store".parse().expect("a value"))),
            _ => {}
        }
        if roll.is_multiple_of(3) {
            // The same validator for everybody: a 304 must not mix them up either.
            response.headers_mut().insert("etag", "\"same\"".parse().expect("a value"));
            if request.headers().get("if-none-match").is_some() && roll > 16 {
                response = Response::new(http_body_util::Full::default());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
        }
        response
    })
    .await;
    let clock = Setup::default().clock;
    let gateway = Arc::new(Gateway::start_with(&configuration(upstream), clock.clone()));
    let everybody = Arc::new(everybody());
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let (gateway, everybody, clock) = (Arc::clone(&gateway), Arc::clone(&everybody), clock.clone());
            tokio::spawn(async move {
                let mut dice = fastrand::Rng::with_seed(seed + task);
                let mut pages = 0;
                for _ in 0..400 {
                    let somebody = dice.choice(everybody.iter()).expect("there is somebody");
                    pages += ask(&gateway, somebody, &mut dice).await;
                    if dice.u8(..) < 8 {
                        clock.advance(std::time::Duration::from_millis(dice.u64(..3000)));
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

/// Asks as somebody; 1 if there was a page, which has to be theirs.
async fn ask(gateway: &Gateway, somebody: &Somebody, dice: &mut fastrand::Rng) -> usize {
    let headers: Vec<(&str, &str)> = somebody.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
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
    let document: Value = answer.json()["docs"][0].clone();
    assert_eq!(document["owner"], somebody.owner.as_str());
    assert_eq!(document["query"], format!("page={page}&limit=10"));
    1
}
