//! Several replicas as one fleet: what they share on a Redis or Valkey server.
//!
//! Without `[fleet]` there is no [`Fleet`], and nothing of this runs. With it, one thread has the connection to the server: it
//! beats, so that the replicas know of each other (`membership`), and runs the workers' scripts ([`Commands`]). Readers
//! on other threads see the state in one atomic load.
//!
//! The promise: in no window do the replicas together send more than the budget allows, whatever happens to the server or the
//! network; and no request fails because of Redis. While the server is away, a replica goes on with its share alone
//! ([`FleetState::Alone`]).

mod cache_state;
mod cipher;
pub mod client_budgets;
mod commands;
mod connect;
mod dial;
mod drop_script;
mod drops;
mod event_sink;
mod landings;
mod link;
mod log;
mod log_reader;
mod membership;
mod metrics;
mod names;
mod phase;
mod probe;
mod reckoning;
mod script;
mod shared_entries;
mod status;
mod supervisor;
mod time_slots;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::watch;

use self::cache_state::CacheState;
pub use self::cache_state::{EntryDropper, LocalTrust};
use self::cipher::Cipher;
use self::client_budgets::{ClientBudgets, Sharing};
pub use self::commands::{Commands, Unavailable};
pub use self::connect::ConnectError;
use self::connect::Connector;
pub use self::drops::DropReach;
pub use self::event_sink::EventSink;
pub use self::landings::{LandedOutcome, Landing};
pub use self::log::DroppedEntries;
use self::membership::Membership;
pub use self::membership::{FleetState, LEASE, Members, TRUST};
pub use self::metrics::FleetMetrics;
pub use self::names::Names;
pub use self::probe::{ProbeError, ServerReport, probe};
pub use self::script::{FORGET, GIVE_BACK, HOLD, REFILL, Script, TURN};
pub use self::shared_entries::{EntryPlace, ForeignFetch, FoundEntry, Generations, LandedFetch, Lead, Taken, Waiters};
use self::status::Status;
use self::supervisor::Supervisor;
pub use self::time_slots::{OwnSlots, TimeSlots, own_slots};
use crate::clock::{Clock, Moment};
use crate::config::FleetConfig;
use crate::digest::Hex;
use crate::http_client::ClientSetupError;

/// A fleet can't be joined.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] ClientSetupError),
    /// The fleet's thread can't be started.
    #[error("can't start the fleet's thread: {0}")]
    Thread(#[source] io::Error),
}

/// This process as a replica of a fleet. Cheap to clone; clones are the same replica. The thread ends with the last clone, or
/// with [`Fleet::leave`].
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<FleetConfig>,
    names: Arc<Names>,
    commands: Commands,
    client_budgets: ClientBudgets,
    status: Arc<Status>,
    cache: Arc<CacheState>,
    cipher: Arc<Cipher>,
    /// The place in the time slots of a replica that has no rank, since it started while the server is away.
    random_rank: u32,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Fleet {
    /// Joins the fleet of a configuration, under a new random id. Returns at once; the server is connected in the background.
    ///
    /// # Errors
    /// If TLS can't be set up, or the thread not be started.
    pub fn start(
        config: &Arc<FleetConfig>,
        clock: Clock,
        metrics: FleetMetrics,
        events: EventSink,
    ) -> Result<Self, FleetError> {
        let mut random = [0; 16];
        rand::fill(&mut random).map_err(|_| FleetError::Thread(io::Error::other("there is no randomness")))?;
        let id: Arc<str> = Hex(&random).to_string().into();
        let now = clock.now();
        let standing = Membership::new(now).standing();
        let cache = Arc::new(CacheState::new(metrics.forgotten.clone()));
        let status = Arc::new(Status::new(clock.clone(), standing, metrics, events));
        let (commands, receiver) = commands::channel(&status, config.command_timeout);
        let names = Arc::new(Names::new(config));
        let cipher = Arc::new(Cipher::new(config));
        let random_rank = u32::from_be_bytes([random[0], random[1], random[2], random[3]]) % config.replicas;
        let sharing = Sharing { replicas: config.replicas, random_rank, delivery: config.command_timeout };
        let (client_budgets, refiller) = ClientBudgets::new(sharing, &names, &status, &commands);
        let stop = watch::Sender::new(false);
        let supervisor = Supervisor {
            connector: Connector::new(config, clock)?,
            names: Arc::clone(&names),
            status: Arc::clone(&status),
            cache: Arc::clone(&cache),
            id,
            replicas: config.replicas,
            command_timeout: config.command_timeout,
            commands: receiver,
            stop: stop.subscribe(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FleetError::Thread)?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = supervisor.run() => {}
                    () = refiller.run() => {}
                }
            });
            // A look-up of a name may still hang.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("postern-fleet".to_owned()).spawn(run);
        let thread = Mutex::new(Some(thread.map_err(FleetError::Thread)?));
        Ok(Self(Arc::new(Inner {
            config: Arc::clone(config),
            names,
            commands,
            client_budgets,
            status,
            cache,
            cipher,
            random_rank,
            stop,
            thread,
        })))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &FleetConfig {
        &self.0.config
    }

    /// The names of keys.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.0.names
    }

    /// Runs scripts on the server.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.0.commands
    }

    /// The client budgets.
    #[must_use]
    pub fn client_budgets(&self) -> &ClientBudgets {
        &self.0.client_budgets
    }

    /// Tells whether what this process holds is current.
    #[must_use]
    pub fn trust(&self) -> &LocalTrust {
        self.0.cache.trust()
    }

    /// Sets what drops the entries of this process, as other replicas and the log demand it.
    pub fn set_dropper(&self, dropper: Arc<dyn EntryDropper>) {
        self.0.cache.set_dropper(dropper);
    }

    /// The state at `now`.
    #[must_use]
    pub fn state(&self, now: Moment) -> FleetState {
        self.0.status.state(now)
    }

    /// Returns whether there is a connection to the server.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.status.is_connected()
    }

    /// The members at the last beat that the server answered.
    #[must_use]
    pub fn members(&self) -> Members {
        self.0.status.members()
    }

    /// Time since the last answered beat was sent; `None` if there was none.
    #[must_use]
    pub fn lag(&self, now: Moment) -> Option<Duration> {
        self.0.status.standing().lag(now)
    }

    /// The fleet's clock at `now`, in microseconds since 1970: the server's, reckoned on while it is away.
    #[must_use]
    pub fn clock_micros(&self, now: Moment) -> u64 {
        self.0.status.fleet_micros(now)
    }

    /// The latest time that the fleet's clock can show at `now`, in microseconds since 1970, unless it was set.
    #[must_use]
    pub fn latest_clock_micros(&self, now: Moment) -> u64 {
        self.0.status.latest_fleet_micros(now)
    }

    /// A number for the server of the last connection; after a failover or an empty restart there is another one, and what the
    /// server holds from before can't be relied upon. 0 before the first connection.
    #[must_use]
    pub fn server(&self) -> u64 {
        self.0.status.server()
    }

    /// The time slots of this replica while it is alone; `None` if it has none, since more replicas run than the configuration
    /// says.
    #[must_use]
    pub fn time_slots(&self) -> Option<TimeSlots> {
        TimeSlots::of(self.members(), self.0.config.replicas, self.0.random_rank)
    }

    /// The reason why there is no connection; `None` if there is one, or none was tried.
    #[must_use]
    pub fn problem(&self) -> Option<Arc<str>> {
        self.0.status.problem()
    }

    /// Leaves the fleet, so that the other replicas have this one's share at once. Call it when no more requests are sent.
    pub fn leave(&self) {
        self.0.leave();
    }
}

impl Inner {
    fn leave(&self) {
        self.stop.send_replace(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Fails only if the thread has panicked, and then its lease ends by itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leave();
    }
}
