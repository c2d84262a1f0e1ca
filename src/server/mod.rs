//! Sockets and workers: one thread per core, each with its own single-threaded runtime, its own `SO_REUSEPORT` listeners
//! and its own upstream pool. The gateway behind them is shared.

mod connection;
mod patience;
mod socket;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::caller::Entrance;
use crate::client::{Client, ClientSetupError};
use crate::clock::Clock;
use crate::config::{Config, ListenAddress};
use crate::gateway::Gateway;
use crate::tls::{Tls, TlsError};

/// A gateway that is serving.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<ListenAddress>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    gateway: Arc<Gateway>,
}

/// Why a gateway can't serve.
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
        let config = Arc::new(config);
        let gateway = Arc::new(Gateway::new(Arc::clone(&config), clock)?);
        let stop = watch::Sender::new(false);
        let mut encrypted = Vec::new();
        let mut addresses = Vec::with_capacity(config.listeners.len());
        let mut sockets: Vec<Vec<worker::Listening>> = (0..config.server.workers).map(|_| Vec::new()).collect();
        for listener in &config.listeners {
            let (address, bound) = socket::bind(listener, config.server.workers)
                .map_err(|source| StartError::Listen { address: listener.address.clone(), source })?;
            addresses.push(address);
            let tls = listener.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
            encrypted.extend(tls.clone());
            for (worker, socket) in sockets.iter_mut().zip(bound) {
                let tls = tls.clone();
                worker.push(worker::Listening { socket, tls, entrance: Entrance::of(listener) });
            }
        }
        let mut workers = Vec::with_capacity(sockets.len());
        for (index, listening) in sockets.into_iter().enumerate() {
            let worker = worker::Worker {
                gateway: Arc::clone(&gateway),
                client: Client::new(&config.upstream.connection)?,
                settings: config.server.clone(),
                listening,
                keeps_house: (index == 0).then(|| encrypted.clone()),
                stop: stop.subscribe(),
            };
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || runtime.block_on(worker.run()))
                .map_err(StartError::Worker)?;
            workers.push(thread);
        }
        Ok(Self { addresses, stop, workers, gateway })
    }

    /// The gateway that the workers share.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Where it listens, with the ports that were taken.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Takes no more connections, lets requests in flight end within the drain time, and returns when all have.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        self.stop.send_replace(true);
        for worker in self.workers.drain(..) {
            // A worker that has panicked has nothing left to drain.
            let _ = worker.join();
        }
        self.gateway.flush_traces();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}
