//! Sockets and workers: one thread per core, each with its own single-threaded runtime, its own `SO_REUSEPORT` listeners
//! and its own upstream pool. The gateway behind them is shared, and another one takes its place when the configuration
//! changes ([`Server::reload`]).

mod accept;
mod connection;
mod inherited;
mod listeners;
mod patience;
mod socket;
mod worker;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};

pub use self::inherited::Inherited;
use self::listeners::Listeners;
use self::socket::{Bound, Fresh};
use self::worker::{Order, Worker};
use crate::admin::{self, Admin};
use crate::client::{Client, ClientSetupError};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ListenAddress, ListenerConfig};
use crate::gateway::Gateway;
use crate::lifecycle::Lifecycle;
use crate::live::{Live, Parts};
use crate::tls::TlsError;

/// A gateway that is serving.
#[derive(Debug)]
pub struct Server {
    live: Arc<Live>,
    lifecycle: Arc<Lifecycle>,
    clock: Clock,
    listeners: Mutex<Listeners>,
    workers: Vec<Running>,
    stop: watch::Sender<bool>,
    admin: Option<(ListenAddress, Admin)>,
}

/// A worker's thread.
#[derive(Debug)]
struct Running {
    orders: mpsc::UnboundedSender<Order>,
    thread: JoinHandle<()>,
}

/// Why a gateway can't serve, or not with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket can't be had.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address as it is configured.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// A socket that the process was started with can't be used.
    #[error("the socket `{name}` that this process was started with can't be used: {source}")]
    Inherited {
        /// As the service manager calls it.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A socket that the process was started with is in nobody's configuration.
    #[error("this process was started with the socket `{name}` on {address}, and no listener has that address")]
    NoListener {
        /// As the service manager calls it.
        name: String,
        /// Where it listens.
        address: ListenAddress,
    },
    /// The upstream client can't be built.
    #[error(transparent)]
    Upstream(#[from] ClientSetupError),
    /// A TLS file can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A worker thread or its runtime can't be started.
    #[error("can't start a worker: {0}")]
    Worker(io::Error),
}

impl Server {
    /// Binds all listeners, then starts all workers. Port 0 takes a free one: see [`Server::addresses`].
    ///
    /// # Errors
    /// If a socket can't be had, the upstream client can't be built, or a worker can't be started.
    pub fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_with(config, clock, Inherited::default())
    }

    /// The same with sockets that listen already. Each has to be one of the configuration's.
    ///
    /// # Errors
    /// Those of [`Server::start`], or if there is no listener for a socket.
    pub fn start_with(config: Config, clock: Clock, mut inherited: Inherited) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let settings = config.server.clone();
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), clock.clone())?);
        let client = |_| Client::new(&config.upstream.connection());
        let clients = (0..settings.workers).map(client).collect::<Result<_, _>>()?;
        let admin = config.admin.listen_address().map(bind_admin).transpose()?;
        let plan = Listeners::default().plan(&config.listeners, settings.workers, &mut inherited)?;
        let admin = admin.map(open_admin).transpose()?;
        let live = Arc::new(Live::new(Parts { gateway, clients, doors: plan.doors.clone() }));
        let lifecycle = Arc::new(Lifecycle::new(clock.wall()));
        let (stop, drained) = (watch::Sender::new(false), watch::Sender::new(0));
        let mut workers = Vec::with_capacity(settings.workers);
        for (index, added) in plan.added.into_iter().enumerate() {
            let (orders, received) = mpsc::unbounded_channel();
            for listening in added {
                // The receiver is still here.
                let _ = orders.send(Order::Listen(listening));
            }
            let worker = Worker {
                live: Arc::clone(&live),
                lifecycle: Arc::clone(&lifecycle),
                index,
                settings: settings.clone(),
                orders: received,
                stop: stop.subscribe(),
                drained: drained.clone(),
                workers: settings.workers,
            };
            workers.push(Running { orders, thread: run(worker)? });
        }
        let admin = match admin {
            None => None,
            Some((address, socket)) => {
                let (live, lifecycle) = (Arc::clone(&live), Arc::clone(&lifecycle));
                let sources = admin::Sources { address: address.clone(), live, lifecycle };
                Some((address, Admin::start(socket, sources).map_err(StartError::Worker)?))
            }
        };
        Ok(Self { live, lifecycle, clock, listeners: Mutex::new(plan.after), workers, stop, admin })
    }

    /// Serves as another configuration says from the next request on. No connection is dropped by it, and a request that has
    /// begun ends as it began; what is known of callers and what is cached is kept as far as the settings allow.
    ///
    /// # Errors
    /// If it can't be served. Nothing has changed then.
    pub fn reload(&self, config: Config) -> Result<(), StartError> {
        let before = Arc::clone(self.live.gateway().config());
        let config = Arc::new(config);
        match self.replace(&before, &config) {
            Ok(()) => {
                self.lifecycle.reloaded(self.clock.wall());
                tracing::info!(changes = %config.changes_since(&before), "config_reloaded");
                if config.server.workers != self.workers.len() {
                    tracing::warn!(setting = "server.workers", "restart_needed");
                }
                let admin = |config: &Config| config.admin.listen_address().cloned();
                if admin(&config) != admin(&before) {
                    tracing::warn!(setting = "admin.address", "restart_needed");
                }
                Ok(())
            }
            Err(error) => {
                self.refuse(error.to_string());
                Err(error)
            }
        }
    }

    /// Notes that there is a new configuration and that it can't be read: what was served before is served on.
    pub fn refuse_reload(&self, error: &ConfigError) {
        self.refuse(error.to_string());
    }

    fn refuse(&self, why: String) {
        tracing::error!(error = why, "config_refused");
        self.lifecycle.refused(why);
    }

    fn replace(&self, before: &Config, config: &Arc<Config>) -> Result<(), StartError> {
        let mut listeners = self.listeners();
        // All that can fail comes first.
        let gateway = Arc::new(self.live.gateway().successor(Arc::clone(config))?);
        let same_upstream = before.upstream.connection() == config.upstream.connection();
        let clients = if same_upstream {
            self.live.load().parts().clients.clone()
        } else {
            let client = |_: &Running| Client::new(&config.upstream.connection());
            self.workers.iter().map(client).collect::<Result<_, _>>()?
        };
        let mut plan = listeners.plan(&config.listeners, self.workers.len(), &mut Inherited::default())?;
        let (doors, added) = (std::mem::take(&mut plan.doors), std::mem::take(&mut plan.added));
        let parts = Parts { gateway, clients, doors };
        // A certificate that is let in no more stands for nobody from the first request on.
        for tls in parts.open_doors().filter_map(|door| door.tls.as_ref()) {
            tls.refresh();
        }
        parts.gateway.take_over();
        self.live.replace(parts);
        let left;
        (left, *listeners) = plan.carry_out();
        for (worker, added) in self.workers.iter().zip(added) {
            let orders = added.into_iter().map(Order::Listen).chain(left.iter().copied().map(Order::Leave));
            let settings = (before.server != config.server).then(|| Order::Serve(config.server.clone()));
            for order in orders.chain(settings) {
                // A worker that has panicked serves nobody.
                let _ = worker.orders.send(order);
            }
        }
        Ok(())
    }

    /// The gateway that the workers share at present.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        self.live.gateway()
    }

    /// What serves at present, for those who ask again and again.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Where whoever runs it asks, with the port that was taken.
    #[must_use]
    pub fn admin_address(&self) -> Option<&ListenAddress> {
        self.admin.as_ref().map(|(address, _)| address)
    }

    /// Whether it is about to end, and how its reloads went.
    #[must_use]
    pub fn lifecycle(&self) -> &Arc<Lifecycle> {
        &self.lifecycle
    }

    /// Where it listens, with the ports that were taken, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners().addresses()
    }

    /// Says that it is about to end, takes no more connections, lets requests in flight end within the drain time, and returns
    /// when all have.
    pub fn stop(self) {
        drop(self);
    }

    fn stop_and_join(&mut self) {
        self.lifecycle.drain();
        self.listeners().close();
        self.stop.send_replace(true);
        for worker in self.workers.drain(..) {
            // A worker that has panicked has nothing left to drain.
            let _ = worker.thread.join();
        }
        self.gateway().flush_traces();
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        // They are replaced whole.
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket of the admin listener, not in its place yet.
fn bind_admin(address: &ListenAddress) -> Result<Fresh, StartError> {
    socket::bind(&ListenerConfig::at(address.clone()), 1)
        .map_err(|source| StartError::Listen { address: address.clone(), source })
}

/// The same in its place. To be called when nothing else can fail: it may be another process's place until then.
fn open_admin(fresh: Fresh) -> Result<(ListenAddress, admin::Socket), StartError> {
    let Fresh { address, mut sockets, staged } = fresh;
    let opened = match staged.map_or(Ok(()), |staged| staged.put_in_place()).map(|()| sockets.pop()) {
        Ok(Some(Bound::Tcp(socket))) => Ok(admin::Socket::Tcp(socket)),
        Ok(Some(Bound::Unix(socket))) => Ok(admin::Socket::Unix(socket)),
        Ok(None) => Err(io::ErrorKind::AddrNotAvailable.into()),
        Err(error) => Err(error),
    };
    match opened {
        Ok(socket) => Ok((address, socket)),
        Err(source) => Err(StartError::Listen { address, source }),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

fn run(worker: Worker) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
    std::thread::Builder::new()
        .name(format!("worker-{}", worker.index))
        .spawn(move || runtime.block_on(worker.run()))
        .map_err(StartError::Worker)
}
