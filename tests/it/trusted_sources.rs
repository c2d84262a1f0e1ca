//! Web pages in front of a trusted listener: pages whose own name leads to it, and pages of other origins.

use http::{Method, StatusCode};

use crate::support::connection::{Connection, raw};
use crate::support::{Answer, Configuration, EXECUTIONS, Folder, KEY, Listener, World, refusal};

const ACCOUNT: (&str, &str) = ("linked_account_id", "acme-1");

async fn world(listener: Listener) -> World {
    World::builder().listener(|_| listener).start().await
}

async fn ask(world: &World, headers: &[(&str, &str)]) -> Answer {
    world.gateway.get(EXECUTIONS, &[&[ACCOUNT], headers].concat()).await
}

fn refused(code: &str) -> (u16, String) {
    (403, code.to_owned())
}

#[tokio::test]
async fn a_trusted_listener_accepts_loopback_host_names_only() {
    let world = world(Listener::new().trusted().set("trusted.access", "read+write")).await;
    for host in ["localhost", "LocalHost:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:8080", "[::ffff:127.0.0.1]"] {
        assert_eq!(ask(&world, &[("host", host)]).await.status, StatusCode::OK, "{host}");
    }
    for host in
        ["attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", "10.0.0.1", "[::2]", "localhost."]
    {
        assert_eq!(ask(&world, &[("host", host)]).await.error(), refused("HOST_NOT_ALLOWED"), "{host}");
        let rerun = format!("{EXECUTIONS}/1/rerun");
        let answer = world.gateway.send(Method::POST, &rerun, &[ACCOUNT, ("host", host)]).await;
        assert_eq!(answer.error(), refused("HOST_NOT_ALLOWED"), "{host}");
    }
    assert_eq!(world.refold.requests(), 1, "refused requests do not reach Refold");
}

#[tokio::test]
async fn a_target_with_a_host_is_checked_too() {
    let world = world(Listener::new().trusted()).await;
    for (target, host, status) in [
        ("http://localhost", "localhost", 200),
        ("http://attacker.example", "localhost", 403),
        ("http://localhost", "attacker.example", 403),
        ("", "", 403),
    ] {
        let request = format!(
            "GET {target}{EXECUTIONS} HTTP/1.1\r\nHost: {host}\r\nlinked_account_id: acme-1\r\nConnection: close\r\n\r\n"
        );
        let answer = raw(world.gateway.address, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target} {host}: {answer}");
    }
    // HTTP/1.0 knows requests without a host.
    let request = format!("GET {EXECUTIONS} HTTP/1.0\r\nlinked_account_id: acme-1\r\n\r\n");
    let answer = raw(world.gateway.address, request.as_bytes()).await;
    assert!(answer.contains("HOST_NOT_ALLOWED"), "{answer}");
    for (authority, status) in [("localhost:80", StatusCode::OK), ("attacker.example", StatusCode::FORBIDDEN)] {
        let (mut sender, _connection) = crate::support::connection::http_2(world.gateway.address).await;
        let request = http::Request::get(format!("http://{authority}{EXECUTIONS}")).header(ACCOUNT.0, ACCOUNT.1);
        let answer = sender.send_request(request.body(http_body_util::Full::default()).expect("a request")).await;
        assert_eq!(answer.expect("an answer").status(), status, "{authority}");
    }
}

#[tokio::test]
async fn configured_hosts_are_trusted_beside_loopback_names() {
    let hosts = ["Postern.Internal", "10.1.2.3", "[fd00::1]"].map(toml::Value::from).to_vec();
    let world = world(Listener::new().trusted().set("trusted.hosts", hosts)).await;
    for host in ["postern.internal", "POSTERN.internal:8080", "10.1.2.3:80", "[fd00::1]:80", "localhost"] {
        assert_eq!(ask(&world, &[("host", host)]).await.status, StatusCode::OK, "{host}");
    }
    for host in ["postern.internal.example", "x.postern.internal", "internal", "10.1.2.30", "fd00"] {
        assert_eq!(ask(&world, &[("host", host)]).await.error(), refused("HOST_NOT_ALLOWED"), "{host}");
    }
}

#[test]
fn a_trusted_host_is_a_name_alone() {
    for host in ["http://a.example", "a.example:80", "*", "", "a/b", "[::g]"] {
        let hosts = vec![toml::Value::from(host)];
        let config = Configuration::new().listeners([Listener::new().trusted().set("trusted.hosts", hosts)]);
        let refused = refusal(&config.to_toml()).to_string();
        assert!(refused.contains("this is no host"), "{host}: {refused}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not_use_a_trusted_listener() {
    let without_cors = world(Listener::new().trusted()).await;
    for origin in ["https://attacker.example", "null", "http://localhost:3000", "https://app.example.com"] {
        assert_eq!(ask(&without_cors, &[("origin", origin)]).await.error(), refused("ORIGIN_NOT_ALLOWED"), "{origin}");
    }
    let cors = |config: Configuration, origin: &str| {
        config.set("cors.origins", vec![toml::Value::from(origin)]).listener(|_| Listener::new().trusted())
    };
    let one = World::builder().config(|config| cors(config, "https://app.example.com")).start().await;
    assert_eq!(ask(&one, &[("origin", "https://app.example.com")]).await.status, StatusCode::OK);
    for origin in
        ["https://attacker.example", "null", "https://app.example.com.attacker.example", "http://app.example.com"]
    {
        assert_eq!(ask(&one, &[("origin", origin)]).await.error(), refused("ORIGIN_NOT_ALLOWED"), "{origin}");
    }
    let twice = [("origin", "https://app.example.com"), ("origin", "https://attacker.example")];
    assert_eq!(ask(&one, &twice).await.error(), refused("ORIGIN_NOT_ALLOWED"));
    let all = World::builder().config(|config| cors(config, "*")).start().await;
    assert_eq!(ask(&all, &[("origin", "https://any.example")]).await.status, StatusCode::OK);
    assert_eq!(
        ask(&all, &[("origin", "https://any.example"), ("host", "any.example")]).await.error(),
        refused("HOST_NOT_ALLOWED")
    );
}

#[tokio::test]
async fn other_listeners_accept_any_host_that_is_one() {
    let world = World::start().await;
    let headers = |host| [("x-api-key", KEY), ACCOUNT, ("host", host), ("origin", "https://other.example")];
    for host in ["attacker.example", "gw:8080", "[2001:db8::1]"] {
        assert_eq!(world.gateway.get(EXECUTIONS, &headers(host)).await.status, StatusCode::OK, "{host}");
    }
    for host in ["gw/../x", "user@gw", "gw:80:80", "gw?x", "[::1"] {
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let answer = world.gateway.send(method, EXECUTIONS, &headers(host)).await;
            assert_eq!(answer.error(), (400, "MALFORMED_REQUEST".to_owned()), "{host}");
        }
    }
}

#[tokio::test]
async fn a_trusted_unix_socket_takes_any_host() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let _world = world(Listener::unix(&path).trusted()).await;
    for host in ["attacker.example", "postern", "localhost"] {
        let mut connection = Connection::open_unix(&path).await;
        let request = format!(
            "GET {EXECUTIONS} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://x.example\r\nlinked_account_id: a\r\n\r\n"
        );
        connection.write(request).await;
        assert!(connection.receive().await.starts_with("HTTP/1.1 200"), "{host}");
    }
}
