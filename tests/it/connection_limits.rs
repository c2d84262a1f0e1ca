//! Peers without a credential: the connections and the memory that they can take.

use std::net::SocketAddr;

use http::StatusCode;

use crate::support::connection::{Connection, get, with_key};
use crate::support::frames::{opening, webhook_frame};
use crate::support::tls::folder_with;
use crate::support::{
    Client, Configuration, EXECUTIONS, Folder, Gateway, KEY, Process, ScriptedRefold, World, as_account, eventually,
    limited_command, until, within,
};

const HALF_A_HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\nx-api-";

fn known() -> String {
    with_key(KEY, "acme-2")
}

/// A world with room for so many connections.
async fn world_with_room_for(connections: u32) -> World {
    World::builder().config(|config| config.set("server.max_connections", connections)).start().await
}

/// The value of a metric, with its labels as the text has them.
fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let text = gateway.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

fn closed(gateway: &Gateway, reason: &str) -> Option<u64> {
    metric(gateway, &format!("postern_connections_closed_total{{reason=\"{reason}\"}}"))
}

/// Opens a connection that sends some bytes; returns when the gateway counts it.
async fn stranger(gateway: &Gateway, bytes: &str) -> Connection {
    let before = metric(gateway, "postern_connections").expect("a gauge");
    let mut connection = Connection::open(gateway.address).await;
    connection.write(bytes).await;
    until(|| metric(gateway, "postern_connections") == Some(before + 1)).await;
    connection
}

#[tokio::test]
async fn the_longest_silent_stranger_goes_when_the_gateway_is_full() {
    let refused = get("/not-found", "");
    for (bytes, answered) in [("", false), (&refused, true), (&*get(EXECUTIONS, "x-api-key: made-up\r\n"), true)] {
        let world = world_with_room_for(3).await;
        let mut strangers = Vec::new();
        for _ in 0..3 {
            let mut connection = stranger(&world.gateway, bytes).await;
            if answered {
                connection.receive().await;
            }
            strangers.push(connection);
        }
        let mut caller = Connection::open(world.gateway.address).await;
        assert!(caller.ask(&known()).await.starts_with("HTTP/1.1 200 "), "{bytes}");
        assert!(strangers.remove(0).ends().await, "{bytes}");
        // The others are still there.
        for mut other in strangers {
            other.write(&refused).await;
            assert!(other.receive().await.starts_with("HTTP/1.1 404 "), "{bytes}");
        }
        until(|| closed(&world.gateway, "limit_unidentified") == Some(1)).await;
        assert_eq!(metric(&world.gateway, "postern_connections_limit"), Some(3));
    }
}

#[tokio::test]
async fn strangers_in_the_middle_of_a_head_make_room_for_callers() {
    let world = world_with_room_for(3).await;
    let mut strangers = Vec::new();
    for bytes in [HALF_A_HEAD, "G", "PRI * HTTP/2.0\r\n\r\n"] {
        strangers.push(stranger(&world.gateway, bytes).await);
    }
    let mut callers = Vec::new();
    for _ in 0..3 {
        let mut caller = Connection::open(world.gateway.address).await;
        assert!(caller.ask(&known()).await.starts_with("HTTP/1.1 200 "));
        callers.push(caller);
    }
    until(|| closed(&world.gateway, "limit_unidentified") == Some(3)).await;
}

#[tokio::test]
async fn idle_callers_go_after_strangers_and_the_longest_idle_first() {
    let world = world_with_room_for(3).await;
    let mut first = Connection::open(world.gateway.address).await;
    first.ask(&known()).await;
    let mut second = Connection::open(world.gateway.address).await;
    second.ask(&known()).await;
    let silent = stranger(&world.gateway, "").await;
    let mut third = Connection::open(world.gateway.address).await;
    assert!(third.ask(&known()).await.starts_with("HTTP/1.1 200 "));
    assert!(silent.ends().await);
    let mut fourth = Connection::open(world.gateway.address).await;
    assert!(fourth.ask(&known()).await.starts_with("HTTP/1.1 200 "));
    assert!(first.ends().await);
    assert!(second.ask(&known()).await.starts_with("HTTP/1.1 200 "));
    assert!(third.ask(&known()).await.starts_with("HTTP/1.1 200 "));
    until(|| ["limit_unidentified", "limit_idle"].map(|reason| closed(&world.gateway, reason)) == [Some(1); 2]).await;
}

#[tokio::test]
async fn a_busy_caller_stays_while_silent_callers_go() {
    let world = world_with_room_for(3).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut caller = Connection::open(world.gateway.address).await;
        caller.ask(&known()).await;
        silent.push(caller);
    }
    let mut busy = Connection::open(world.gateway.address).await;
    for round in 0..20 {
        assert!(busy.ask(&known()).await.starts_with("HTTP/1.1 200 "), "after {round} connections of others");
        let mut caller = Connection::open(world.gateway.address).await;
        assert!(caller.ask(&known()).await.starts_with("HTTP/1.1 200 "));
        silent.push(caller);
    }
    until(|| closed(&world.gateway, "limit_idle") == Some(21)).await;
}

#[tokio::test]
async fn a_known_callers_request_in_flight_is_never_closed() {
    let refold = ScriptedRefold::gated().await;
    let config = |config: Configuration| config.set("server.max_connections", 2);
    let world = World::builder().refold(refold).config(config).start().await;
    let mut waiting = Vec::new();
    for account in ["a", "b"] {
        let mut connection = Connection::open(world.gateway.address).await;
        connection.send(&with_key(KEY, account)).await;
        waiting.push(connection);
    }
    world.refold.until_received(2).await;
    let mut next = Connection::open(world.gateway.address).await;
    next.send(&with_key(KEY, "c")).await;
    world.refold.release();
    for connection in &mut waiting {
        assert!(connection.receive().await.starts_with("HTTP/1.1 200 "));
    }
    // One of the two is idle now and makes room.
    assert!(next.receive().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(closed(&world.gateway, "limit_unidentified"), Some(0));
}

#[tokio::test]
async fn a_session_token_makes_a_caller_known_once_refold_accepts_it() {
    let refold = ScriptedRefold::start().await;
    let config = |config: Configuration| config.set("server.max_connections", 2);
    let world = World::builder().refold(refold).config(config).start().await;
    let mut accepted = Connection::open(world.gateway.address).await;
    assert!(accepted.ask("Authorization: Bearer good\r\n").await.starts_with("HTTP/1.1 200 "));
    world.refold.answer_with(401);
    let mut refused = Connection::open(world.gateway.address).await;
    assert!(refused.ask("Authorization: Bearer bad\r\n").await.starts_with("HTTP/1.1 401 "));
    world.refold.answer_with(200);
    let mut caller = Connection::open(world.gateway.address).await;
    assert!(caller.ask(&known()).await.starts_with("HTTP/1.1 200 "));
    assert!(refused.ends().await);
    assert!(accepted.ask("Authorization: Bearer good\r\n").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn connections_in_the_tls_handshake_are_counted_and_bounded() {
    let folder = folder_with("server-1");
    let builder = World::builder().listener(|listener| listener.tls(&folder));
    let world = builder.config(|config| config.set("server.max_connections", 2)).start().await;
    // Nothing, the first bytes of a handshake record, and a record that claims to be longer than it is.
    let mut strangers = Vec::new();
    for bytes in ["", "\x16\x03\x01"] {
        strangers.push(stranger(&world.gateway, bytes).await);
    }
    let third = Connection::open(world.gateway.address).await;
    until(|| closed(&world.gateway, "limit_unidentified") == Some(1)).await;
    until(|| metric(&world.gateway, "postern_connections") == Some(2)).await;
    drop((strangers, third));
}

#[tokio::test]
async fn a_connection_that_sends_no_byte_is_closed_soon() {
    let timeouts = |config: Configuration| {
        config.set("server.header_timeout", "500ms").set("server.idle_timeout", "1h").set("server.workers", 1)
    };
    let world = World::builder().config(timeouts).start().await;
    assert!(Connection::open(world.gateway.address).await.ends().await);
    until(|| closed(&world.gateway, "first_byte_timeout") == Some(1)).await;
    // After a request it may be idle for longer.
    let mut idle = Connection::open(world.gateway.address).await;
    idle.ask(&known()).await;
    assert!(Connection::open(world.gateway.address).await.ends().await);
    assert!(idle.ask(&known()).await.starts_with("HTTP/1.1 200 "));
    let mut slow = Connection::open(world.gateway.address).await;
    slow.write(HALF_A_HEAD).await;
    assert!(slow.rest().await.starts_with("HTTP/1.1 408 "));
    until(|| closed(&world.gateway, "header_timeout") == Some(1)).await;
}

#[tokio::test]
async fn heads_of_strangers_are_bounded_in_memory_and_small_ones_stay() {
    let config = |config: Configuration| config.set("server.max_unidentified_memory", "1MiB");
    for line in ["x-large: ", "cookie: a=", "authorization: Bearer "] {
        let world = World::builder().config(config).start().await;
        let mut small = stranger(&world.gateway, HALF_A_HEAD).await;
        let large = format!("{HALF_A_HEAD}key: made-up\r\n{line}{}", "x".repeat(40 << 10));
        let mut strangers = Vec::new();
        for _ in 0..40 {
            let mut connection = Connection::open(world.gateway.address).await;
            connection.write(&large).await;
            strangers.push(connection);
        }
        until(|| closed(&world.gateway, "unidentified_memory") >= Some(10)).await;
        let mut caller = Connection::open(world.gateway.address).await;
        assert!(caller.ask(&known()).await.starts_with("HTTP/1.1 200 "), "{line}");
        small.write("key: made-up\r\n\r\n").await;
        assert!(small.receive().await.starts_with("HTTP/1.1 404 "), "{line}");
    }
}

#[tokio::test]
async fn the_fields_of_a_strangers_requests_are_counted_as_memory() {
    let config = |config: Configuration| config.set("server.max_unidentified_memory", "2MiB");
    let world = World::builder().config(config).start().await;
    let frames: Vec<u8> = (0..200).flat_map(|request| webhook_frame(2 * request + 1, 240)).collect();
    let mut holder = Connection::open(world.gateway.address).await;
    holder.try_write([opening(), frames].concat()).await;
    // The memory is compared with its bound when a stranger's bytes arrive.
    eventually(async || {
        Connection::open(world.gateway.address).await.try_write(HALF_A_HEAD).await;
        closed(&world.gateway, "unidentified_memory") == Some(1)
    })
    .await;
}

/// Opens connections that stay open whatever becomes of them.
async fn hold(address: SocketAddr, connections: usize, bytes: &str) -> Vec<Connection> {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = Connection::open(address).await;
        connection.try_write(bytes).await;
        held.push(connection);
    }
    held
}

#[tokio::test]
async fn callers_admin_and_upstream_work_while_strangers_take_all_descriptors() {
    let refold = ScriptedRefold::start().await;
    let folder = Folder::new();
    let config = Configuration::new().upstream(refold.address()).admin();
    let file = folder.write("postern.toml", config.to_toml());
    for (round, bytes) in ["", HALF_A_HEAD, &get("/not-found", "")].into_iter().enumerate() {
        let mut process = Process::run(limited_command(&file, "-n 256")).await;
        let admin = Client::new(process.admin_address().await);
        let held = hold(process.address(), 400, bytes).await;
        let caller = Client::new(process.address());
        for request in 0..5 {
            // Each is a miss, so it takes a connection to Refold.
            let account = format!("account-{round}-{request}");
            let answer = within(caller.get(EXECUTIONS, &as_account(&account))).await;
            assert_eq!(answer.status, StatusCode::OK, "{bytes}");
            assert_eq!(within(admin.get("/healthz", &[])).await.status, StatusCode::OK, "{bytes}");
        }
        assert_eq!(process.logged("connections_limited").len(), 1);
        assert!(process.logged("accept_failed").is_empty());
        drop(held);
    }
}

#[tokio::test]
async fn the_soft_limit_on_open_files_is_raised_to_the_hard_one() {
    let refold = ScriptedRefold::start().await;
    let folder = Folder::new();
    let file = folder.write("postern.toml", Configuration::new().upstream(refold.address()).to_toml());
    for (limits, expected) in
        [("-Sn 100; ulimit -Hn 1500", "1500"), ("-Sn 699; ulimit -Hn 700", "700"), ("-n 300", "300")]
    {
        let process = Process::run(limited_command(&file, limits)).await;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).expect("Linux");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        let columns: Vec<_> = line.split_whitespace().collect();
        assert_eq!(columns[3..5], [expected, expected]);
    }
}

#[tokio::test]
async fn silent_connections_do_not_keep_probes_from_the_admin_listener() {
    for bytes in ["", HALF_A_HEAD, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let world = World::builder().config(Configuration::admin).start().await;
        let _held = hold(world.gateway.admin_address(), 200, bytes).await;
        for probe in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(within(world.gateway.admin(probe, &[])).await.status, StatusCode::OK, "{bytes} {probe}");
        }
        let closed = metric(&world.gateway, "postern_admin_connections_closed_total{reason=\"peer_limit\"}");
        assert!(closed > Some(100), "{bytes} {closed:?}");
    }
}
