//! One fetch for everybody who asks the same, whoever leaves meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;

use crate::harness::{Answer, EXECUTIONS, Gateway, Setup, as_account, http_upstream, page_of, until};

/// A gateway in front of an upstream that answers when it is told to, with the number of the request.
struct Gated {
    gateway: Arc<Gateway>,
    requests: Arc<AtomicU64>,
    open: watch::Sender<bool>,
}

impl Gated {
    async fn start(status: u16) -> Self {
        let requests = Arc::new(AtomicU64::new(0));
        let open = watch::Sender::new(false);
        let (counted, gate) = (Arc::clone(&requests), open.clone());
        let upstream = http_upstream(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let mut gate = gate.subscribe();
            async move {
                gate.wait_for(|open| *open).await.expect("the test holds the gate");
                let mut response = page_of(&json!({ "_id": number, "status": "COMPLETED" }));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response
            }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        Self { gateway: Arc::new(Gateway::start(upstream, &top, &tenant, clock)), requests, open }
    }

    fn ask(&self) -> tokio::task::JoinHandle<Answer> {
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(async move { gateway.get(EXECUTIONS, &as_account("acme-1")).await })
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_thousand_callers_cost_one_fetch_also_when_half_of_them_hang_up() {
    let gated = Gated::start(200).await;
    // The first of them makes the fetch; it is among those who leave.
    let mut callers = vec![gated.ask()];
    until(|| gated.requests() == 1).await;
    callers.extend((1..1000).map(|_| gated.ask()));
    // So that those who leave have asked.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let stay = callers.split_off(500);
    for caller in callers {
        caller.abort();
    }
    tokio::task::yield_now().await;
    gated.open.send_replace(true);
    for caller in stay {
        let answer = caller.await.expect("nobody has ended it");
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["docs"][0]["_id"], 1);
    }
    assert_eq!(gated.requests(), 1);
    let later = gated.ask().await.expect("nobody has ended it");
    assert!(later.header("cache-status").starts_with("postern; hit"), "{later:?}");
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait_and_the_next_one_tries_again() {
    let gated = Gated::start(500).await;
    let mut callers = vec![gated.ask()];
    until(|| gated.requests() == 1).await;
    callers.extend((0..20).map(|_| gated.ask()));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    gated.open.send_replace(true);
    for caller in callers {
        assert_eq!(caller.await.expect("nobody has ended it").status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    let before = gated.requests();
    assert_eq!(gated.ask().await.expect("nobody has ended it").status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(gated.requests(), before + 1);
}
