//! A cache that is full: pages that can still be asked for stay, dropped ones leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;

use crate::support::{EXECUTIONS, Gateway, ORG_KEY, Tenant, World, as_account, http_upstream, signature};

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
                let signature = signature(ORG_KEY, body);
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
        let builder = World::builder().refold(upstream).tenant(Tenant::webhooks);
        let world = builder.config(|config| config.admin().set("cache.capacity", "2MiB")).start().await;
        for round in 0..14 {
            let before = fetches.load(Ordering::SeqCst);
            for _ in 0..3 {
                for page in 1..=LIVE_PAGES {
                    assert_eq!(world.list("a", &format!("page={page}")).await.status, StatusCode::OK);
                }
            }
            let misses = fetches.load(Ordering::SeqCst) - before;
            assert_eq!(misses, LIVE_PAGES, "{drop:?}, round {round}");
            drop.run(&world.gateway).await;
        }
    }
}
