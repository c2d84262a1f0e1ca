//! One worker: accepts on its listeners and serves the connections on its own thread, until it is stopped and drained.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::accept::{Acceptor, accept};
use super::admission::Admission;
use super::connection::Connections;
use super::socket::{BoundSocket, SocketOwner, WorkerSocket};
use crate::config;
use crate::generation::{ActiveGeneration, ListenerId};
use crate::lifecycle::Lifecycle;
use crate::log_events;

/// Time between two checks of the certificate files.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(1);
/// Time after the drain timeout in which requests in flight are answered 503.
const LAST_RESPONSES: Duration = Duration::from_secs(1);

/// A worker that is ready to run.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) active: Arc<ActiveGeneration>,
    pub(super) lifecycle: Arc<Lifecycle>,
    /// Admits the connections of all workers.
    pub(super) admission: Arc<Admission>,
    /// Its position among the workers.
    pub(super) index: usize,
    pub(super) settings: config::ServerConfig,
    /// Changes while it runs.
    pub(super) commands: mpsc::UnboundedReceiver<WorkerCommand>,
    pub(super) stop: watch::Receiver<bool>,
    /// Number of workers that have drained.
    pub(super) drained: watch::Sender<usize>,
    /// Number of workers of the server.
    pub(super) workers: usize,
}

/// A change to a running worker.
#[derive(Debug)]
pub(super) enum WorkerCommand {
    /// Accepts connections on one more socket.
    Listen(WorkerSocket),
    /// Closes the connections of a listener, each after its next answer.
    CloseConnections(ListenerId),
    /// Applies other settings.
    Apply(config::ServerConfig),
}

impl Worker {
    /// Serves until `stop` turns true and the connections are drained.
    pub(super) async fn run(mut self) {
        // Each connection holds a sender, so the channel closes with the last connection.
        let (open, mut all_closed) = mpsc::channel(1);
        let abandon = watch::Sender::new(false);
        let (active, lifecycle) = (Arc::clone(&self.active), Arc::clone(&self.lifecycle));
        let connections = Connections::new(
            &self.settings,
            active,
            lifecycle,
            Arc::clone(&self.admission),
            (self.index, abandon.subscribe()),
        );
        let connections = Arc::new(connections);
        let (monitored, stop) = (Arc::clone(&connections), self.stop.clone());
        tokio::spawn(async move { monitored.monitor(stop).await });
        if self.index == 0 {
            let (maintained, refreshed) = (Arc::clone(&self.active), Arc::clone(&self.active));
            tokio::spawn(async move { maintained.run_maintenance(0).await });
            tokio::spawn(async move { refresh_certificates(&refreshed).await });
        }
        self.run_commands(&connections, open).await;
        let drain_timeout = self.active.gateway().config().server.drain_timeout;
        let end = Instant::now() + drain_timeout;
        if tokio::time::timeout(drain_timeout, all_closed.recv()).await.is_err() {
            tracing::warn!(message = log_events::DRAIN_TIMEOUT);
            abandon.send_replace(true);
            let _ = tokio::time::timeout(LAST_RESPONSES, all_closed.recv()).await;
        }
        // Requests of other workers may wait for a fetch or an upstream permit of this one, so all end together.
        self.drained.send_modify(|drained| *drained += 1);
        let mut drained = self.drained.subscribe();
        let _ = tokio::time::timeout_at(end, drained.wait_for(|drained| *drained >= self.workers)).await;
    }

    /// Carries out commands until `stop` turns true.
    async fn run_commands(&mut self, connections: &Arc<Connections>, open: mpsc::Sender<()>) {
        loop {
            tokio::select! {
                // Commands that were sent before the stop are carried out.
                biased;
                Some(command) = self.commands.recv() => match command {
                    WorkerCommand::Listen(socket) => {
                        if let Err(error) = listen(socket, connections, open.clone()) {
                            tracing::error!(%error, message = log_events::ACCEPT_FAILED);
                        }
                    }
                    WorkerCommand::CloseConnections(listener) => connections.close_listener(listener),
                    WorkerCommand::Apply(settings) => connections.apply(&settings),
                },
                // The sender lives as long as the server does.
                _ = self.stop.wait_for(|stop| *stop) => break,
            }
        }
    }
}

/// Accepts on a socket in a task of its own.
fn listen(socket: WorkerSocket, connections: &Arc<Connections>, open: mpsc::Sender<()>) -> io::Result<()> {
    let WorkerSocket { socket, owner, listener, close } = socket;
    let intake = Intake { connections: Arc::clone(connections), listener, open };
    match socket {
        BoundSocket::Tcp(socket) => intake.spawn(TcpListener::from_std(socket)?, owner, close),
        BoundSocket::Unix(socket) => intake.spawn(UnixListener::from_std(socket)?, owner, close),
    }
    Ok(())
}

/// Takes the connections of one listener in.
struct Intake {
    connections: Arc<Connections>,
    listener: ListenerId,
    open: mpsc::Sender<()>,
}

impl Intake {
    fn spawn<A: Acceptor>(self, acceptor: A, owner: SocketOwner, close: watch::Receiver<bool>) {
        tokio::spawn(async move {
            let serve = |(stream, admitted)| {
                let peer = A::peer(&stream);
                self.connections.serve((stream, admitted), (self.listener, peer), self.open.clone());
            };
            accept(acceptor, owner, close, self.connections.admission(), serve).await;
        });
    }
}

/// Rereads certificates whenever their files change.
async fn refresh_certificates(active: &ActiveGeneration) {
    loop {
        tokio::time::sleep(CERTIFICATE_CHECK).await;
        let generation = Arc::clone(&active.load());
        if generation.refresh_certificates() {
            // A client certificate may have lost its authority, also on a connection that is open.
            active.renew();
        }
    }
}
