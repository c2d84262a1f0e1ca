//! Several gateways in one fleet, in front of one Refold.

use std::net::SocketAddr;

use postern::clock::Clock;

use super::cable::Cable;
use super::redis_server::RedisServer;
use super::until::until;
use super::{Answer, Configuration, Gateway, ORG_KEY, ScriptedRefold, Tenant, signature};

/// Gateways in one fleet, each with a connection of its own to the Redis server that a test can cut.
pub(crate) struct Replicas {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) cables: Vec<Cable>,
    pub(crate) refold: ScriptedRefold,
    pub(crate) redis: RedisServer,
    pub(crate) clock: Clock,
    upstream: SocketAddr,
    change: fn(Configuration) -> Configuration,
}

impl Replicas {
    /// Starts so many replicas, whose pages stay fresh for ten minutes; `None` if the test is skipped.
    pub(crate) async fn start(count: usize) -> Option<Self> {
        Self::start_with(count, |config| config).await
    }

    pub(crate) async fn start_with(count: usize, change: fn(Configuration) -> Configuration) -> Option<Self> {
        let refold = ScriptedRefold::start().await;
        let address = refold.address();
        Self::start_in_front_of(count, address, refold, change).await
    }

    /// Starts so many replicas in front of an upstream.
    pub(crate) async fn start_before(count: usize, upstream: SocketAddr) -> Option<Self> {
        Self::start_in_front_of(count, upstream, ScriptedRefold::start().await, |config| config).await
    }

    async fn start_in_front_of(
        count: usize,
        upstream: SocketAddr,
        refold: ScriptedRefold,
        change: fn(Configuration) -> Configuration,
    ) -> Option<Self> {
        let redis = RedisServer::start_on_tcp(&[]).await?;
        let (gateways, cables) = (Vec::new(), Vec::new());
        let mut fleet = Self { gateways, cables, refold, redis, clock: Clock::system(), upstream, change };
        for _ in 0..count {
            fleet.add_replica().await;
        }
        fleet.until_together().await;
        Some(fleet)
    }

    /// Starts one more replica.
    pub(crate) async fn add_replica(&mut self) {
        let cable = Cable::to(self.redis.port()).await;
        let table =
            format!("[fleet]\nurl = \"{}\"\nsecret = {{ env = \"FLEET_SECRET\" }}\nreplicas = 8\n", cable.redis_url());
        let config = Configuration::new().upstream(self.upstream).tenant(Tenant::webhooks).admin();
        let config = (self.change)(config.set("cache.freshness.recent", "10m").toml(&table));
        self.gateways.push(Gateway::start(&config, &self.clock));
        self.cables.push(cable);
    }

    /// Waits until all replicas know of each other, and that what they hold is current.
    pub(crate) async fn until_together(&self) {
        let count = u32::try_from(self.gateways.len()).expect("few");
        until(|| (0..self.gateways.len()).all(|index| self.is_current(index) && self.live(index) == count)).await;
    }

    /// Returns whether a replica knows what the others have dropped.
    pub(crate) fn is_current(&self, index: usize) -> bool {
        let gateway = self.gateways[index].server().gateway();
        gateway.fleet().expect("it is in a fleet").trust().lost_at(self.clock.now()).is_none()
    }

    fn live(&self, index: usize) -> u32 {
        self.gateways[index].server().gateway().fleet().expect("it is in a fleet").members().live
    }

    /// Cuts a replica off from Redis, and waits until it has noticed.
    pub(crate) async fn cut_off(&self, index: usize) {
        self.cables[index].cut();
        until(|| !self.is_current(index)).await;
    }

    /// Connects a replica again, and waits until it knows what the others have dropped.
    pub(crate) async fn reconnect(&self, index: usize) {
        self.cables[index].mend();
        until(|| self.is_current(index)).await;
    }

    /// The version of an account's page that a replica serves.
    pub(crate) async fn version(&self, index: usize, account: &str) -> u64 {
        let answer = self.gateways[index].list(account, "").await;
        answer.first_document()["version"].as_u64().unwrap_or_else(|| panic!("{answer:?}"))
    }

    /// Delivers a webhook about an account to a replica.
    pub(crate) async fn deliver(&self, index: usize, account: &str) -> Answer {
        let body = format!("{{\"linked_account_id\":\"{account}\"}}");
        let signature = signature(ORG_KEY, &body);
        self.gateways[index].post("/hooks/refold/t", &[("x-cobalt-signature", &signature)], &body).await
    }
}
