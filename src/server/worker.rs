//! One worker: accepts on its listeners and serves the connections on its own thread, until it is stopped and drained.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::accept::{accept, tcp_peer, unix_peer};
use super::admission::Admission;
use super::connection::Connections;
use super::socket::{ConnectionSource, WorkerSocket};
use super::spread::{SharedListener, Spread};
use super::worker_loads::{AcceptedStream, HandedConnection, WorkerLoads};
use crate::config;
use crate::generation::{ActiveGeneration, ListenerId};
use crate::lifecycle::Lifecycle;
use crate::log_events;

/// Time between two checks of the certificate files.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(1);
/// Time after the drain timeout in which requests in flight are answered 503.
const LAST_RESPONSES: Duration = Duration::from_secs(1);

/// Builds the runtime of a worker.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A worker that is ready to run.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) active: Arc<ActiveGeneration>,
    pub(super) lifecycle: Arc<Lifecycle>,
    /// Admits the connections of all workers.
    pub(super) admission: Arc<Admission>,
    /// Counts the connections of all workers.
    pub(super) loads: Arc<WorkerLoads>,
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
                        if let Err(error) = listen(socket, connections, open.clone(), &self.loads, self.index) {
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

/// Takes connections from a source in a task of its own. The task counts as a connection, so that a drain waits for it.
fn listen(
    socket: WorkerSocket,
    connections: &Arc<Connections>,
    open: mpsc::Sender<()>,
    loads: &Arc<WorkerLoads>,
    index: usize,
) -> io::Result<()> {
    let WorkerSocket { source, owner, listener, close } = socket;
    let intake = Intake { connections: Arc::clone(connections), listener, open };
    match source {
        ConnectionSource::Own(socket) => {
            let (acceptor, loads) = (TcpListener::from_std(socket)?, Arc::clone(loads));
            tokio::spawn(async move {
                let open = || (intake.open.clone(), loads.count(index));
                let serve = |(stream, admitted)| {
                    let peer = tcp_peer(&stream);
                    intake.connections.serve(stream, (listener, peer), (open(), admitted));
                };
                accept(acceptor, owner, close, intake.connections.admission(), serve).await;
            });
        }
        ConnectionSource::Shared(socket, workers) => {
            let acceptor = SharedListener::new(socket)?;
            let spread = Spread { workers, loads: Arc::clone(loads) };
            tokio::spawn(async move {
                let admission = intake.connections.admission();
                accept(acceptor, owner, close, admission, |admitted| spread.hand_over(admitted)).await;
                drop(intake);
            });
        }
        ConnectionSource::Handed(mut handed) => {
            tokio::spawn(async move {
                while let Some(connection) = handed.recv().await {
                    if let Err(error) = intake.serve_handed(connection) {
                        tracing::error!(%error, message = log_events::ACCEPT_FAILED);
                    }
                }
            });
        }
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
    /// Serves a connection that another worker has accepted.
    fn serve_handed(&self, handed: HandedConnection) -> io::Result<()> {
        let open = (self.open.clone(), handed.counted, handed.admitted);
        match handed.stream {
            AcceptedStream::Tcp(stream) => {
                let stream = TcpStream::from_std(stream)?;
                let peer = tcp_peer(&stream);
                self.connections.serve(stream, (self.listener, peer), open);
            }
            AcceptedStream::Unix(stream) => {
                let stream = UnixStream::from_std(stream)?;
                let peer = unix_peer(&stream);
                self.connections.serve(stream, (self.listener, peer), open);
            }
        }
        Ok(())
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
