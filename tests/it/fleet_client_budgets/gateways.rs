//! Gateways on a real server share the budgets of their clients.

use std::time::{Duration, Instant};

use http::StatusCode;
use postern::clock::Clock;
use postern::fleet::FleetState;

use crate::support::redis_server::RedisServer;
use crate::support::{Answer, ClientKey, Configuration, Gateway, KEY, World, until};

/// Two gateways of one fleet, in front of one Refold.
struct Pair {
    world: World,
    other: Gateway,
}

fn state_of(gateway: &Gateway, clock: &Clock) -> FleetState {
    gateway.server().gateway().fleet().expect("there is a fleet").state(clock.now())
}

impl Pair {
    async fn start(redis: &RedisServer, change: impl FnOnce(Configuration) -> Configuration) -> Self {
        let table =
            format!("[fleet]\nurl = \"{}\"\nsecret = {{ env = \"FLEET_SECRET\" }}\nreplicas = 4\n", redis.url());
        let config = |config| change(config).toml(&table);
        let world = World::builder().clock(Clock::system()).config(config).start().await;
        let other = Gateway::start(&world.config(), &world.clock);
        let pair = Self { world, other };
        pair.until_both(FleetState::Shared).await;
        pair
    }

    fn both(&self) -> [&Gateway; 2] {
        [&self.world.gateway, &self.other]
    }

    async fn until_both(&self, state: FleetState) {
        for gateway in self.both() {
            until(|| state_of(gateway, &self.world.clock) == state).await;
        }
    }

    /// Sends so many requests at once to each gateway. Returns the number of those that were granted, and the longest time in
    /// which they can have been.
    async fn ask(&self, account: &str, requests: usize) -> (u32, Duration) {
        let began = Instant::now();
        let pending: Vec<_> =
            (0..requests).flat_map(|_| self.both().map(|gateway| gateway.spawn_list(account, ""))).collect();
        let mut granted = 0;
        for answer in pending {
            granted += u32::from(is_granted(&answer.answer().await));
        }
        (granted, began.elapsed())
    }
}

/// Returns whether a request was granted; otherwise its budget is exhausted.
fn is_granted(answer: &Answer) -> bool {
    if answer.status == StatusCode::OK {
        return true;
    }
    assert_eq!(answer.error(), (429, "RATE_LIMIT_EXCEEDED".to_owned()));
    assert_ne!(answer.header("retry-after"), "");
    false
}

fn bound(per_second: u32, burst: u32, window: Duration) -> f64 {
    f64::from(per_second).mul_add(window.as_secs_f64(), f64::from(burst))
}

#[tokio::test]
async fn two_gateways_share_the_budget_of_a_linked_account() {
    let Some(redis) = RedisServer::start().await else { return };
    let pair = Pair::start(&redis, |config| config.client_limit(50, 100)).await;
    let (granted, window) = pair.ask("acme-1", 150).await;
    assert!(f64::from(granted) <= bound(50, 100, window), "{granted} in {window:?}");
    assert!(granted >= 61, "{granted}: the server has at least that much");
    let other = pair.world.list("acme-2", "").await;
    assert_eq!(other.status, StatusCode::OK, "another account has its own");
    assert!(other.header("ratelimit").starts_with("\"account\";r="));
    let names = redis.query(&["KEYS", "*"]);
    assert!(!format!("{names:?}").contains("acme"), "{names:?}");
}

#[tokio::test]
async fn an_exhausted_budget_is_exhausted_on_all_replicas() {
    let Some(redis) = RedisServer::start().await else { return };
    // Little of it comes back in the time of this test.
    let pair = Pair::start(&redis, |config| config.client_limit(1, 300)).await;
    let (granted, window) = pair.ask("acme-1", 300).await;
    assert!(f64::from(granted) <= bound(1, 300, window), "{granted} in {window:?}");
    assert!(granted >= 191, "{granted}: all but the leases and credits of four replicas");
}

#[tokio::test]
async fn two_gateways_share_the_budget_of_a_client_key() {
    let Some(redis) = RedisServer::start().await else { return };
    let keys = [ClientKey::new("k", KEY).limit(1, 40)];
    let pair = Pair::start(&redis, |config| config.client_keys(keys)).await;
    let (first, window) = pair.ask("acme-1", 30).await;
    let (second, more) = pair.ask("acme-2", 30).await;
    let window = window + more;
    assert!(f64::from(first + second) <= bound(1, 40, window), "{first} and {second} in {window:?}");
    assert!(first + second >= 27, "{first} and {second}");
}

#[tokio::test]
async fn a_budget_too_small_to_divide_is_asked_for_one_by_one() {
    let Some(redis) = RedisServer::start().await else { return };
    let pair = Pair::start(&redis, |config| config.client_limit(1, 3)).await;
    let (granted, window) = pair.ask("acme-1", 10).await;
    assert!(f64::from(granted) <= bound(1, 3, window), "{granted} in {window:?}");
    assert!(granted >= 1);
    for gateway in pair.both() {
        assert_eq!(gateway.requests_of("acme-1"), 10, "a request that asks the server counts once");
    }
    let refused = pair.world.list("acme-1", "").await;
    if !is_granted(&refused) {
        assert_eq!(refused.header("retry-after"), "1");
        assert!(refused.message().starts_with("the callers of this linked account have used up its budget;"));
    }
}

#[tokio::test]
async fn without_the_server_each_replica_has_its_share() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let pair = Pair::start(&redis, |config| config.client_limit(1, 60)).await;
    // Each takes a lease of 3.
    assert_eq!(pair.ask("acme-1", 1).await.0, 2);
    redis.kill();
    pair.until_both(FleetState::Alone).await;
    let (granted, _) = pair.ask("acme-1", 1).await;
    assert_eq!(granted, 2, "what is left of the leases");
    let began = Instant::now();
    let (granted, _) = pair.ask("acme-1", 60).await;
    let share = began.elapsed().as_secs_f64().mul_add(0.5, 6.0);
    // Each lets two through on loan besides.
    assert!(f64::from(granted) <= share + 2.0 + 4.0, "{granted}");
    redis.restart_empty().await;
    pair.until_both(FleetState::Shared).await;
    // The bucket was lost, so it is full once more.
    let (granted, window) = pair.ask("acme-1", 30).await;
    assert!(f64::from(granted) <= bound(1, 60, window), "{granted} in {window:?}");
    // All but what the two leases hold at the end, and what was on loan.
    assert!(granted >= 37 - 4, "{granted}");
}

#[tokio::test]
async fn a_server_that_stands_still_makes_no_request_fail() {
    let Some(redis) = RedisServer::start().await else { return };
    // So small a budget has no leases: the server is asked about each request.
    let pair = Pair::start(&redis, |config| config.client_limit(1, 3)).await;
    redis.signal("STOP");
    let granted = pair.ask("acme-1", 1).await.0;
    redis.signal("CONT");
    assert_eq!(granted, 2);
}
