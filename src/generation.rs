//! What serves at present: one gateway, what holds at each listener, and each worker's way to the upstream, swapped all
//! together when the configuration changes.
//!
//! Every request asks for the present [`Generation`], which takes no lock; one that has begun ends with the generation that
//! it began with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::caller::ListenerIdentity;
use crate::executions::QueryMemo;
use crate::gateway::{ConnectionContext, Gateway};
use crate::http_client::Client;
use crate::tls::Tls;

/// The present generation, and its successors.
#[derive(Debug)]
pub struct ActiveGeneration {
    present: ArcSwap<Generation>,
    number: watch::Sender<u64>,
}

/// What serves between two changes of the configuration, or of the certificates that it names.
#[derive(Debug)]
pub struct Generation {
    number: u64,
    parts: Parts,
}

/// What a generation consists of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What answers.
    pub gateway: Arc<Gateway>,
    /// The upstream pool of each worker.
    pub clients: Vec<Client>,
    /// What holds at each listener.
    pub doors: BTreeMap<DoorId, Door>,
}

/// A listener, for as long as it listens: also while its configuration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DoorId(pub u64);

/// What holds for those who come in at a listener, or have done so at one that the last change has closed.
#[derive(Clone, Debug)]
pub struct Door {
    /// What it says of who sends requests; `None` if it is configured no more, so that they stand for nobody.
    pub entrance: Option<ListenerIdentity>,
    /// How connections are encrypted, if they are.
    pub tls: Option<Arc<Tls>>,
    /// Whether it listens. If not, those who wait in its queue are answered once.
    pub open: bool,
}

impl Parts {
    /// What holds where it listens.
    pub fn open_doors(&self) -> impl Iterator<Item = &Door> {
        self.doors.values().filter(|door| door.open)
    }
}

impl ActiveGeneration {
    /// The first generation.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { present: ArcSwap::from_pointee(Generation { number: 0, parts }), number: watch::Sender::new(0) }
    }

    /// The present generation. Part of the hit path; do not keep it over a wait.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Generation>> {
        self.present.load()
    }

    /// The gateway that answers at present.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.load().parts.gateway)
    }

    /// The next generation serves from now on. Call it from one thread at a time.
    pub fn replace(&self, parts: Parts) {
        self.number.send_modify(|number| self.succeed(number, parts));
    }

    /// What serves stays, under the next number: what was found out by the last one is to be found out anew.
    pub fn renew(&self) {
        self.number.send_if_modified(|number| {
            let parts = self.load().parts.clone();
            self.succeed(number, parts);
            // The house is the same one.
            false
        });
    }

    /// To be called under the lock of the number alone: no two generations may have the same.
    fn succeed(&self, number: &mut u64, parts: Parts) {
        *number += 1;
        self.present.store(Arc::new(Generation { number: *number, parts }));
    }

    /// What has to be done though nobody asks for it, for as long as it is polled. One worker does it for all.
    pub async fn run_maintenance(&self) {
        let mut number = self.number.subscribe();
        loop {
            number.mark_unchanged();
            let gateway = self.gateway();
            tokio::select! {
                () = gateway.run_maintenance() => {}
                _ = number.changed() => continue,
            }
            // It has nothing to do: the next one may have.
            let _ = number.changed().await;
        }
    }
}

impl Generation {
    /// Tells it from all others.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it consists of.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What requests mean that come to a worker through a door, on a connection where these certificates were shown. A
    /// certificate that the door would no longer let in stands for nobody; neither does a door that is gone. `over` turns true
    /// when the worker gives up what it has not answered.
    #[must_use]
    pub fn scope(
        &self,
        worker: usize,
        door: DoorId,
        shown: &[CertificateDer<'_>],
        query_memo: Arc<QueryMemo>,
        over: watch::Receiver<bool>,
    ) -> ConnectionContext {
        let configured = self.parts.doors.get(&door).and_then(|door| Some((door.entrance.clone()?, door.tls.as_ref())));
        let (entrance, tls) = configured.unwrap_or_default();
        let names = tls.map(|tls| tls.names(shown)).unwrap_or_default();
        ConnectionContext {
            client: self.parts.clients[worker].clone(),
            query_memo,
            entrance: self.parts.gateway.entrance_with_certificate(&entrance, &names),
            over,
        }
    }
}
