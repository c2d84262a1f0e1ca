//! Replicas join one fleet on a real Redis server, and leave it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use postern::clock::Clock;
use postern::config::{Config, Environment};
use postern::fleet::{EventSink, Fleet, FleetMetrics, FleetState, Script, Unavailable, probe};
use redis::Value;
use serde_json::json;

use crate::support::redis_server::{RedisServer, Sentinel};
use crate::support::tls::data;
use crate::support::{Configuration, ENVIRONMENT, Process, REDIS_PASSWORD, World, eventually, until};

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
    let metrics = FleetMetrics::unregistered();
    let table = config.fleet.as_ref().expect("there is a table");
    Fleet::start(table, clock.clone(), metrics, EventSink::none()).expect("it starts")
}

#[tokio::test]
async fn replicas_know_of_each_other_until_one_leaves() {
    let Some(redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replicas = [(); 3].map(|()| replica(&redis.url(), &clock));
    for replica in &replicas {
        until(|| replica.members().live == 3 && replica.state(clock.now()) == FleetState::Shared).await;
        until(|| replica.members().rank.is_some()).await;
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

/// A gateway in a fleet of four, with an admin listener.
async fn gateway_of(redis: &RedisServer, lines: &str) -> World {
    let table = table(&redis.url(), lines);
    World::builder().config(|config| config.admin().toml(&table)).clock(Clock::system()).start().await
}

/// The state that `/status` shows.
async fn state_of(world: &World) -> String {
    let status = world.gateway.admin("/status", &[]).await.json();
    status["fleet"]["state"].as_str().expect("a fleet").to_owned()
}

/// The events that `/status` shows, newest first: name and details.
async fn events_of(world: &World) -> Vec<(String, String)> {
    let status = world.gateway.admin("/status", &[]).await.json();
    let events = status["events"].as_array().expect("a list").iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    events.map(|event| (text(&event["event"]), text(&event["details"]))).collect()
}

/// The names of the threads of a process.
fn threads(process: &Process) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect()
}

#[tokio::test]
async fn the_fleet_has_one_thread_and_without_the_table_none() {
    let without = Process::serve_configuration(&Configuration::new(), &[]).await;
    assert!(!threads(&without).iter().any(|name| name.contains("fleet")), "{:?}", threads(&without));
    let url = "unix:/nonexistent/redis.sock";
    let with = Process::serve_configuration(&Configuration::new().toml(&table(url, "")), &[]).await;
    assert_eq!(threads(&with).iter().filter(|name| name.trim() == "postern-fleet").count(), 1);
}

#[tokio::test]
async fn without_the_table_nothing_of_a_fleet_runs() {
    let world = World::builder().config(Configuration::admin).start().await;
    world.list("acme-1", "").await;
    assert!(world.gateway.server().gateway().fleet().is_none());
    assert!(!world.gateway.metrics().contains("postern_fleet_"));
    for target in ["/status", "/readyz"] {
        let body = world.gateway.admin(target, &[]).await.json();
        assert!(body.get("fleet").is_none(), "{body}");
    }
}

#[tokio::test]
async fn the_admin_listener_shows_the_fleet_and_readiness_ignores_redis() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let (one, other) = tokio::join!(gateway_of(&redis, ""), gateway_of(&redis, ""));
    eventually(async || one.gateway.admin("/status", &[]).await.json()["fleet"]["live"] == 2).await;
    let fleet = one.gateway.admin("/readyz", &[]).await.json()["fleet"].clone();
    assert_eq!(
        (&fleet["name"], &fleet["state"], &fleet["connected"]),
        (&json!("postern"), &json!("shared"), &json!(true))
    );
    let metrics = one.gateway.metrics();
    for line in [
        "postern_fleet_state{state=\"shared\"} 1",
        "postern_fleet_state{state=\"alone\"} 0",
        "postern_fleet_members{lease=\"lasts\"} 2",
        "postern_fleet_replicas 4",
        "postern_fleet_connections_total 1",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line} in {metrics}");
    }
    redis.kill();
    for world in [&one, &other] {
        eventually(async || state_of(world).await == "alone").await;
        let ready = world.gateway.admin("/readyz", &[]).await;
        assert_eq!(ready.status, StatusCode::OK);
        assert!(ready.json()["fleet"]["problem"].as_str().is_some_and(|problem| problem.contains("can't be reached")));
        assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    }
    eventually(async || events_of(&one).await.len() == 2).await;
    let events = events_of(&one).await;
    assert!(
        events.iter().any(|(name, why)| name == "fleet_unreachable" && why.contains("can't be reached")),
        "{events:?}"
    );
    assert!(events.iter().any(|(name, why)| name == "fleet_state_changed" && why.ends_with("to alone")), "{events:?}");
    redis.restart_empty().await;
    eventually(async || state_of(&one).await == "shared" && state_of(&other).await == "shared").await;
    eventually(async || events_of(&one).await.iter().any(|(_, why)| why.starts_with("from alone to "))).await;
}

#[tokio::test]
async fn a_gateway_that_drains_leaves_the_fleet() {
    let Some(redis) = RedisServer::start().await else { return };
    let (one, other) = tokio::join!(gateway_of(&redis, ""), gateway_of(&redis, ""));
    eventually(async || one.gateway.admin("/status", &[]).await.json()["fleet"]["members"] == 2).await;
    let World { gateway, .. } = other;
    gateway.stop().await.join().expect("no panic");
    eventually(async || one.gateway.admin("/status", &[]).await.json()["fleet"]["members"] == 1).await;
}

/// The words of the documented line of the access control list, with a password of the tests.
fn documented_user() -> Vec<String> {
    let line = include_str!("../../docs/fleet.md").lines().find(|line| line.starts_with("user postern on "));
    let words = line.expect("the documentation has the line").split(' ').skip(1);
    words.map(|word| word.replace("PASSWORD", REDIS_PASSWORD)).collect()
}

const AS_USER: &str = "username = \"postern\"\npassword = { env = \"REDIS_PASSWORD\" }";

async fn server_with_user(words: &[String]) -> Option<RedisServer> {
    let arguments: Vec<&str> = ["--user"].into_iter().chain(words.iter().map(String::as_str)).collect();
    RedisServer::start_with(&arguments).await
}

#[tokio::test]
async fn a_fleet_needs_no_more_than_the_documented_permissions() {
    let Some(redis) = server_with_user(&documented_user()).await else { return };
    let clock = Clock::system();
    {
        let replicas = [(); 2].map(|()| replica_with(&redis.url(), AS_USER, &clock));
        for replica in &replicas {
            until(|| replica.members().live == 2 && replica.state(clock.now()) == FleetState::Shared).await;
        }
        let config = parse(&Configuration::new().toml(&table(&redis.url(), AS_USER)));
        let report = probe(config.fleet.as_ref().expect("there is a table")).await.expect("it can be used");
        assert!(report.version.starts_with(char::is_numeric), "{report:?}");
    }
    assert_eq!(redis.query(&["ACL", "LOG"]), Value::Array(Vec::new()), "nothing was denied, leaving included");
}

#[test]
fn every_command_of_a_script_is_in_the_documented_permissions() {
    let permitted = documented_user();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fleet/scripts");
    for script in std::fs::read_dir(folder).expect("the folder is there") {
        let path = script.expect("it is readable").path();
        let source = std::fs::read_to_string(&path).expect("it is readable");
        for call in source.split("redis.call('").skip(1) {
            let command = call.split('\'').next().unwrap_or_default().to_lowercase();
            assert!(permitted.contains(&format!("+{command}")), "{}: docs/fleet.md lacks +{command}", path.display());
        }
    }
}

#[tokio::test]
async fn a_denied_command_is_a_script_error_and_counts_as_redis_away() {
    let without: Vec<String> = documented_user().into_iter().filter(|word| word != "+zadd").collect();
    let Some(redis) = server_with_user(&without).await else { return };
    let world = gateway_of(&redis, AS_USER).await;
    eventually(async || state_of(&world).await == "alone").await;
    let status = world.gateway.admin("/status", &[]).await.json();
    let problem = status["fleet"]["problem"].as_str().expect("a reason").to_owned();
    assert!(problem.starts_with("the script beat fails: ") && problem.contains("can't run this command"), "{problem}");
    assert!(world.gateway.metrics().contains("postern_fleet_script_errors_total 1\n"));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_flushed_server_has_the_members_back_at_their_next_beats() {
    let Some(redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replicas = [(); 2].map(|()| replica(&redis.url(), &clock));
    until(|| replicas.iter().all(|replica| replica.members().live == 2)).await;
    redis.query(&["FLUSHALL"]);
    redis.query(&["SCRIPT", "FLUSH"]);
    until(|| redis.query(&["ZCARD", "pst:b1:{postern}:m"]) == Value::Int(2)).await;
    until(|| replicas.iter().all(|replica| replica.state(clock.now()) == FleetState::Shared)).await;
}

#[tokio::test]
async fn the_fleets_clock_is_that_of_the_server_also_while_it_is_away() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replicas = [(); 2].map(|()| replica(&redis.url(), &clock));
    until(|| replicas.iter().all(|replica| replica.members().live == 2 && replica.members().rank.is_some())).await;
    redis.kill();
    until(|| replicas.iter().all(|replica| replica.state(clock.now()) == FleetState::Alone)).await;
    let now = clock.now();
    let [one, other] = [0, 1].map(|at: usize| replicas[at].clock_micros(now));
    // Each knows it to half of a round trip, which is at most the limit of a command.
    assert!(one.abs_diff(other) <= 50_000, "{one} {other}");
    let slots: Vec<_> = replicas.iter().map(|replica| replica.time_slots().expect("it has one").own).collect();
    assert_ne!(slots[0], slots[1], "no two replicas have the same time slot");
}

#[tokio::test]
async fn a_replica_is_alone_while_the_server_is_paused_or_gone() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replica = replica(&redis.url(), &clock);
    let until_state = async |state| until(|| replica.state(clock.now()) == state).await;
    until_state(FleetState::Shared).await;
    until(|| replica.members().rank.is_some()).await;
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

/// A number that the server tells of itself: the digits after `name` in a section of `INFO`.
fn count(redis: &RedisServer, section: &str, name: &str) -> u64 {
    let info: String = redis::from_redis_value(redis.query(&["INFO", section])).expect("a text");
    let number = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let digits = number.split(|next: char| !next.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[tokio::test]
async fn a_server_that_takes_no_writes_counts_as_away() {
    let Some(redis) = RedisServer::start().await else { return };
    let table = table(&redis.url(), "");
    // The test is not about the budgets of clients.
    let config = |config: Configuration| config.admin().client_limit(1_000_000, 1_000_000).toml(&table);
    let world = World::builder().config(config).clock(Clock::system()).start().await;
    eventually(async || state_of(&world).await == "shared").await;
    redis.query(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    eventually(async || state_of(&world).await == "alone").await;
    let refused = || count(&redis, "errorstats", "errorstat_NOREPLICAS:count=");
    let before = refused();
    eventually(async || {
        assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
        assert_eq!(state_of(&world).await, "alone", "also while it asks the server again");
        refused() >= before + 8
    })
    .await;
    let fleet = world.gateway.admin("/readyz", &[]).await.json()["fleet"].clone();
    assert!(fleet["problem"].as_str().is_some_and(|problem| problem.contains("NOREPLICAS")), "{fleet}");
    assert_eq!(world.list("acme-2", "").await.status, StatusCode::OK, "a page that is not cached");
    redis.query(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    eventually(async || state_of(&world).await == "shared").await;
}

#[tokio::test]
async fn a_server_that_runs_no_script_in_time_counts_as_away() {
    let Some(redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replica = replica(&redis.url(), &clock);
    until(|| replica.state(clock.now()) == FleetState::Shared).await;
    // It goes on answering commands that read.
    redis.query(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    until(|| replica.state(clock.now()) == FleetState::Alone).await;
    let loaded = || count(&redis, "commandstats", "cmdstat_script|load:calls=");
    let before = loaded();
    until(|| {
        assert_eq!(replica.state(clock.now()), FleetState::Alone, "also while it connects again");
        loaded() >= before + 100
    })
    .await;
    assert!(replica.problem().is_some_and(|problem| problem.contains("command_timeout")), "{:?}", replica.problem());
    redis.query(&["CLIENT", "UNPAUSE"]);
    until(|| replica.state(clock.now()) == FleetState::Shared).await;
}

/// The members on the server, and the ends of their leases.
fn leases(redis: &RedisServer) -> BTreeMap<String, f64> {
    let members = redis.query(&["ZRANGE", "pst:b1:{postern}:m", "0", "-1", "WITHSCORES"]);
    redis::from_redis_value(members).expect("members with scores")
}

#[tokio::test]
async fn members_that_the_server_has_lost_count_for_a_minute() {
    let Some(redis) = RedisServer::start().await else { return };
    let clock = Clock::system();
    let replicas = [(); 2].map(|()| replica(&redis.url(), &clock));
    until(|| replicas.iter().all(|replica| replica.members().live == 2)).await;
    // The lease of a third one has just ended: it may be alone.
    let ended = replicas[0].clock_micros(clock.now()).to_string();
    redis.query(&["ZADD", "pst:b1:{postern}:m", &ended, "cut-off"]);
    until(|| replicas.iter().all(|replica| replica.members().known == 3)).await;
    redis.query(&["DEL", "pst:b1:{postern}:m"]);
    // When each has beaten once more, the beat before is answered.
    for _ in 0..2 {
        let before = leases(&redis);
        until(|| {
            let now = leases(&redis);
            now.len() == 2 && now.iter().all(|(member, end)| before.get(member).is_none_or(|before| end > before))
        })
        .await;
    }
    assert_eq!(replicas.each_ref().map(|replica| replica.members().known), [3, 3]);
}

#[tokio::test]
async fn a_user_of_the_access_control_list_logs_in_over_tcp() {
    let password = format!(">{REDIS_PASSWORD}");
    let user = ["--user", "postern", "on", &password, "~*", "+@all"];
    let Some(redis) = RedisServer::start_on_tcp(&user).await else { return };
    let clock = Clock::system();
    let replica = replica_with(&redis.url(), AS_USER, &clock);
    until(|| replica.state(clock.now()) == FleetState::Shared).await;
    let wrong = replica_with(&redis.url(), "username = \"postern\"\npassword = { env = \"FLEET_SECRET\" }", &clock);
    until(|| wrong.state(clock.now()) == FleetState::Alone).await;
    assert_eq!((wrong.is_connected(), replica.members().known), (false, 1));
}

#[tokio::test]
async fn a_fleet_follows_sentinel_to_the_server_that_was_promoted() {
    let Some(primary) = RedisServer::start_on_tcp(&[]).await else { return };
    let port = primary.port().to_string();
    let copy = RedisServer::start_on_tcp(&["--replicaof", "127.0.0.1", &port]).await.expect("the first one runs");
    copy.until_replicated().await;
    let Some(sentinel) = Sentinel::watch(&primary).await else { return };
    let clock = Clock::system();
    let replica = replica(&sentinel.url(), &clock);
    until(|| replica.state(clock.now()) == FleetState::Shared).await;
    let before = replica.server();
    primary.signal("STOP");
    until(|| replica.state(clock.now()) == FleetState::Alone).await;
    until(|| replica.state(clock.now()) == FleetState::Shared && replica.server() != before).await;
    let promoted = replica.server();
    primary.signal("CONT");
    // Sentinel makes a copy of the old primary, which takes no writes any more.
    until(|| primary.is_copy()).await;
    assert_eq!((replica.state(clock.now()), replica.server()), (FleetState::Shared, promoted));
}

#[tokio::test]
async fn a_server_behind_tls_is_verified() {
    let [certificate, key] = ["server-1.pem", "server-1.key"].map(|name| data(name).display().to_string());
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    let Some(redis) = RedisServer::start_on_tls(&files).await else { return };
    let clock = Clock::system();
    let authorities = format!("ca_file = \"{}\"", data("ca.pem").display());
    let trusting = replica_with(&redis.url(), &authorities, &clock);
    until(|| trusting.state(clock.now()) == FleetState::Shared).await;
    // The public authorities did not sign the server's certificate.
    let other = replica(&redis.url(), &clock);
    until(|| other.problem().is_some_and(|problem| problem.contains("UnknownIssuer"))).await;
    assert!(!other.is_connected());
}
