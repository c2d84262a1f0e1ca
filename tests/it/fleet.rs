//! Replicas join one fleet on a real Redis server, and leave it.

use std::path::Path;
use std::sync::Arc;

use postern::clock::Clock;
use postern::config::{Config, Environment};
use postern::fleet::{Fleet, FleetState, Script, Unavailable};
use redis::Value;

use crate::support::redis_server::RedisServer;
use crate::support::{Configuration, ENVIRONMENT, REDIS_PASSWORD, World, until};

static DOUBLE: Script = Script::new("double", "#!lua\nreturn ARGV[1] * 2");

/// The table `[fleet]` for a server.
fn table(url: &str, lines: &str) -> String {
    format!("[fleet]\nurl = \"{url}\"\nsecret = {{ env = \"FLEET_SECRET\" }}\nreplicas = 4\n{lines}\n")
}

fn parse(configuration: &Configuration) -> Config {
    let mut environment = Environment::default();
    for (name, value) in ENVIRONMENT {
        environment.insert(name, value);
    }
    Config::parse(&configuration.to_toml(), Path::new("postern.toml"), &environment).expect("it is valid")
}

/// A replica without a gateway.
fn replica(url: &str, clock: &Clock) -> Fleet {
    replica_with(url, "", clock)
}

fn replica_with(url: &str, lines: &str, clock: &Clock) -> Fleet {
    let config = parse(&Configuration::new().toml(&table(url, lines)));
    Fleet::start(config.fleet.as_ref().expect("there is a table"), clock.clone()).expect("it starts")
}

#[tokio::test]
async fn replicas_know_of_each_other_until_one_leaves() {
    let Some(redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replicas = [(); 3].map(|()| replica(&redis.url(), &clock));
    for replica in &replicas {
        until(|| replica.members().live == 3 && replica.state(clock.now()) == FleetState::Shared).await;
    }
    let mut ranks: Vec<_> = replicas.iter().map(|replica| replica.members().rank).collect();
    ranks.sort();
    assert_eq!(ranks, [Some(0), Some(1), Some(2)]);
    let [first, second, third] = replicas;
    third.leave();
    for replica in [&first, &second] {
        until(|| replica.members().known == 2).await;
    }
}

#[tokio::test]
async fn a_script_runs_for_any_thread_and_after_the_server_forgot_it() {
    let Some(redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replica = Arc::new(replica(&redis.url(), &clock));
    until(|| replica.is_connected()).await;
    assert_eq!(replica.commands().run(&DOUBLE, "key", 21).await, Ok(Value::Int(42)));
    redis.query(&["SCRIPT", "FLUSH"]);
    assert_eq!(replica.commands().run(&DOUBLE, "key", 4).await, Ok(Value::Int(8)));
}

#[tokio::test]
async fn without_the_table_nothing_of_a_fleet_runs() {
    let world = World::start().await;
    world.list("acme-1", "").await;
    assert!(world.gateway.server().gateway().fleet().is_none());
}

#[tokio::test]
async fn a_replica_is_alone_while_the_server_is_paused_or_gone() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replica = replica(&redis.url(), &clock);
    let until_state = async |state| until(|| replica.state(clock.now()) == state).await;
    until_state(FleetState::Shared).await;
    let server = replica.server();
    redis.signal("STOP");
    until_state(FleetState::Alone).await;
    assert_eq!(replica.time_slots().map(|slots| (slots.count, slots.own)), Some((4, 0)));
    redis.signal("CONT");
    until_state(FleetState::Shared).await;
    assert_eq!(replica.server(), server, "it is the same server");
    redis.kill();
    until_state(FleetState::Alone).await;
    assert_eq!(replica.commands().run(&DOUBLE, "key", 1).await, Err(Unavailable::Disconnected));
    redis.restart_empty().await;
    until_state(FleetState::Shared).await;
    assert_ne!(replica.server(), server, "it is another server");
}

#[tokio::test]
async fn a_user_of_the_access_control_list_logs_in_over_tcp() {
    let password = format!(">{REDIS_PASSWORD}");
    let user = ["--user", "postern", "on", &password, "~*", "+@all"];
    let Some(redis) = RedisServer::start_on_tcp(&user).await else { return };
    let clock = Clock::system();
    let lines = "username = \"postern\"\npassword = { env = \"REDIS_PASSWORD\" }";
    let replica = replica_with(&redis.url(), lines, &clock);
    until(|| replica.state(clock.now()) == FleetState::Shared).await;
    let wrong = replica_with(&redis.url(), "username = \"postern\"\npassword = { env = \"FLEET_SECRET\" }", &clock);
    until(|| wrong.state(clock.now()) == FleetState::Alone).await;
    assert_eq!((wrong.is_connected(), replica.members().known), (false, 1));
}
