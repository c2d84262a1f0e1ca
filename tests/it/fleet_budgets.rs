//! Several gateways in front of one Refold, as a fleet on a real Redis server: together they keep to one budget.

#![expect(clippy::cast_precision_loss, reason = "counts are small")]

use postern::clock::Clock;
use postern::fleet::FleetState;
use postern::simulator::{Arrival, Simulator};
use redis::Value;

use crate::support::redis_server::RedisServer;
use crate::support::{
    Configuration, Gateway, PendingAnswer, ScriptedRefold, Upstream, World, WorldBuilder, eventually, until,
};

/// The limit of the simulated Refold, which the gateways are configured with.
const PER_SECOND: u32 = 20;
const BURST: u32 = 5;

/// Gateways that share a Refold and a Redis server.
struct Replicas<R = Simulator> {
    first: World<R>,
    others: Vec<Gateway>,
    redis: RedisServer,
}

fn limited(configuration: Configuration, redis: &RedisServer) -> Configuration {
    let table = format!("[fleet]\nurl = \"{}\"\nsecret = {{ env = \"FLEET_SECRET\" }}\nreplicas = 4\n", redis.url());
    // These tests are not about the budgets of clients.
    let configuration = configuration.client_limit(1_000_000, 1_000_000);
    configuration.upstream_limit(PER_SECOND, BURST).max_wait("30s").derive("off").toml(&table)
}

impl Replicas {
    /// Gateways in front of a simulated Refold with the limit that it publishes; `None` if the test is skipped.
    async fn start(replicas: usize) -> Option<Self> {
        let builder = World::builder().simulator(|simulator| simulator.rate = Some((PER_SECOND, BURST)));
        Self::start_with(replicas, builder).await
    }

    /// Checks what the Refold saw: in no window more than the burst and the rate, and one request more.
    fn assert_within_the_budget(&self) {
        let arrivals = self.first.refold.arrivals();
        for (index, first) in arrivals.iter().enumerate() {
            for (further, last) in arrivals[index..].iter().enumerate() {
                let window = last.at.since(first.at);
                let allowed = f64::from(BURST + 1) + f64::from(PER_SECOND) * window.as_secs_f64();
                assert!((further + 1) as f64 <= allowed, "{} requests in {window:?}", further + 1);
            }
        }
    }
}

impl<R> Replicas<R> {
    async fn start_with<U>(replicas: usize, builder: WorldBuilder<U>) -> Option<Self>
    where
        U: Upstream<Running = R>,
    {
        let redis = RedisServer::start().await?;
        let clock = Clock::system();
        let first = builder.clock(clock.clone()).config(|config| limited(config, &redis)).start().await;
        let others = (1..replicas).map(|_| Gateway::start(&first.config(), &clock)).collect();
        let replicas = Self { first, others, redis };
        replicas.until_state(FleetState::Shared).await;
        Some(replicas)
    }

    fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        std::iter::once(&self.first.gateway).chain(&self.others)
    }

    async fn until_state(&self, state: FleetState) {
        let live = 1 + self.others.len();
        for gateway in self.gateways() {
            let gateway = gateway.server().gateway();
            let fleet = gateway.fleet().expect("there is one");
            let is_complete = || state != FleetState::Shared || fleet.members().live as usize == live;
            until(|| fleet.state(self.first.clock.now()) == state && is_complete()).await;
        }
    }

    /// Has each gateway hold a lease of the accounts' own budgets, so that their requests wait for the upstream's alone. A refused
    /// query spends of a budget too.
    async fn until_leased(&self, accounts: &[&str]) {
        for gateway in self.gateways() {
            for account in accounts {
                while gateway.spawn_list(account, "page=0").answer().await.status != 400 {}
            }
        }
    }

    /// Asks each gateway for so many pages of an account, none of which is cached.
    fn ask(&self, account: &str, pages: usize) -> Vec<PendingAnswer> {
        let gateways = self.gateways().enumerate();
        gateways
            .flat_map(|(replica, gateway)| {
                let query = move |page| format!("page={page}&slug={replica}");
                (1..=pages).map(move |page| gateway.spawn_list(account, &query(page)))
            })
            .collect()
    }
}

async fn assert_served(answers: Vec<PendingAnswer>) {
    for answer in answers {
        let answer = answer.answer().await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
    }
}

fn place_of_last(arrivals: &[Arrival], account: &str) -> usize {
    arrivals.iter().rposition(|arrival| arrival.linked_account == account).expect("it arrived")
}

#[tokio::test]
async fn replicas_share_one_budget_and_serve_quiet_accounts_beside_a_noisy_one() {
    for replicas in [2, 4] {
        let Some(replicas) = Replicas::start(replicas).await else { return };
        replicas.until_leased(&["noisy", "quiet-0", "quiet-1", "quiet-2", "quiet-3"]).await;
        let noisy = replicas.ask("noisy", 60 / (1 + replicas.others.len()));
        // Refold gets the burst, and then the quiet accounts ask.
        until(|| replicas.first.refold.requests() >= 4).await;
        let quiet: Vec<_> = replicas
            .gateways()
            .enumerate()
            .map(|(replica, gateway)| gateway.spawn_list(&format!("quiet-{replica}"), ""))
            .collect();
        assert_served(quiet).await;
        let served = replicas.first.refold.arrivals();
        assert_served(noisy).await;
        replicas.assert_within_the_budget();
        assert_eq!(replicas.first.refold.rate_limited(), 0);
        let last = (0..=replicas.others.len()).map(|quiet| place_of_last(&served, &format!("quiet-{quiet}"))).max();
        assert!(last < Some(30), "the quiet accounts do not wait for the noisy one's 60 requests: {last:?}");
    }
}

#[tokio::test]
async fn a_429_at_one_replica_holds_all() {
    let refold = ScriptedRefold::start().await;
    refold.send_header("retry-after", "60");
    refold.answer_with(429);
    let Some(replicas) = Replicas::start_with(2, World::builder().refold(refold)).await else { return };
    assert_eq!(replicas.first.gateway.list("acme-1", "page=1").await.status, 429);
    let keys = replicas.redis.query(&["KEYS", "pst:b1:{postern}:up:*"]);
    let keys: Vec<String> = redis::from_redis_value(keys).expect("names");
    until(|| replicas.redis.query(&["HGET", &keys[0], "held"]) != Value::BulkString(b"0".to_vec())).await;
    replicas.first.refold.answer_with(200);
    let answer = replicas.others[0].list("acme-2", "page=1").await;
    assert_eq!((answer.status.as_u16(), &*answer.error_code()), (429, "UPSTREAM_BUDGET_EXCEEDED"));
    assert_eq!(replicas.first.refold.requests(), 1);
}

#[tokio::test]
async fn without_redis_each_replica_goes_on_with_its_share_and_comes_back() {
    let Some(mut replicas) = Replicas::start(2).await else { return };
    assert_served(replicas.ask("before", 5)).await;
    let during = replicas.ask("during", 10);
    replicas.redis.kill();
    assert_served(during).await;
    replicas.until_state(FleetState::Alone).await;
    assert_served(replicas.ask("alone", 3)).await;
    replicas.redis.restart_empty().await;
    assert_served(replicas.ask("meanwhile", 3)).await;
    replicas.until_state(FleetState::Shared).await;
    assert_served(replicas.ask("after", 10)).await;
    replicas.assert_within_the_budget();
    assert_eq!(replicas.first.refold.rate_limited(), 0);
}

#[tokio::test]
async fn a_caller_that_disconnects_leaves_no_place_in_the_queue() {
    let Some(replicas) = Replicas::start(2).await else { return };
    let waiting = replicas.ask("noisy", 20);
    until(|| replicas.first.refold.requests() >= 4).await;
    waiting.iter().for_each(PendingAnswer::abort);
    let queued = || {
        let keys: Vec<String> =
            redis::from_redis_value(replicas.redis.query(&["KEYS", "pst:b1:{postern}:q:*"])).expect("names");
        keys.len()
    };
    until(|| queued() == 0).await;
    assert_served(replicas.ask("next", 1)).await;
}

#[tokio::test]
async fn a_replica_that_has_left_takes_no_share_with_it() {
    let Some(mut replicas) = Replicas::start(3).await else { return };
    assert_served(replicas.ask("before", 1)).await;
    let leaving = replicas.others.pop().expect("there are three");
    leaving.stop().await.join().expect("no panic");
    for gateway in replicas.gateways() {
        let gateway = gateway.server().gateway();
        until(|| gateway.fleet().expect("there is one").members().known == 2).await;
    }
    let keys = replicas.redis.query(&["KEYS", "pst:b1:{postern}:up:*"]);
    let keys: Vec<String> = redis::from_redis_value(keys).expect("names");
    // The arrival time of the next request, and the time of the last call, in microseconds.
    let budget = || -> (u64, u64) {
        redis::from_redis_value(replicas.redis.query(&["HMGET", &keys[0], "tat", "at"])).expect("numbers")
    };
    let now = || -> u64 {
        let (seconds, micros): (u64, u64) =
            redis::from_redis_value(replicas.redis.query(&["TIME"])).expect("two numbers");
        seconds * 1_000_000 + micros
    };
    let (interval, mut page) = (1_010_000 / u64::from(PER_SECOND), 0);
    // Again, should the server have stood still for a moment: the burst then counts as spent.
    eventually(async || {
        until(|| budget().0 < now()).await;
        page += 1;
        assert_eq!(replicas.first.gateway.list("after", &format!("page={page}")).await.status, 200);
        let (arrival, asked) = budget();
        arrival - asked == interval
    })
    .await;
}
