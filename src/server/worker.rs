//! One worker: accepts on its listeners and serves what comes on its own thread, until it is told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::accept::accept;
use super::connection::Connections;
use super::socket::Bound;
use crate::config;
use crate::generation::{ActiveGeneration, DoorId};
use crate::lifecycle::Lifecycle;
use crate::log_events;
use crate::tls::Tls;

/// How often certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(1);
/// How long what is in flight at the end of the drain time may take to say that it was given up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a worker needs to run.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) live: Arc<ActiveGeneration>,
    pub(super) lifecycle: Arc<Lifecycle>,
    /// Its number.
    pub(super) index: usize,
    pub(super) settings: config::Server,
    /// What changes while it runs.
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) stop: watch::Receiver<bool>,
    /// Counts the workers that have drained, of so many.
    pub(super) drained: watch::Sender<usize>,
    pub(super) workers: usize,
}

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Listen there too.
    Listen(Listening),
    /// Connections that came in there are to end, each with its next answer.
    Leave(DoorId),
    /// New connections are served like this.
    Serve(config::Server),
}

/// A socket that connections come from.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: Bound,
    /// Bound by this process, and closed by it.
    pub(super) ours: bool,
    pub(super) door: DoorId,
    pub(super) close: watch::Receiver<bool>,
}

impl Worker {
    /// Serves until `stop` turns true and the connections are drained.
    pub(super) async fn run(mut self) {
        // Every connection holds a sender: when the last is gone, so is the last connection.
        let (open, mut drained) = mpsc::channel(1);
        let over = watch::Sender::new(false);
        let shared = (Arc::clone(&self.live), Arc::clone(&self.lifecycle));
        let connections = Arc::new(Connections::new(&self.settings, shared, self.index, over.subscribe()));
        let (watching, stop) = (Arc::clone(&connections), self.stop.clone());
        tokio::spawn(async move { watching.watch(stop).await });
        if self.index == 0 {
            let (house, certificates) = (Arc::clone(&self.live), Arc::clone(&self.live));
            tokio::spawn(async move { house.run_maintenance().await });
            tokio::spawn(async move { keep_fresh(&certificates).await });
        }
        loop {
            tokio::select! {
                // What was said before the end is to be done.
                biased;
                Some(order) = self.orders.recv() => match order {
                    Order::Listen(listening) => {
                        if let Err(error) = listen(listening, &connections, open.clone()) {
                            tracing::error!(%error, message = log_events::ACCEPT_FAILED);
                        }
                    }
                    Order::Leave(door) => connections.leave(door),
                    Order::Serve(settings) => connections.apply(&settings),
                },
                // The sender lives as long as the server does.
                _ = self.stop.wait_for(|stop| *stop) => break,
            }
        }
        drop(open);
        let drain_timeout = self.live.gateway().config().server.drain_timeout;
        let end = Instant::now() + drain_timeout;
        if tokio::time::timeout(drain_timeout, drained.recv()).await.is_err() {
            tracing::warn!(message = log_events::DRAIN_TIMEOUT);
            over.send_replace(true);
            let _ = tokio::time::timeout(LAST_WORDS, drained.recv()).await;
        }
        // What is fetched here may be waited for over there, and so may the turns that are given out here.
        self.drained.send_modify(|drained| *drained += 1);
        let mut all = self.drained.subscribe();
        let _ = tokio::time::timeout_at(end, all.wait_for(|drained| *drained >= self.workers)).await;
    }
}

/// Accepts at a socket in a task of its own.
fn listen(listening: Listening, connections: &Arc<Connections>, open: mpsc::Sender<()>) -> io::Result<()> {
    let Listening { socket, ours, door, close } = listening;
    let connections = Arc::clone(connections);
    match socket {
        Bound::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(async move {
                accept(listener, ours, close, |stream| connections.accept(stream, door, open.clone())).await;
            });
        }
        Bound::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                accept(listener, ours, close, |stream| connections.accept(stream, door, open.clone())).await;
            });
        }
    }
    Ok(())
}

/// Reads certificates again when their files change.
async fn keep_fresh(live: &ActiveGeneration) {
    loop {
        tokio::time::sleep(CERTIFICATE_CHECK).await;
        let present: Vec<Arc<Tls>> = live.load().parts().open_doors().filter_map(|door| door.tls.clone()).collect();
        let mut renewed = false;
        for tls in present {
            renewed |= tls.refresh();
        }
        if renewed {
            // Whoever has shown a certificate may stand for nobody now, also on a connection that is open.
            live.renew();
        }
    }
}
