//! A gateway in front of a Refold, with the clock that both of them read.

use std::net::SocketAddr;

use postern::clock::Clock;
use postern::simulator::{Simulator, SimulatorSettings};

use super::config_tables::Listener;
use super::upstream::spawn_upstream;
use super::{Answer, ClientKey, Configuration, Gateway, ORG_KEY, ScriptedRefold, Tenant};

/// A gateway in front of a simulated Refold, or of another upstream.
pub(crate) struct World<R = Simulator> {
    pub(crate) gateway: Gateway,
    pub(crate) refold: R,
    pub(crate) clock: Clock,
    config: Configuration,
    refold_address: SocketAddr,
}

/// A clock that stands at 2026-03-20T12:00:00Z until it is moved.
pub(crate) fn manual_clock() -> Clock {
    Clock::manual("2026-03-20T12:00:00Z".parse().expect("a time"))
}

impl World {
    /// A usual gateway in front of a simulated Refold.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    pub(crate) fn builder() -> WorldBuilder {
        let refold =
            SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], rate: None, ..SimulatorSettings::default() };
        WorldBuilder { refold, config: Configuration::new(), clock: manual_clock() }
    }
}

impl<R> World<R> {
    /// The configuration that the gateway has started with.
    pub(crate) fn config(&self) -> Configuration {
        self.config.clone()
    }

    /// The address that the Refold listens at.
    pub(crate) fn refold_address(&self) -> SocketAddr {
        self.refold_address
    }

    /// A page of executions, as a caller of a linked account.
    pub(crate) async fn list(&self, linked_account: &str, query: &str) -> Answer {
        self.gateway.list(linked_account, query).await
    }
}

/// A world to be started.
pub(crate) struct WorldBuilder<U = SimulatorSettings> {
    refold: U,
    config: Configuration,
    clock: Clock,
}

impl WorldBuilder {
    /// Changes the settings of the simulated Refold.
    pub(crate) fn simulator(mut self, change: impl FnOnce(&mut SimulatorSettings)) -> Self {
        change(&mut self.refold);
        self
    }
}

impl<U: Upstream> WorldBuilder<U> {
    /// Puts another upstream into the place of the simulated Refold.
    pub(crate) fn refold<V: Upstream>(self, refold: V) -> WorldBuilder<V> {
        WorldBuilder { refold, config: self.config, clock: self.clock }
    }

    pub(crate) fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Changes the configuration.
    pub(crate) fn config(self, change: impl FnOnce(Configuration) -> Configuration) -> Self {
        Self { config: change(self.config), ..self }
    }

    /// Changes the tenant.
    pub(crate) fn tenant(self, change: impl FnOnce(Tenant) -> Tenant) -> Self {
        self.config(|config| config.tenant(change))
    }

    /// Changes the listener.
    pub(crate) fn listener(self, change: impl FnOnce(Listener) -> Listener) -> Self {
        self.config(|config| config.listener(change))
    }

    /// Replaces the tenant's client keys.
    pub(crate) fn client_keys(self, keys: impl IntoIterator<Item = ClientKey>) -> Self {
        self.config(|config| config.client_keys(keys))
    }

    pub(crate) async fn start(self) -> World<U::Running> {
        let (refold_address, refold) = self.refold.run(&self.clock).await;
        let config = self.config.upstream(refold_address);
        World { gateway: Gateway::start(&config, &self.clock), refold, clock: self.clock, config, refold_address }
    }
}

/// An upstream that a world can be started with.
pub(crate) trait Upstream {
    /// The handle by which a test controls it.
    type Running;

    async fn run(self, clock: &Clock) -> (SocketAddr, Self::Running);
}

impl Upstream for SimulatorSettings {
    type Running = Simulator;

    async fn run(self, clock: &Clock) -> (SocketAddr, Simulator) {
        let refold = Simulator::new(self, clock.clone());
        let serving = refold.clone();
        let address = spawn_upstream(|listener| async move {
            let _ = serving.serve(listener).await;
        })
        .await;
        (address, refold)
    }
}

impl Upstream for ScriptedRefold {
    type Running = Self;

    async fn run(self, _: &Clock) -> (SocketAddr, Self) {
        (self.address(), self)
    }
}

impl Upstream for SocketAddr {
    type Running = Self;

    async fn run(self, _: &Clock) -> (SocketAddr, Self) {
        (self, self)
    }
}
