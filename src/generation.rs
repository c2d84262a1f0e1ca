//! The active generation: one gateway, the state of each listener and each worker's upstream pool, replaced as a whole when
//! the configuration changes.
//!
//! Every request loads the active [`Generation`], which takes no lock. A request that has begun finishes with the generation
//! that it began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::caller::ListenerIdentity;
use crate::executions::QueryMemo;
use crate::gateway::{ConnectionContext, Gateway, KnownCaller};
use crate::http_client::Client;
use crate::log_events;
use crate::request::peer::Peer;
use crate::tls::{CertificateExpiry, Tls};

/// Holds the active generation and replaces it on reload; one per server.
#[derive(Debug)]
pub struct ActiveGeneration {
    active: ArcSwap<Generation>,
    /// The number of the active generation; changed only under this sender's lock.
    number: watch::Sender<u64>,
}

/// The gateway, upstream pools and listeners in use between two changes of the configuration or of a certificate.
#[derive(Clone, Debug)]
pub struct Generation {
    number: u64,
    /// Answers requests.
    pub gateway: Arc<Gateway>,
    /// The upstream pool of each worker, by the worker's index.
    pub clients: Vec<Client>,
    /// The state of each listener, those that the last change closed included.
    pub listeners: BTreeMap<ListenerId, Listener>,
}

/// Identifies a listener for as long as its socket is open, also while its configuration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerId(pub u64);

/// The state of a listener in one generation.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The identity that its connections give to a request; `None` if the listener was removed from the configuration, so that
    /// its connections give none.
    pub identity: Option<ListenerIdentity>,
    /// TLS for its connections; `None` for plain text.
    pub tls: Option<Arc<Tls>>,
    /// True while its socket accepts connections. After it closes, each connection from its accept queue may send one more
    /// request.
    pub open: bool,
}

/// The place at which a connection arrived, and the client certificates that its peer presented.
#[derive(Debug)]
pub struct ConnectionOrigin {
    /// Index of the worker that serves it.
    pub worker: usize,
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The other end.
    pub peer: Peer,
    /// The peer's certificate chain, its own certificate first; empty without mutual TLS.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl ActiveGeneration {
    /// Starts with a first generation.
    #[must_use]
    pub fn new(first: Generation) -> Self {
        Self { active: ArcSwap::from_pointee(first), number: watch::Sender::new(0) }
    }

    /// Loads the active generation. Part of the hit path; do not hold the guard across an await.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Generation>> {
        self.active.load()
    }

    /// Returns the gateway of the active generation.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.load().gateway)
    }

    /// Makes `next` the active generation.
    pub fn replace(&self, next: Generation) {
        self.number.send_modify(|number| self.activate(number, next));
    }

    /// Gives the active generation a new number, so that connections derive their identities anew.
    pub fn renew(&self) {
        self.number.send_if_modified(|number| {
            let same = Generation::clone(&self.load());
            self.activate(number, same);
            // Maintenance goes on with the same gateway.
            false
        });
    }

    /// Stores a generation under the next number. The reference to `number` shows that the caller holds the sender's lock,
    /// so no two generations get the same number.
    fn activate(&self, number: &mut u64, generation: Generation) {
        *number += 1;
        self.active.store(Arc::new(Generation { number: *number, ..generation }));
    }

    /// Runs the active gateway's background work for as long as it is polled. One worker, of this index, does this for all.
    pub async fn run_maintenance(&self, worker: usize) {
        let mut number = self.number.subscribe();
        loop {
            number.mark_unchanged();
            let (gateway, client) = (self.gateway(), self.load().clients[worker].clone());
            tokio::select! {
                () = gateway.run_maintenance(&client) => {}
                _ = number.changed() => continue,
            }
            // This gateway has no background work; the next one may have some.
            let _ = number.changed().await;
        }
    }
}

impl Generation {
    /// Puts a generation together; it gets its number when it becomes the active one.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, clients: Vec<Client>, listeners: BTreeMap<ListenerId, Listener>) -> Self {
        Self { number: 0, gateway, clients, listeners }
    }

    /// Returns a number that no other generation of this server has.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    fn open_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.values().filter(|listener| listener.open)
    }

    /// The ends of the open listeners' certificates, and of the authorities of their clients' certificates.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateExpiry> {
        self.open_listeners().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| tls.expiries()).collect()
    }

    /// Rereads changed TLS files of the open listeners and logs the results; returns true if new contents are in use.
    #[must_use]
    pub fn refresh_certificates(&self) -> bool {
        let mut refreshed = false;
        for tls in self.open_listeners().filter_map(|listener| listener.tls.as_ref()) {
            match tls.refresh() {
                Ok(true) => {
                    tracing::info!(message = log_events::CERTIFICATE_RELOADED);
                    refreshed = true;
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, message = log_events::CERTIFICATE_REFUSED),
            }
        }
        refreshed
    }

    /// Builds the context of requests that arrive over a connection.
    ///
    /// A client certificate that does not verify against the listener's present authorities gives no identity, and neither
    /// does a listener that was removed. `abandon` becomes true when the drain timeout is over.
    #[must_use]
    pub fn connection_context(
        &self,
        origin: &ConnectionOrigin,
        query_memo: Arc<QueryMemo>,
        abandon: watch::Receiver<bool>,
        known_caller: KnownCaller,
    ) -> ConnectionContext {
        let configured = self
            .listeners
            .get(&origin.listener)
            .and_then(|listener| Some((listener.identity.clone()?, listener.tls.as_ref())));
        let (identity, tls) = configured.unwrap_or_default();
        let certificate = tls.and_then(|tls| tls.verify_client(&origin.certificates, self.gateway.wall()));
        ConnectionContext {
            client: self.clients[origin.worker].clone(),
            query_memo,
            identity: ListenerIdentity {
                peer: origin.peer,
                ..self.gateway.connection_identity(&identity, certificate.as_ref())
            },
            abandon,
            known_caller,
            half_close: None,
        }
    }
}
