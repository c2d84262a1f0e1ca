//! A cache that is full: pages that can still be asked for stay, dropped ones leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::harness::{ADMIN, EXECUTIONS, Gateway, ORG_KEY, Setup, as_account, configuration, http_upstream};

const LIVE_PAGES: u64 = 30;

/// The ways in which an account's entries are dropped.
#[derive(Clone, Copy, Debug)]
enum Drop {
    Rerun,
    Webhook,
    Purge,
}

impl Drop {
    async fn run(self, gateway: &Gateway) {
        let status = match self {
            Self::Rerun => {
                let target = format!("{EXECUTIONS}/e1/rerun");
                gateway.send(Method::POST, &target, &as_account("a")).await.status
            }
            Self::Webhook => {
                let body = r#"{"linked_account_id":"a"}"#;
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, ORG_KEY.as_bytes());
                let signature = postern::digest::Hex(aws_lc_rs::hmac::sign(&key, body.as_bytes()).as_ref()).to_string();
                gateway.post("/hooks/refold/t", &[("x-cobalt-signature", &signature)], body).await.status
            }
            Self::Purge => {
                let body = r#"{"tenant":"t","linked_account":"a"}"#;
                gateway.admin_post("/purge", &[("content-type", "application/json")], body).await.status
            }
        };
        assert!(matches!(status, StatusCode::OK | StatusCode::NO_CONTENT), "{self:?}: {status}");
    }
}

#[tokio::test]
async fn dropped_pages_leave_room_for_live_ones() {
    // Sizes of a page: all live pages together fill a sixth, a third and two thirds of the cache.
    for (drop, size) in [(Drop::Webhook, 5 << 10), (Drop::Rerun, 10 << 10), (Drop::Purge, 20 << 10)] {
        let fetches = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&fetches);
        let upstream = http_upstream(move |request| {
            count.fetch_add(u64::from(request.method() == Method::GET), Ordering::SeqCst);
            let text = "x".repeat(size);
            let page = format!(r#"{{"docs":[{{"status":"COMPLETED","text":"{text}"}}],"totalDocs":100000}}"#);
            async move { Response::new(Full::new(Bytes::from(page))) }
        })
        .await;
        let Setup { clock, top, tenant, .. } = Setup::default();
        let top = format!("{ADMIN}{top}[cache]\ncapacity = \"2MiB\"\n");
        let text = configuration(upstream, &top, &tenant).replace("mode =", "webhooks = true\nmode =");
        let gateway = Gateway::start_with(&text, clock);
        for round in 0..14 {
            let before = fetches.load(Ordering::SeqCst);
            for _ in 0..3 {
                for page in 1..=LIVE_PAGES {
                    let answer = gateway.get(&format!("{EXECUTIONS}?page={page}"), &as_account("a")).await;
                    assert_eq!(answer.status, StatusCode::OK);
                }
            }
            let misses = fetches.load(Ordering::SeqCst) - before;
            assert_eq!(misses, LIVE_PAGES, "{drop:?}, round {round}");
            drop.run(&gateway).await;
        }
    }
}
