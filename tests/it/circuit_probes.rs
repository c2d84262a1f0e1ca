//! Probes of a half-open circuit: each is sent on a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::support::{EMPTY_PAGE, EXECUTIONS, World, as_account, read_head, spawn_upstream, until};

/// The question that the upstream answers 503.
const FAILS: &str = "page=13";

/// Counts what an upstream has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Seen {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An upstream that answers as many requests as `answers` has permits for.
async fn upstream(seen: &Arc<Seen>, answers: &Arc<Semaphore>) -> std::net::SocketAddr {
    let (seen, answers) = (Arc::clone(seen), Arc::clone(answers));
    spawn_upstream(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
            tokio::spawn(async move {
                while let Some(head) = read_head(&mut stream).await {
                    seen.requests.fetch_add(1, Ordering::SeqCst);
                    answers.acquire().await.expect("it is open").forget();
                    let unavailable = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
                    let answer = if head.contains(FAILS) { unavailable } else { EMPTY_PAGE };
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    })
    .await
}

#[tokio::test]
async fn a_probe_is_sent_on_a_new_connection() {
    let page = format!("{EXECUTIONS}?page=77");
    let (document, stop) = (format!("{EXECUTIONS}/e-1"), format!("{EXECUTIONS}/e-1/stop"));
    for (method, target) in [(Method::GET, &page), (Method::GET, &document), (Method::POST, &stop)] {
        let (seen, answers) = (Arc::new(Seen::default()), Arc::new(Semaphore::new(0)));
        let builder = World::builder().refold(upstream(&seen, &answers).await);
        let builder = builder.config(|config| config.one_worker().set("upstream.breaker.failures", 1));
        let world = builder.start().await;
        // Two connections are idle. One of them is closed after its 503, which opens the circuit.
        let first = [1, 2].map(|page| world.gateway.spawn_list("a", &format!("page={page}")));
        until(|| seen.requests.load(Ordering::SeqCst) == 2).await;
        answers.add_permits(1000);
        for answer in first {
            assert_eq!(answer.answer().await.status, StatusCode::OK);
        }
        world.clock.advance(Duration::from_secs(11));
        assert_eq!(world.list("a", FAILS).await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(world.list("a", "page=3").await.error_code(), "UPSTREAM_CIRCUIT_OPEN");
        world.clock.advance(Duration::from_secs(5));
        let probe = world.gateway.send(method, target, &as_account("a")).await;
        assert_ne!(probe.status, StatusCode::SERVICE_UNAVAILABLE, "{target}");
        assert_eq!(seen.connections(), 3, "{target}");
        // The circuit is closed, and idle connections are used again.
        assert_eq!(world.list("a", "page=4").await.status, StatusCode::OK);
        assert_eq!(seen.connections(), 3, "{target}");
    }
}
