//! An upstream that counts its connections and requests, and a gateway in front of it.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postern::clock::Clock;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Configuration, EMPTY_PAGE, Gateway, PendingAnswer, spawn_upstream};

/// Counts the connections and requests of an upstream.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicUsize,
    opened: AtomicUsize,
    requests: AtomicUsize,
}

impl Counters {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Runs `serve` for each connection, with the connection's number from 1.
pub(crate) async fn upstream<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream, usize, Arc<Counters>) -> F + Send + 'static,
) -> (SocketAddr, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let shared = Arc::clone(&counters);
    let address = spawn_upstream(|listener: TcpListener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = shared.opened.fetch_add(1, Ordering::SeqCst) + 1;
            shared.open.fetch_add(1, Ordering::SeqCst);
            let served = serve(stream, number, Arc::clone(&shared));
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                served.await;
                shared.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    })
    .await;
    (address, counters)
}

/// Reads the head of a request; false at the end of the connection.
pub(crate) async fn read_head(stream: &mut TcpStream, counters: &Counters) -> bool {
    let is_request = super::read_head(stream).await.is_some();
    counters.requests.fetch_add(usize::from(is_request), Ordering::SeqCst);
    is_request
}

pub(crate) async fn say(stream: &mut TcpStream, response: &str) {
    // The gateway may have closed the connection.
    let _ = stream.write_all(response.as_bytes()).await;
}

/// Answers every request with an empty page.
pub(crate) async fn answer_all(mut stream: TcpStream, _number: usize, counters: Arc<Counters>) {
    while read_head(&mut stream, &counters).await {
        say(&mut stream, EMPTY_PAGE).await;
    }
}

/// Starts a gateway with one worker.
pub(crate) fn gateway(upstream: SocketAddr, change: impl FnOnce(Configuration) -> Configuration) -> Gateway {
    let config = Configuration::new().upstream(upstream).one_worker();
    Gateway::start(&change(config), &Clock::system())
}

/// Opens the circuit at the first failure.
pub(crate) fn fragile(config: Configuration) -> Configuration {
    config.set("upstream.breaker.failures", 1)
}

/// Opens the circuit at the first failure, and suspects connections after 50 ms.
pub(crate) fn suspicious(config: Configuration) -> Configuration {
    fragile(config).set("upstream.suspect_after", "50ms")
}

/// Asks for all these pages at once.
pub(crate) fn ask_at_once(gateway: &Gateway, pages: Range<usize>) -> Vec<PendingAnswer> {
    pages.map(|page| gateway.spawn_list("acme-1", &format!("page={page}"))).collect()
}

pub(crate) async fn assert_answered(pending: Vec<PendingAnswer>) {
    for pending in pending {
        let answer = pending.answer().await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
}

/// Answers one request of each of `count` connections at once, and then is as silent on them as `silence` says.
pub(crate) async fn falls_silent<F: Future<Output = ()> + Send + 'static>(
    count: usize,
    silence: impl Fn(TcpStream, usize, Arc<Counters>) -> F + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<Counters>, watch::Sender<bool>) {
    let gate = watch::Sender::new(false);
    let gated = gate.clone();
    let (address, counters) = upstream(move |mut stream, number, counters| {
        let (mut gate, silence) = (gated.subscribe(), silence.clone());
        async move {
            if number <= count {
                read_head(&mut stream, &counters).await;
                gate.wait_for(|open| *open).await.expect("the test holds it");
                say(&mut stream, EMPTY_PAGE).await;
            }
            silence(stream, number, counters).await;
        }
    })
    .await;
    (address, counters, gate)
}
