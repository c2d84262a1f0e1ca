//! The set of listeners, and the plan that turns it into the set of another configuration. A listener whose address stays
//! keeps its socket, so that its connections and its queue are untouched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::error::StartError;
use super::inherited::InheritedSockets;
use super::socket::{self, BoundAddress, OccupiedAddress, SocketOwner, Sockets, StagedPath, WorkerSocket};
use crate::caller::ListenerIdentity;
use crate::config::{Endpoint, ListenAddress, ListenerConfig};
use crate::generation::{Listener, ListenerId};
use crate::tls::{ClientCertificates, Tls};

/// The listeners that accept connections.
#[derive(Debug, Default)]
pub(super) struct ListenerSet {
    listeners: Vec<ActiveListener>,
    next_id: u64,
}

/// A listener that accepts connections.
#[derive(Clone, Debug)]
struct ActiveListener {
    config: ListenerConfig,
    /// The configured address, with the port that the kernel chose in place of port 0.
    address: ListenAddress,
    id: ListenerId,
    tls: Option<Arc<Tls>>,
    /// Set to true to make the workers stop accepting.
    close: watch::Sender<bool>,
}

/// The circumstances in which new sockets are bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The endpoint of the admin listener, which no listener may overlap.
    pub(super) admin: Option<Endpoint>,
    pub(super) occupied: OccupiedAddress,
}

impl ActiveListener {
    /// The endpoint that is bound, with the port that the kernel chose in place of port 0.
    fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.address.clone(), ..self.config.endpoint() }
    }
}

/// The steps from one set of listeners to that of another configuration. A plan has bound new sockets and changed nothing
/// else.
#[derive(Debug)]
pub(super) struct ListenerPlan {
    pub(super) after: ListenerSet,
    /// The new sockets of each worker, by the worker's index.
    pub(super) added: Vec<Vec<WorkerSocket>>,
    /// The state of each listener once the plan is carried out.
    pub(super) listeners: BTreeMap<ListenerId, Listener>,
    removed: Vec<ActiveListener>,
    /// Listeners that change between plain text and TLS, or in their demands on client certificates.
    tls_changed: Vec<ListenerId>,
    staged: Vec<(ListenAddress, StagedPath)>,
}

impl ListenerSet {
    /// Plans for the listeners of a configuration. A Unix socket with another mode or owner is a new listener.
    pub(super) fn plan(
        &self,
        configs: &[ListenerConfig],
        workers: usize,
        inherited: &mut InheritedSockets,
        surroundings: &Surroundings,
    ) -> Result<ListenerPlan, StartError> {
        let mut before = self.listeners.clone();
        let mut plan = ListenerPlan {
            after: Self { listeners: Vec::new(), next_id: self.next_id },
            added: (0..workers).map(|_| Vec::new()).collect(),
            listeners: BTreeMap::new(),
            removed: Vec::new(),
            tls_changed: Vec::new(),
            staged: Vec::new(),
        };
        // Certificates first, so that unusable ones are found before a socket is bound.
        let mut wanted = Vec::with_capacity(configs.len());
        for config in configs {
            let same =
                |old: &ActiveListener| old.config.endpoint() == config.endpoint() && old.config.socket == config.socket;
            let kept = before.iter().position(same).map(|index| before.remove(index));
            let tls = load_tls(config, kept.as_ref())?;
            wanted.push((config, kept, tls));
        }
        let kept: Vec<Endpoint> =
            wanted.iter().filter_map(|(_, kept, _)| kept.as_ref()).map(ActiveListener::endpoint).collect();
        for (config, kept_listener, tls) in wanted {
            if let Some(kept) = kept_listener {
                plan.keep(config, kept, tls);
                continue;
            }
            require_disjoint(&config.endpoint(), kept.iter().chain(&surroundings.admin))?;
            let replaces = before.iter().any(|old| old.endpoint().overlaps(&config.endpoint()));
            let occupied = if replaces { OccupiedAddress::TakeOver } else { surroundings.occupied };
            let socket = bind(config, inherited, plan.added.len(), occupied)?;
            plan.add(config, socket, tls);
        }
        plan.remove(before);
        inherited.require_all_taken()?;
        // Renames come last, when nothing else can fail.
        for (address, staged) in plan.staged.drain(..) {
            staged.publish().map_err(|source| StartError::Listen { address, source })?;
        }
        Ok(plan)
    }

    /// Returns the bound addresses in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<ListenAddress> {
        self.listeners.iter().map(|listener| listener.address.clone()).collect()
    }

    /// Makes all listeners stop accepting.
    pub(super) fn close(&self) {
        for listener in &self.listeners {
            listener.close.send_replace(true);
        }
    }
}

impl ListenerPlan {
    fn keep(&mut self, config: &ListenerConfig, kept: ActiveListener, tls: Option<Arc<Tls>>) {
        if handshake_policy(kept.tls.as_deref()) != handshake_policy(tls.as_deref()) {
            self.tls_changed.push(kept.id);
        }
        self.activate(ActiveListener { config: config.clone(), tls, ..kept });
    }

    fn add(&mut self, config: &ListenerConfig, socket: (SocketOwner, BoundAddress), tls: Option<Arc<Tls>>) {
        let (owner, BoundAddress { address, sockets, staged }) = socket;
        self.staged.extend(staged.map(|staged| (address.clone(), staged)));
        let close = watch::Sender::new(false);
        let id = ListenerId(self.after.next_id);
        self.after.next_id += 1;
        let workers = self.added.len();
        // The listeners take turns, so that no worker accepts for all of them.
        let acceptor = self.after.listeners.len() % workers;
        for (worker, sources) in self.added.iter_mut().zip(sockets.into_sources(workers, acceptor)) {
            let socket = |source| WorkerSocket { source, owner, listener: id, close: close.subscribe() };
            worker.extend(sources.into_iter().map(socket));
        }
        self.activate(ActiveListener { config: config.clone(), address, id, tls, close });
    }

    fn activate(&mut self, active: ActiveListener) {
        let identity = Some(ListenerIdentity::of(&active.config));
        self.listeners.insert(active.id, Listener { identity, tls: active.tls.clone(), open: true });
        self.after.listeners.push(active);
    }

    fn remove(&mut self, removed: Vec<ActiveListener>) {
        for closed in &removed {
            let same_address = |active: &&ActiveListener| active.config.address == closed.config.address;
            let replacement = self.after.listeners.iter().find(same_address);
            let state = match replacement.and_then(|active| self.listeners.get(&active.id)) {
                // A new socket at the same address: connections of the old one keep their identity.
                Some(state) => Listener { open: false, ..state.clone() },
                None => Listener { identity: None, tls: closed.tls.clone(), open: false },
            };
            self.listeners.insert(closed.id, state);
        }
        self.removed = removed;
    }

    /// Closes the removed listeners; returns the listeners whose open connections are to close, and the new set.
    pub(super) fn carry_out(self) -> (Vec<ListenerId>, ListenerSet) {
        let closed = self.removed.iter().map(|listener| {
            listener.close.send_replace(true);
            listener.id
        });
        (closed.chain(self.tls_changed).collect(), self.after)
    }
}

/// Takes the inherited socket of a listener, or else binds its endpoint.
fn bind(
    config: &ListenerConfig,
    inherited: &mut InheritedSockets,
    workers: usize,
    occupied: OccupiedAddress,
) -> Result<(SocketOwner, BoundAddress), StartError> {
    let Some(socket) = inherited.take(config) else {
        let bound = socket::bind(&config.endpoint(), &config.socket, workers, occupied)?;
        return Ok((SocketOwner::ThisProcess, bound));
    };
    let address = config.address.clone();
    let sockets = Sockets::Shared(socket);
    Ok((SocketOwner::ServiceManager, BoundAddress { address, sockets, staged: None }))
}

/// Refuses an endpoint that overlaps one on which this process goes on listening. The configuration has no such pair, but a
/// port that the kernel chose, and an admin address that needs a restart, are not in it.
fn require_disjoint<'a>(endpoint: &Endpoint, mut others: impl Iterator<Item = &'a Endpoint>) -> Result<(), StartError> {
    match others.find(|other| other.overlaps(endpoint)) {
        None => Ok(()),
        Some(other) => Err(StartError::Overlap { address: endpoint.address.clone(), other: other.address.clone() }),
    }
}

/// The requirements that each connection of a listener has met: `None` for plain text, otherwise the authorities of client
/// certificates and the demand for a certificate.
fn handshake_policy(tls: Option<&Tls>) -> Option<(Option<&Path>, ClientCertificates)> {
    tls.map(Tls::files).map(|files| (files.client_ca.as_deref(), files.client_certificate))
}

/// Loads a listener's TLS files. If the listener had the same files before, returns its loaded [`Tls`], which is refreshed when
/// the files change.
fn load_tls(config: &ListenerConfig, kept: Option<&ActiveListener>) -> Result<Option<Arc<Tls>>, StartError> {
    let Some(files) = &config.tls else { return Ok(None) };
    match kept.and_then(|kept| kept.tls.as_ref()) {
        Some(tls) if tls.files() == files => Ok(Some(Arc::clone(tls))),
        Some(tls) => Ok(Some(Arc::new(Tls::replacing(tls, files.clone())?))),
        None => Ok(Some(Arc::new(Tls::new(files.clone())?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn a_removed_listener_is_known_until_the_next_change_and_gives_no_identity() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", "tk_org");
        let tenant = "[[tenants]]\nid = \"a\"\nmode = \"validate\"\norg_key = { env = \"ORG_KEY\" }\n";
        let listeners = |lines: &str| {
            let config = Config::parse(&format!("{lines}{tenant}"), Path::new("test.toml"), &environment);
            config.unwrap_or_else(|error| panic!("{error}")).listeners.clone()
        };
        let [certificate, key] = ["server-1.pem", "server-1.key"].map(|name| data.join(name).display().to_string());
        let encrypted = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n"
        );
        let plain = "[[listeners]]\naddress = \"127.0.0.2:0\"\n";
        let first = ListenerSet::default()
            .plan(&listeners(&encrypted), 1, &mut InheritedSockets::default(), &Surroundings::default())
            .expect("it listens");
        let id = first.after.listeners[0].id;
        assert!(first.listeners[&id].open && first.listeners[&id].tls.is_some());
        let (_, after) = first.carry_out();
        let second = after
            .plan(&listeners(plain), 1, &mut InheritedSockets::default(), &Surroundings::default())
            .expect("it listens");
        let closed = &second.listeners[&id];
        assert!(!closed.open && closed.identity.is_none() && closed.tls.is_some());
        let (closing, after) = second.carry_out();
        assert_eq!(closing, [id]);
        let third = after
            .plan(&listeners(plain), 1, &mut InheritedSockets::default(), &Surroundings::default())
            .expect("it listens");
        assert!(!third.listeners.contains_key(&id));
    }
}
