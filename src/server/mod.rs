//! The server: one worker thread per core, each with its own single-threaded runtime, its own `SO_REUSEPORT` sockets and its
//! own upstream pool. The workers share a gateway, which another one replaces when the configuration changes
//! ([`Server::reload`]).

mod accept;
mod activity;
mod admission;
mod connection;
mod counted_body;
mod descriptors;
mod error;
mod footprint;
mod frame_budget;
mod http;
mod inherited;
mod listeners;
mod monitored_io;
mod occupancy;
mod refusal;
mod request_scan;
#[cfg(test)]
mod scan_comparison;
mod scanned_heads;
mod service;
mod socket;
mod spread;
mod timeouts;
mod tls_socket;
mod worker;
mod worker_loads;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

use self::admission::Admission;
pub use self::error::StartError;
pub use self::inherited::InheritedSockets;
use self::listeners::{ListenerSet, Surroundings};
pub use self::socket::OccupiedAddress;
use self::socket::{BoundAddress, BoundSocket, Sockets};
use self::worker::{Worker, WorkerCommand};
use self::worker_loads::WorkerLoads;
use crate::admin::{self, AdminListener};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Endpoint, ListenAddress, SocketFile};
use crate::gateway::Gateway;
use crate::generation::{ActiveGeneration, Generation};
use crate::http_client::Client;
use crate::lifecycle::Lifecycle;
use crate::log_events;
use crate::observe::LogWriter;

/// A running server.
#[derive(Debug)]
pub struct Server {
    active: Arc<ActiveGeneration>,
    lifecycle: Arc<Lifecycle>,
    clock: Clock,
    admission: Arc<Admission>,
    listeners: Mutex<ListenerSet>,
    workers: Vec<WorkerHandle>,
    stop: watch::Sender<bool>,
    admin: Option<(ListenAddress, AdminListener)>,
    occupied: OccupiedAddress,
}

/// The circumstances of a start.
#[derive(Debug, Default)]
pub struct StartOptions {
    /// Sockets that listen already; each needs a listener with its address.
    pub inherited: InheritedSockets,
    /// Writes the access log; `None` for no log.
    pub access_log: Option<LogWriter>,
    /// Treatment of addresses at which another process listens, at the start and on reload.
    pub occupied: OccupiedAddress,
}

/// A worker's thread and the way to send commands to it.
#[derive(Debug)]
struct WorkerHandle {
    commands: mpsc::UnboundedSender<WorkerCommand>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Binds all listeners, then starts all workers. Port 0 stands for a free port: see [`Server::addresses`].
    ///
    /// # Errors
    /// If a socket can't be bound, the upstream client can't be built, or a worker can't be started.
    pub fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_with(config, clock, StartOptions::default())
    }

    /// Starts with options.
    ///
    /// # Errors
    /// Those of [`Server::start`], or if no listener has the address of an inherited socket.
    pub fn start_with(config: Config, clock: Clock, options: StartOptions) -> Result<Self, StartError> {
        let StartOptions { mut inherited, access_log, occupied } = options;
        descriptors::raise_limit();
        let config = Arc::new(config);
        let settings = config.server.clone();
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), clock.clone(), access_log)?);
        let client = |_| Client::new(&config.upstream.connection());
        let clients = (0..settings.workers).map(client).collect::<Result<_, _>>()?;
        // First, because such a socket may have an address that is bound below.
        inherited.require_listeners(&config.listeners)?;
        let admin = config.admin.endpoint().map(|endpoint| bind_admin(&endpoint, occupied)).transpose()?;
        let surroundings = Surroundings { admin: admin.as_ref().map(BoundAddress::endpoint), occupied };
        let plan = ListenerSet::default().plan(&config.listeners, settings.workers, &mut inherited, &surroundings)?;
        let admin = admin.map(publish_admin).transpose()?;
        let active = Arc::new(ActiveGeneration::new(Generation::new(gateway, clients, plan.listeners)));
        let lifecycle = Arc::new(Lifecycle::new(clock.wall()));
        let admission = admission(&active.gateway(), settings.workers);
        let (stop, drained) = (watch::Sender::new(false), watch::Sender::new(0));
        let loads = Arc::new(WorkerLoads::new(settings.workers));
        let mut workers = Vec::with_capacity(settings.workers);
        for (index, sockets) in plan.added.into_iter().enumerate() {
            let (commands, received) = mpsc::unbounded_channel();
            for socket in sockets {
                // Can't fail: the receiver is in scope.
                let _ = commands.send(WorkerCommand::Listen(socket));
            }
            let worker = Worker {
                active: Arc::clone(&active),
                lifecycle: Arc::clone(&lifecycle),
                admission: Arc::clone(&admission),
                loads: Arc::clone(&loads),
                index,
                settings: settings.clone(),
                commands: received,
                stop: stop.subscribe(),
                drained: drained.clone(),
                workers: settings.workers,
            };
            workers.push(WorkerHandle { commands, thread: spawn(worker)? });
        }
        let admin = match admin {
            None => None,
            Some((address, socket)) => {
                let (generation, lifecycle) = (Arc::clone(&active), Arc::clone(&lifecycle));
                let context = admin::AdminContext { address: address.clone(), generation, lifecycle };
                Some((address, AdminListener::start(socket, context).map_err(StartError::Worker)?))
            }
        };
        Ok(Self {
            active,
            lifecycle,
            clock,
            admission,
            listeners: Mutex::new(plan.after),
            workers,
            stop,
            admin,
            occupied,
        })
    }

    /// Applies another configuration from the next request on. No connection is dropped, and a request in flight finishes with
    /// the old configuration. The cache and the state of callers are kept as far as the settings allow.
    ///
    /// # Errors
    /// If the configuration can't be served. Nothing has changed then.
    pub fn reload(&self, config: Config) -> Result<(), StartError> {
        let before = Arc::clone(self.active.gateway().config());
        let config = Arc::new(config);
        if let Err(error) = self.apply(&before, &config) {
            self.record_refusal(error.to_string());
            return Err(error);
        }
        self.lifecycle.reloaded(self.clock.wall());
        let changes = config.changes_since(&before);
        tracing::info!(%changes, message = log_events::CONFIG_RELOADED);
        self.active.gateway().event(log_events::CONFIG_RELOADED, None, changes.to_string());
        if config.server.workers != self.workers.len() {
            tracing::warn!(setting = "server.workers", message = log_events::RESTART_NEEDED);
        }
        if config.fleet != before.fleet {
            tracing::warn!(setting = "fleet", message = log_events::RESTART_NEEDED);
        }
        let admin_address = |config: &Config| config.admin.listen_address().cloned();
        if admin_address(&config) != admin_address(&before) {
            tracing::warn!(setting = "admin.address", message = log_events::RESTART_NEEDED);
        }
        Ok(())
    }

    /// Records that a new configuration can't be read; the previous one stays in use.
    pub fn refuse_reload(&self, error: &ConfigError) {
        self.record_refusal(error.to_string());
    }

    fn record_refusal(&self, reason: String) {
        tracing::error!(error = reason, message = log_events::CONFIG_REFUSED);
        self.active.gateway().event(log_events::CONFIG_REFUSED, None, reason.clone());
        self.lifecycle.refused(reason);
    }

    fn apply(&self, before: &Config, config: &Arc<Config>) -> Result<(), StartError> {
        let mut listeners = self.listeners();
        // Everything that can fail comes first.
        let gateway = Arc::new(self.active.gateway().reconfigured(Arc::clone(config))?);
        let clients = if before.upstream.connection() == config.upstream.connection() {
            self.active.load().clients.clone()
        } else {
            let client = |_: &WorkerHandle| Client::new(&config.upstream.connection());
            self.workers.iter().map(client).collect::<Result<_, _>>()?
        };
        let admin = self.admin_address().map(|address| Endpoint { address: address.clone(), ipv6_only: false });
        let surroundings = Surroundings { admin, occupied: self.occupied };
        let mut inherited = InheritedSockets::default();
        let mut plan = listeners.plan(&config.listeners, self.workers.len(), &mut inherited, &surroundings)?;
        let added = std::mem::take(&mut plan.added);
        let generation = Generation::new(gateway, clients, std::mem::take(&mut plan.listeners));
        // A client certificate that is no longer valid gives no identity from the first request on.
        let _ = generation.refresh_certificates();
        generation.gateway.take_over();
        self.active.replace(generation);
        self.admission.set_bounds(descriptors::bounds(config, self.workers.len()));
        self.gateway().set_connections_limit(self.admission.max_connections());
        let closing;
        (closing, *listeners) = plan.carry_out();
        for (worker, sockets) in self.workers.iter().zip(added) {
            let listens = sockets.into_iter().map(WorkerCommand::Listen);
            let closes = closing.iter().copied().map(WorkerCommand::CloseConnections);
            let settings = (before.server != config.server).then(|| WorkerCommand::Apply(config.server.clone()));
            for command in listens.chain(closes).chain(settings) {
                // Fails only if the worker has panicked, and then it has no connections.
                let _ = worker.commands.send(command);
            }
        }
        Ok(())
    }

    /// Returns the active gateway, which the workers share.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        self.active.gateway()
    }

    /// Returns the address of the admin listener, with the port that the kernel chose in place of port 0.
    #[must_use]
    pub fn admin_address(&self) -> Option<&ListenAddress> {
        self.admin.as_ref().map(|(address, _)| address)
    }

    /// Returns the lifecycle: drain and reloads.
    #[must_use]
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Returns the listeners' addresses in the order of the configuration, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners().addresses()
    }

    /// Drains and ends: reports that it is draining, accepts no more connections, and returns when all requests in flight are
    /// answered or the drain timeout is over.
    pub fn stop(self) {
        drop(self);
    }

    fn stop_and_join(&mut self) {
        self.lifecycle.drain();
        self.listeners().close();
        self.stop.send_replace(true);
        for worker in self.workers.drain(..) {
            // Fails only if the worker has panicked, and then it has nothing to drain.
            let _ = worker.thread.join();
        }
        self.gateway().leave_fleet();
        self.gateway().flush_traces();
    }

    fn listeners(&self) -> MutexGuard<'_, ListenerSet> {
        // The value is replaced whole, so a panic leaves a valid one.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

/// Admits connections within the bounds of a gateway's configuration, and reports the bound.
fn admission(gateway: &Gateway, workers: usize) -> Arc<Admission> {
    let admission = Admission::new(descriptors::bounds(gateway.config(), workers));
    gateway.set_connections_limit(admission.max_connections());
    Arc::new(admission)
}

/// Binds the admin listener, without publishing a Unix path.
fn bind_admin(endpoint: &Endpoint, occupied: OccupiedAddress) -> Result<BoundAddress, StartError> {
    socket::bind(endpoint, &SocketFile::default(), 1, occupied)
}

/// Publishes the admin listener. Called when nothing else can fail: another process may use the path until then.
fn publish_admin(bound: BoundAddress) -> Result<(ListenAddress, admin::AdminSocket), StartError> {
    let BoundAddress { address, sockets, staged } = bound;
    let socket = match sockets {
        Sockets::PerWorker(mut sockets) => sockets.pop().map(BoundSocket::Tcp),
        Sockets::Shared(socket) => Some(socket),
    };
    let published = match staged.map_or(Ok(()), |staged| staged.publish()).map(|()| socket) {
        Ok(Some(BoundSocket::Tcp(socket))) => Ok(admin::AdminSocket::Tcp(socket)),
        Ok(Some(BoundSocket::Unix(socket))) => Ok(admin::AdminSocket::Unix(socket)),
        Ok(None) => Err(io::ErrorKind::AddrNotAvailable.into()),
        Err(error) => Err(error),
    };
    match published {
        Ok(socket) => Ok((address, socket)),
        Err(source) => Err(StartError::Listen { address, source }),
    }
}

/// Runs a worker on a thread of its own.
fn spawn(worker: Worker) -> Result<JoinHandle<()>, StartError> {
    let runtime = worker::runtime().map_err(StartError::Worker)?;
    std::thread::Builder::new()
        .name(format!("worker-{}", worker.index))
        .spawn(move || runtime.block_on(worker.run()))
        .map_err(StartError::Worker)
}
