//! Listeners that a reload adds, removes or changes, and configurations that it refuses.

use std::net::TcpStream;
use std::time::Duration;

use http::StatusCode;
use postern::config::ListenAddress;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::connection::{Connection, with_key};
use crate::support::tls::{TlsClient, TlsConnection, data, folder_with};
use crate::support::{Configuration, Folder, KEY, Listener, World, as_account, eventually, refusal, until};

/// A world that gives an idle connection enough time for one more request before it closes it.
async fn lingering(config: Configuration) -> World {
    World::builder().config(|_| config.drain_timeout("1s")).start().await
}

/// Waits until a response announces the end of its connection: a worker learns of a reload a moment later.
async fn until_closing<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<S>, lines: &str) {
    eventually(async || {
        let head = connection.ask(lines).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        head.contains("\r\nconnection: close\r\n")
    })
    .await;
}

/// The header line of a caller at a trusted listener.
const TRUSTED: &str = "linked_account_id: acme-1\r\n";

#[tokio::test]
async fn a_refused_configuration_changes_nothing_and_names_the_reason() {
    let world = World::start().await;
    world.list("acme-2", "").await;
    world.gateway.server().refuse_reload(&refusal("[server]\nworkerz = 1\n"));
    let why = world.gateway.reloads().last_refusal.expect("the reload was refused");
    assert!(why.starts_with("test.toml:2:1: unknown key `workerz`; did you mean `workers`?"), "{why}");
    // A good configuration with the address of another process.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = socket.local_addr().expect("the socket is bound").to_string();
    let config =
        world.config().first_listener(Listener::at(&taken)).client_limit(100_000, 1).upstream_limit(100_000, 1);
    let refused = world.gateway.try_reload(&config).expect_err("the port is taken");
    assert!(refused.to_string().starts_with(&format!("can't listen on {taken}: ")), "{refused}");
    let reloads = world.gateway.reloads();
    assert_eq!((reloads.succeeded, reloads.refused, reloads.last_succeeded()), (0, 2, false));
    for _ in 0..3 {
        assert!(world.list("acme-2", "").await.is_hit());
    }
    world.clock.advance(Duration::from_secs(1));
    world.gateway.reload(&world.config());
    let reloads = world.gateway.reloads();
    assert_eq!((reloads.succeeded, reloads.refused, reloads.last_refusal), (1, 2, None));
    assert_eq!(reloads.last_success, world.clock.wall());
}

#[tokio::test]
async fn an_added_listener_is_served_and_a_removed_one_closes() {
    let world = lingering(Configuration::new()).await;
    let folder = Folder::new();
    let path = folder.join("postern.sock");
    let added = Listener::unix(&path).trusted();
    let mut old = Connection::open(world.gateway.address).await;
    old.ask(&with_key(KEY, "acme-1")).await;
    world.gateway.reload(&world.config().first_listener(added.clone()));
    let addresses = world.gateway.server().addresses();
    assert_eq!(addresses, [ListenAddress::Unix(path.clone()), ListenAddress::Tcp(world.gateway.address)]);
    let ask = async || Connection::open_unix(&path).await.ask(TRUSTED).await;
    assert!(ask().await.starts_with("HTTP/1.1 200"));
    // Without the TCP listener: its open connection gets one more response.
    world.gateway.reload(&world.config().listeners([added]));
    until_closing(&mut old, &with_key(KEY, "acme-1")).await;
    assert!(old.ends().await);
    let address = world.gateway.address;
    until(|| TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_err()).await;
    assert!(ask().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_of_a_replaced_socket_are_served_and_closed() {
    let folder = Folder::new();
    let path = folder.join("postern.sock");
    let world = lingering(Configuration::new()).await;
    let trusted = || Listener::unix(&path).trusted();
    world.gateway.reload(&world.config().first_listener(trusted()));
    let mut kept = Connection::open_unix(&path).await;
    assert!(kept.ask(TRUSTED).await.starts_with("HTTP/1.1 200"));
    // Another mode makes another socket.
    world.gateway.reload(&world.config().first_listener(trusted().socket_mode("0600")));
    until_closing(&mut kept, TRUSTED).await;
    // Where the listener is gone, an open connection is trusted no longer.
    let mut kept = Connection::open_unix(&path).await;
    assert!(kept.ask(TRUSTED).await.starts_with("HTTP/1.1 200"));
    world.gateway.reload(&world.config());
    assert!(kept.ask(TRUSTED).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_listener_that_becomes_encrypted_closes_its_plain_connections() {
    let (folder, other) = (folder_with("server-1"), folder_with("server-2"));
    let world = lingering(Configuration::new()).await;
    let mut plain = Connection::open(world.gateway.address).await;
    assert!(!plain.ask(&with_key(KEY, "acme-1")).await.contains("connection: close"));
    world.gateway.reload(&world.config().listener(|listener| listener.tls(&folder)));
    // A new client each time: one that resumes its session is not shown a certificate again.
    let ask = async || TlsClient::new(world.gateway.address, None).ask(&as_account("acme-1")).await.expect("an answer");
    let (status, first) = ask().await;
    assert_eq!(status, StatusCode::OK);
    until_closing(&mut plain, &with_key(KEY, "acme-1")).await;
    assert!(plain.ends().await);
    // Other files are another certificate, at once.
    world.gateway.reload(&world.config().listener(|listener| listener.tls(&other)));
    assert_ne!(ask().await.1, first);
}

#[tokio::test]
async fn a_listener_that_asks_for_certificates_closes_connections_without() {
    let folder = folder_with("server-1");
    let (ca, other_ca) = (data("ca.pem"), data("server-1.pem"));
    let plain = || Listener::new().tls(&folder);
    for (before, after) in [
        (plain(), plain().client_ca(&ca)),
        (plain().client_ca(&ca), plain().client_ca(&ca).client_certificate_required()),
        (plain().client_ca(&ca), plain().client_ca(&other_ca)),
    ] {
        let world = lingering(Configuration::new().listeners([before])).await;
        let mut connection: TlsConnection = TlsClient::new(world.gateway.address, None).open().await;
        assert_eq!(connection.ask(&as_account("acme-1")).await, (StatusCode::OK, false));
        world.gateway.reload(&world.config().listeners([after]));
        eventually(async || connection.ask(&as_account("acme-1")).await.1).await;
    }
}
