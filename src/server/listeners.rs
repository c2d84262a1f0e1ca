//! Which sockets are open, and what another configuration makes of them: one that has the same address stays open, so its
//! connections and those that wait in its queue are not touched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::StartError;
use super::inherited::Inherited;
use super::socket::{self, Fresh, Staged};
use super::worker::Listening;
use crate::caller::Entrance;
use crate::config::{self, ListenAddress};
use crate::live::{Door, DoorId};
use crate::tls::{ClientCertificates, Tls};

/// The sockets that are open.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: Vec<Open>,
    next: u64,
}

/// One address at which connections are accepted.
#[derive(Clone, Debug)]
struct Open {
    configured: config::ListenerConfig,
    /// With the port that was taken.
    address: ListenAddress,
    door: DoorId,
    tls: Option<Arc<Tls>>,
    /// Turns true when its workers are to accept no more.
    close: watch::Sender<bool>,
}

/// What is to be done so that a configuration holds. Nothing of it was done yet but that new sockets listen.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) after: Listeners,
    /// What each worker is to listen at beside what it does.
    pub(super) added: Vec<Vec<Listening>>,
    removed: Vec<Open>,
    /// Those whose connections are encrypted from now on, or no more, or have to show another certificate.
    turned: Vec<DoorId>,
    staged: Vec<(ListenAddress, Staged)>,
    /// What holds at each listener.
    pub(super) doors: BTreeMap<DoorId, Door>,
}

impl Listeners {
    /// Plans for the listeners of a configuration. A Unix socket with another mode or owner is another socket.
    pub(super) fn plan(
        &self,
        configured: &[config::ListenerConfig],
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Plan, StartError> {
        let mut before = self.open.clone();
        let mut plan = Plan {
            after: Self { open: Vec::new(), next: self.next },
            added: (0..workers).map(|_| Vec::new()).collect(),
            removed: Vec::new(),
            turned: Vec::new(),
            staged: Vec::new(),
            doors: BTreeMap::new(),
        };
        // Certificates first: what can't be used is found out before anything listens.
        let mut wanted = Vec::with_capacity(configured.len());
        for listener in configured {
            let same =
                |open: &Open| open.configured.address == listener.address && open.configured.socket == listener.socket;
            let kept = before.iter().position(same).map(|index| before.remove(index));
            let tls = tls(listener, kept.as_ref())?;
            wanted.push((listener, kept, tls));
        }
        for (listener, kept, tls) in wanted {
            let turned = |open: &&Open| demands(open.tls.as_deref()) != demands(tls.as_deref());
            plan.turned.extend(kept.iter().filter(turned).map(|open| open.door));
            let open = match kept {
                Some(open) => Open { configured: listener.clone(), tls, ..open },
                None => plan.open(listener, tls, inherited)?,
            };
            let door = Door { entrance: Some(Entrance::of(listener)), tls: open.tls.clone(), open: true };
            plan.doors.insert(open.door, door);
            plan.after.open.push(open);
        }
        for closed in &before {
            let same = |open: &&Open| open.configured.address == closed.configured.address;
            let door = match plan.after.open.iter().find(same).and_then(|open| plan.doors.get(&open.door)) {
                // Another socket at the same address, so those who are there already stand for the same.
                Some(door) => Door { open: false, ..door.clone() },
                None => Door { entrance: None, tls: closed.tls.clone(), open: false },
            };
            plan.doors.insert(closed.door, door);
        }
        plan.removed = before;
        inherited.all_taken()?;
        // Last, when nothing else can fail.
        for (address, staged) in plan.staged.drain(..) {
            staged.put_in_place().map_err(|source| StartError::Listen { address, source })?;
        }
        Ok(plan)
    }

    /// Where connections are accepted, in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<ListenAddress> {
        self.open.iter().map(|open| open.address.clone()).collect()
    }

    /// Accepts no more anywhere.
    pub(super) fn close(&self) {
        for open in &self.open {
            open.close.send_replace(true);
        }
    }
}

impl Plan {
    fn open(
        &mut self,
        listener: &config::ListenerConfig,
        tls: Option<Arc<Tls>>,
        inherited: &mut Inherited,
    ) -> Result<Open, StartError> {
        let workers = self.added.len();
        let inherited = inherited.take(&listener.address);
        let ours = inherited.is_none();
        let bound = match inherited {
            Some(socket) => {
                let address = listener.address.clone();
                socket.shared(workers).map(|sockets| Fresh { address, sockets, staged: None })
            }
            None => socket::bind(listener, workers),
        };
        let Fresh { address, sockets, staged } =
            bound.map_err(|source| StartError::Listen { address: listener.address.clone(), source })?;
        self.staged.extend(staged.map(|staged| (address.clone(), staged)));
        let close = watch::Sender::new(false);
        let door = DoorId(self.after.next);
        self.after.next += 1;
        for (worker, socket) in self.added.iter_mut().zip(sockets) {
            worker.push(Listening { socket, ours, door, close: close.subscribe() });
        }
        Ok(Open { configured: listener.clone(), address, door, tls, close })
    }

    /// Closes what is no longer configured; gives the doors that those who have come in by now are to leave, and what is open.
    pub(super) fn carry_out(self) -> (Vec<DoorId>, Listeners) {
        let gone = self.removed.iter().map(|open| {
            open.close.send_replace(true);
            open.door
        });
        (gone.chain(self.turned).collect(), self.after)
    }
}

/// What every connection has gone through that was let in: none without TLS, otherwise whose certificates are taken and
/// whether one has to be shown.
pub(super) fn demands(tls: Option<&Tls>) -> Option<(Option<&Path>, ClientCertificates)> {
    tls.map(Tls::files).map(|files| (files.client_ca.as_deref(), files.client_certificate))
}

/// What a listener's connections are encrypted with: as before if the files are the same ones, since it looks after what is
/// in them by itself.
fn tls(listener: &config::ListenerConfig, kept: Option<&Open>) -> Result<Option<Arc<Tls>>, StartError> {
    let Some(files) = &listener.tls else { return Ok(None) };
    match kept.and_then(|open| open.tls.as_ref()).filter(|tls| tls.files() == files) {
        Some(tls) => Ok(Some(Arc::clone(tls))),
        None => Ok(Some(Arc::new(Tls::new(files.clone())?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn a_door_that_was_closed_is_known_until_the_next_change_and_is_open_to_nobody() {
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
        let first =
            Listeners::default().plan(&listeners(&encrypted), 1, &mut Inherited::default()).expect("it listens");
        let door = first.after.open[0].door;
        assert!(first.doors[&door].open && first.doors[&door].tls.is_some());
        let (_, after) = first.carry_out();
        let second = after.plan(&listeners(plain), 1, &mut Inherited::default()).expect("it listens");
        let closed = &second.doors[&door];
        assert!(!closed.open && closed.entrance.is_none() && closed.tls.is_some());
        let (left, after) = second.carry_out();
        assert_eq!(left, [door]);
        let third = after.plan(&listeners(plain), 1, &mut Inherited::default()).expect("it listens");
        assert!(!third.doors.contains_key(&door));
    }
}
