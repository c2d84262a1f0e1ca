//! One worker: accepts on its listeners and serves what comes on its own thread, until it is told to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};

use super::connection::Connections;
use super::socket::Bound;
use crate::caller::Entrance;
use crate::client::Client;
use crate::config;
use crate::gateway::{Gateway, Scope};
use crate::tls::Tls;

/// How long accepting rests when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(1);

/// What a worker needs to run.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) gateway: Arc<Gateway>,
    pub(super) client: Client,
    pub(super) settings: config::Server,
    pub(super) listening: Vec<Listening>,
    /// Set for the one that does for all workers what has to be done once; the certificates to look after are in it.
    pub(super) keeps_house: Option<Vec<Arc<Tls>>>,
    pub(super) stop: watch::Receiver<bool>,
}

/// A socket and what holds for those who come in there.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: Bound,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) entrance: Entrance,
}

impl Worker {
    /// Serves until `stop` turns true and the connections are drained.
    pub(super) async fn run(mut self) {
        // Every connection holds a sender: when the last is gone, so is the last connection.
        let (open, mut drained) = mpsc::channel(1);
        let connections = Arc::new(Connections::new(&self.settings));
        for listening in self.listening.drain(..) {
            let scope = Scope { client: self.client.clone(), entrance: listening.entrance.clone() };
            let stopping = Stopping { stop: self.stop.clone(), open: open.clone() };
            let accepting = accept(listening, Arc::clone(&self.gateway), scope, Arc::clone(&connections), stopping);
            tokio::spawn(async move {
                if let Err(error) = accepting.await {
                    tracing::error!(%error, "accept_failed");
                }
            });
        }
        drop(open);
        let stop = self.stop.clone();
        tokio::spawn(async move { connections.watch(stop).await });
        if let Some(certificates) = self.keeps_house.take() {
            let gateway = Arc::clone(&self.gateway);
            tokio::spawn(async move { gateway.keep_house().await });
            tokio::spawn(async move { keep_fresh(&certificates).await });
        }
        // The sender lives as long as the server does.
        let _ = self.stop.wait_for(|stop| *stop).await;
        if tokio::time::timeout(self.settings.drain_timeout, drained.recv()).await.is_err() {
            tracing::warn!("drain_timeout");
        }
    }
}

/// Reads certificates again when their files change.
async fn keep_fresh(certificates: &[Arc<Tls>]) {
    if certificates.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(CERTIFICATE_CHECK).await;
        for tls in certificates {
            match tls.reload() {
                Ok(true) => tracing::info!("certificate_reloaded"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "certificate_refused"),
            }
        }
    }
}

/// Tells that it is time to stop, and is held by what has not stopped yet.
struct Stopping {
    stop: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
}

impl Stopping {
    /// What a future gives, or nothing if it is time to stop.
    async fn unless_stopped<F: Future>(&mut self, future: F) -> Option<F::Output> {
        tokio::select! {
            output = future => Some(output),
            _ = self.stop.wait_for(|stop| *stop) => None,
        }
    }
}

async fn accept(
    listening: Listening,
    gateway: Arc<Gateway>,
    scope: Scope,
    connections: Arc<Connections>,
    mut stopping: Stopping,
) -> io::Result<()> {
    let tls = listening.tls;
    match listening.socket {
        Bound::Tcp(listener) => {
            let listener = TcpListener::from_std(listener)?;
            while let Some(accepted) = stopping.unless_stopped(listener.accept()).await {
                let Some((stream, _)) = accepted_or_pause(accepted).await else { continue };
                // Answers are written whole: waiting for more of them only delays.
                let _ = stream.set_nodelay(true);
                connections.accept(stream, tls.clone(), Arc::clone(&gateway), scope.clone(), stopping.open.clone());
            }
        }
        Bound::Unix(listener) => {
            let listener = UnixListener::from_std(listener)?;
            while let Some(accepted) = stopping.unless_stopped(listener.accept()).await {
                let Some((stream, _)) = accepted_or_pause(accepted).await else { continue };
                connections.accept(stream, tls.clone(), Arc::clone(&gateway), scope.clone(), stopping.open.clone());
            }
        }
    }
    Ok(())
}

/// A connection that was aborted before it was accepted is nobody's error; no descriptors left is, and it takes time to
/// mend.
async fn accepted_or_pause<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(connection) => Some(connection),
        Err(error) => {
            if error.kind() != io::ErrorKind::ConnectionAborted {
                tracing::error!(%error, "accept_failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}
