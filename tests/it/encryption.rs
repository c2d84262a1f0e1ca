//! Inbound TLS: certificates that change, and clients that present one. Unix sockets.

use std::os::unix::fs::PermissionsExt;

use http::StatusCode;
use jiff::SignedDuration;
use rustls::HandshakeKind;
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::version::{TLS12, TLS13};

use crate::support::tls::{TlsClient, cipher_for, clock_of_certificates, data, folder_with, install};
use crate::support::{Configuration, Folder, Listener, Process, ScriptedRefold, World, as_account, eventually, until};

/// The header of a caller that only names its linked account.
const ACCOUNT: [(&str, &str); 1] = [("linked_account_id", "acme-1")];

/// A world whose TLS listener takes the client certificate of `client-app.pem`, and gives connections that it closes enough time
/// for one more request.
async fn world(listener: Listener) -> World {
    let builder = World::builder()
        .clock(clock_of_certificates().0)
        .config(|config| config.listeners([listener]).drain_timeout("1s"));
    builder.tenant(|tenant| tenant.client_certificate(&["acme-*"])).start().await
}

#[tokio::test]
async fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
    let folder = folder_with("server-1");
    let upstream = ScriptedRefold::start().await.address();
    let config = Configuration::new().upstream(upstream).listener(|listener| listener.tls(&folder));
    let mut process = Process::serve_configuration(&config, &[]).await;
    let address = process.address();
    // A new client each time: one that resumes its session is not shown a certificate again.
    let ask = async || TlsClient::new(address, None).ask(&as_account("acme-1")).await.expect("an answer");
    let (status, first) = ask().await;
    assert_eq!(status, StatusCode::OK);
    folder.write("server.pem", "nonsense");
    process.until_logged("\"certificate_refused\"", 1).await;
    assert_eq!(ask().await, (StatusCode::OK, first.clone()));
    install(&folder, "server-2");
    eventually(async || {
        let (status, shown) = ask().await;
        assert_eq!(status, StatusCode::OK);
        shown != first
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_certificate_is_a_metric() {
    let folder = folder_with("server-1");
    let config =
        |config: Configuration| config.admin().listener(|listener| listener.tls(&folder).client_ca(&data("ca.pem")));
    let world = World::builder().config(config).start().await;
    let metrics = world.gateway.admin("/metrics", &[]).await;
    let text = String::from_utf8_lossy(&metrics.body);
    for file in [folder.join("server.pem"), data("ca.pem")] {
        // 2126-10-31T23:44:32Z
        let labels = format!("{{file=\"{}\"}}", file.display());
        let expected = format!("postern_certificate_expiry_timestamp_seconds{labels} 4949163872\n");
        assert!(text.contains(&expected), "{expected}: {text}");
    }
}

#[tokio::test]
async fn the_server_chooses_the_cipher() {
    let folder = folder_with("server-1");
    let world = World::builder().config(|config| config.listener(|listener| listener.tls(&folder))).start().await;
    let [aes_256, aes_128, chacha] = [
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let [old_aes, old_chacha] = [
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    for (listed, chosen) in [
        (vec![chacha, aes_128, aes_256], aes_256),
        (vec![chacha, aes_128], aes_128),
        (vec![old_chacha, old_aes], old_aes),
        (vec![chacha], chacha),
    ] {
        let cipher = cipher_for(world.gateway.address, &listed).await;
        assert_eq!(cipher, chosen.suite(), "{listed:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_a_credential() {
    let folder = folder_with("server-1");
    let world = world(Listener::new().tls(&folder).client_ca(&data("ca.pem"))).await;
    let client = |certificate| TlsClient::new(world.gateway.address, certificate);
    let app = client(Some("client-app"));
    assert_eq!(app.status(&ACCOUNT).await, StatusCode::OK);
    assert_eq!(app.status(&[("linked_account_id", "globex")]).await, StatusCode::FORBIDDEN);
    // A valid certificate that no tenant names is worth as little as none: a key is needed.
    for certificate in [Some("client-other"), None] {
        assert_eq!(client(certificate).status(&ACCOUNT).await, StatusCode::UNAUTHORIZED);
        assert_eq!(client(certificate).status(&as_account("globex")).await, StatusCode::OK);
    }
    assert_eq!(app.status(&as_account("acme-1")).await, StatusCode::BAD_REQUEST, "two credentials");
}

#[tokio::test]
async fn a_replaced_authority_invalidates_certificates_on_open_connections() {
    let folder = folder_with("server-1");
    let put = |authority: &str| folder.write("clients.pem", std::fs::read(data(authority)).expect("the file is there"));
    let world = world(Listener::new().tls(&folder).client_ca(&put("ca.pem"))).await;
    let mut connection = TlsClient::new(world.gateway.address, Some("client-app")).open().await;
    assert_eq!(connection.ask(&ACCOUNT).await, (StatusCode::OK, false));
    put("server-1.pem");
    let mut status = StatusCode::OK;
    eventually(async || {
        status = connection.ask(&ACCOUNT).await.0;
        status != StatusCode::OK
    })
    .await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_required_client_certificate_is_checked_in_the_handshake() {
    let folder = folder_with("server-1");
    let world = world(Listener::new().tls(&folder).client_ca(&data("ca.pem")).client_certificate_required()).await;
    let client = |certificate| TlsClient::new(world.gateway.address, certificate);
    assert!(client(None).ask(&as_account("acme-1")).await.is_err());
    assert_eq!(client(Some("client-other")).status(&as_account("acme-1")).await, StatusCode::OK);
}

/// More clients than the 128 whose sessions fit into a store of the server's.
const CLIENTS: usize = 300;

#[tokio::test]
async fn many_clients_resume_their_sessions_in_turn() {
    let folder = folder_with("server-1");
    let world = World::builder().config(|config| config.listeners([Listener::new().tls(&folder)])).start().await;
    for version in [&TLS13, &TLS12] {
        let client = |_| TlsClient::of_version(world.gateway.address, None, version);
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            for client in &clients {
                let kind = client.handshake_kind().await.expect("an answer");
                assert_eq!(kind, expected, "{:?}", version.version);
            }
        }
    }
}

#[tokio::test]
async fn sessions_outlive_a_changed_certificate_and_a_reload() {
    let (folder, other) = (folder_with("server-1"), folder_with("server-2"));
    let world = World::builder().config(|config| config.listeners([Listener::new().tls(&folder)])).start().await;
    let served = async || {
        let fresh = TlsClient::new(world.gateway.address, None);
        fresh.ask(&as_account("acme-1")).await.expect("an answer").1
    };
    for version in [&TLS13, &TLS12] {
        let client = TlsClient::of_version(world.gateway.address, None, version);
        assert_eq!(client.handshake_kind().await.expect("an answer"), HandshakeKind::Full);
        let before = served().await;
        install(&folder, if version.version == TLS13.version { "server-2" } else { "server-1" });
        eventually(async || served().await != before).await;
        assert_eq!(client.handshake_kind().await.expect("an answer"), HandshakeKind::Resumed);
        world.gateway.reload(&world.config().listener(|listener| listener.tls(&other)));
        assert_eq!(client.handshake_kind().await.expect("an answer"), HandshakeKind::Resumed);
        world.gateway.reload(&world.config());
        assert_eq!(client.handshake_kind().await.expect("an answer"), HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn no_session_outlives_the_demands_on_client_certificates() {
    let folder = folder_with("server-1");
    let put = |authority: &str| folder.write("clients.pem", std::fs::read(data(authority)).expect("the file is there"));
    let listener = || Listener::new().tls(&folder);
    for version in [&TLS13, &TLS12] {
        let asked = world(listener().client_ca(&put("ca.pem"))).await;
        let without = TlsClient::of_version(asked.gateway.address, None, version);
        assert_eq!(without.handshake_kind().await.expect("an answer"), HandshakeKind::Full);
        assert_eq!(without.handshake_kind().await.expect("an answer"), HandshakeKind::Resumed);
        // From now on a certificate is required.
        let required = listener().client_ca(&data("ca.pem")).client_certificate_required();
        asked.gateway.reload(&asked.config().listeners([required]));
        assert!(without.handshake_kind().await.is_err());
        let with = TlsClient::of_version(asked.gateway.address, Some("client-app"), version);
        assert_eq!(with.handshake_kind().await.expect("an answer"), HandshakeKind::Full);
        assert_eq!(with.handshake_kind().await.expect("an answer"), HandshakeKind::Resumed);
        // The authority of the client's certificate is replaced by another one.
        let other = listener().client_ca(&data("server-1.pem")).client_certificate_required();
        asked.gateway.reload(&asked.config().listeners([other]));
        assert!(with.handshake_kind().await.is_err());
    }
}

#[tokio::test]
async fn a_unix_socket_has_the_configured_mode() {
    let folder = Folder::new();
    let path = folder.join("postern.sock");
    let listener = Listener::unix(&path).socket_mode("0620").trusted();
    let world = World::builder().config(|config| config.listeners([listener])).start().await;
    let mode = std::fs::metadata(&path).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    drop(world);
}

#[tokio::test]
async fn a_client_certificate_expires_on_its_open_connection() {
    let folder = folder_with("server-1");
    let (_, end) = clock_of_certificates();
    for past in [1, 2, 3600 * 24 * 365] {
        let world = world(Listener::new().tls(&folder).client_ca(&data("ca.pem"))).await;
        let app = TlsClient::new(world.gateway.address, Some("client-app"));
        let mut connections = [app.open().await, app.open_http_2().await];
        let mut other = TlsClient::new(world.gateway.address, Some("client-other")).open().await;
        for app in &mut connections {
            assert_eq!(app.ask(&ACCOUNT).await.0, StatusCode::OK);
        }
        world.clock.step_wall(end.duration_since(world.clock.wall()));
        for app in &mut connections {
            assert_eq!(app.ask(&ACCOUNT).await.0, StatusCode::OK, "the last second");
        }
        world.clock.step_wall(SignedDuration::from_secs(past));
        for app in &mut connections {
            assert_eq!(app.ask(&ACCOUNT).await.0, StatusCode::UNAUTHORIZED, "{past}");
        }
        assert_eq!(other.ask(&as_account("acme-1")).await.0, StatusCode::OK, "a key needs no certificate");
        let reason = "postern_refused_credentials_total{reason=\"expired_certificate\"} 2";
        until(|| world.gateway.metrics().contains(reason)).await;
    }
}

#[tokio::test]
async fn an_expired_certificate_is_no_credential_after_a_reload_either() {
    let folder = folder_with("server-1");
    let (_, end) = clock_of_certificates();
    let world = world(Listener::new().tls(&folder).client_ca(&data("ca.pem"))).await;
    let mut app = TlsClient::new(world.gateway.address, Some("client-app")).open().await;
    assert_eq!(app.ask(&ACCOUNT).await.0, StatusCode::OK);
    world.clock.step_wall(end.duration_since(world.clock.wall()) + SignedDuration::from_secs(1));
    world.gateway.reload(&world.config().client_limit(9, 9));
    assert_eq!(app.ask(&ACCOUNT).await.0, StatusCode::UNAUTHORIZED);
}
