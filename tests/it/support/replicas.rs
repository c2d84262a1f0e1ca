//! Several gateways in one fleet, in front of one Refold.

use std::net::SocketAddr;
use std::time::Duration;

use postern::clock::{Clock, Moment};
use postern::fleet::Fleet;

use super::cable::Cable;
use super::redis_server::RedisServer;
use super::until::until;
use super::{Answer, Configuration, Gateway, ORG_KEY, ScriptedRefold, Tenant, signature};

/// Time that a request may take; replicas count Redis as connected for 200 to 300 ms after a beat.
const SURELY: Duration = Duration::from_millis(100);

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
        let change = |config: Configuration| config.stale("30s", "1h");
        Self::start_in_front_of(count, upstream, ScriptedRefold::start().await, change).await
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
        self.gateways.push(Gateway::start(&self.configuration(&cable.redis_url()), &self.clock));
        self.cables.push(cable);
    }

    /// The configuration of a replica that reaches Redis by a URL.
    pub(crate) fn configuration(&self, redis_url: &str) -> Configuration {
        let table = format!("[fleet]\nurl = \"{redis_url}\"\nsecret = {{ env = \"FLEET_SECRET\" }}\nreplicas = 8\n");
        // As much time for a command as possible, for a machine that is busy.
        let table = format!("{table}command_timeout = \"150ms\"\n");
        let config = Configuration::new().upstream(self.upstream).tenant(Tenant::webhooks).admin();
        (self.change)(config.set("cache.freshness.recent", "10m").toml(&table))
    }

    /// Stops a replica, and starts one with a changed configuration in its place.
    pub(crate) async fn replace(&mut self, index: usize, change: impl Fn(Configuration) -> Configuration) {
        let before = self.gateways.remove(index);
        tokio::task::spawn_blocking(move || drop(before)).await.expect("it ends");
        let config = change(self.configuration(&self.cables[index].redis_url()));
        self.gateways.insert(index, Gateway::start(&config, &self.clock));
    }

    /// Waits until all replicas know of each other, and that what they hold is current.
    pub(crate) async fn until_together(&self) {
        let count = u32::try_from(self.gateways.len()).expect("few");
        until(|| (0..self.gateways.len()).all(|index| self.is_current(index) && self.live(index) == count)).await;
    }

    /// Returns whether a replica knows what the others have dropped.
    pub(crate) fn is_current(&self, index: usize) -> bool {
        self.fleet(index).trust().lost_at(self.clock.now()).is_none()
    }

    /// The moment until which a replica surely counts Redis as connected, if it does so now.
    pub(crate) fn connected_until(&self, index: usize) -> Option<Moment> {
        let until = self.clock.now() + SURELY;
        self.fleet(index).trust().is_connected(until).then_some(until)
    }

    /// Returns whether a replica counts Redis as connected.
    pub(crate) fn is_connected(&self, index: usize) -> bool {
        self.fleet(index).trust().is_connected(self.clock.now())
    }

    fn live(&self, index: usize) -> u32 {
        self.fleet(index).members().live
    }

    fn fleet(&self, index: usize) -> Fleet {
        self.gateways[index].server().gateway().fleet().expect("it is in a fleet").clone()
    }

    /// The value of a metric of a replica.
    pub(crate) fn metric(&self, index: usize, name: &str) -> f64 {
        let metrics = self.gateways[index].metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// Returns whether a replica has counted anything under a metric's name.
    pub(crate) fn has_counted(&self, index: usize, name: &str) -> bool {
        self.gateways[index].metrics().lines().any(|line| line.starts_with(name))
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
