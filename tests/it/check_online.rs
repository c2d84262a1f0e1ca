//! `postern check --online`: what the servers that a configuration names say about it.

use std::net::SocketAddr;

use jsonwebtoken::Algorithm;
use postern::clock::Clock;
use postern::simulator::{Simulator, SimulatorSettings};
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::support::redis_server::RedisServer;
use crate::support::tls::{data, folder_with};
use crate::support::tokens::{KeyServer, public};
use crate::support::{
    ClientKey, Configuration, Folder, Issuer, Listener, ORG_KEY, Process, ScriptedRefold, Tenant, postern, run_to_end,
    spawn_upstream,
};

/// The exit status, standard output and standard error of `postern check`.
struct Checked(Option<i32>, String, String);

/// Runs `postern check` while the test's servers answer.
async fn check(config: &Configuration, arguments: &[&str]) -> Checked {
    let folder = Folder::new();
    let mut command = postern();
    command.arg("check").args(arguments).arg(folder.write("postern.toml", config.to_toml()));
    let output = spawn_blocking(move || run_to_end(&mut command)).await.expect("no panic");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Checked(output.status.code(), text(output.stdout), text(output.stderr))
}

/// The errors that the servers cause.
async fn errors(config: &Configuration) -> String {
    let Checked(status, out, errors) = check(config, &["--online"]).await;
    assert_eq!(status, Some(1), "{out}{errors}");
    errors
}

async fn refold() -> SocketAddr {
    let settings = SimulatorSettings { org_keys: vec![ORG_KEY.to_owned()], ..SimulatorSettings::default() };
    let refold = Simulator::new(settings, Clock::system());
    spawn_upstream(|listener| async move { refold.serve(listener).await.expect("it serves") }).await
}

#[tokio::test]
async fn the_servers_confirm_a_good_configuration() {
    let (keys, collector) = (KeyServer::start(&[public(Algorithm::RS256, "1")]).await, ScriptedRefold::start().await);
    let config = Configuration::new()
        .upstream(refold().await)
        .issuer(keys.issuer())
        .set("traces.endpoint", format!("http://{}", collector.address()));
    let Checked(status, out, errors) = check(&config, &["--online"]).await;
    assert_eq!(status, Some(0), "{errors}");
    for part in [
        ") accepts `org_key` of tenant `t`\n",
        "/jwks.json) has 1 usable keys\n",
        "/v1/traces) takes spans\n",
        ": valid; listeners 1, tenants 1, client keys 1\n",
    ] {
        assert!(out.contains(part), "{out}");
    }
    assert_eq!(collector.received()[0].headers["content-type"], "application/x-protobuf");
    let Checked(status, out, _) = check(&config, &["--online", "--format", "json"]).await;
    assert_eq!((status, out.as_str()), (Some(0), "{\n  \"findings\": []\n}\n"));
    assert_eq!(check(&config, &["--online", "--without-secrets"]).await.0, Some(2));
}

#[tokio::test]
async fn an_org_key_that_refold_refuses_is_an_error_at_its_place() {
    let tenants = [
        Tenant::new("good").client_key(ClientKey::new("a", "pst_a")),
        Tenant::new("wrong").org_key("OTHER_ORG_KEY").client_key(ClientKey::new("b", "pst_b")),
    ];
    let config = Configuration::bare().upstream(refold().await).tenants(tenants);
    let Checked(status, out, _) = check(&config, &["--online", "--format", "json"]).await;
    assert_eq!(status, Some(1));
    let findings: Value = serde_json::from_str(&out).expect("JSON");
    let [finding] = findings["findings"].as_array().expect("a list").as_slice() else { panic!("{out}") };
    let message = finding["message"].as_str().expect("a text");
    assert!(message.contains("refuses `org_key` of tenant `wrong` with 401: check that"), "{message}");
    let text = config.to_toml();
    let line = text.lines().position(|line| line.contains("OTHER_ORG_KEY")).expect("there is one");
    assert!((line as u64).abs_diff(finding["line"].as_u64().expect("a number")) <= 1, "{finding}: {text}");
}

#[tokio::test]
async fn an_unclear_answer_of_refold_is_a_warning() {
    let refold = ScriptedRefold::start().await;
    let config = Configuration::new().upstream(refold.address());
    for status in [429, 500, 503] {
        refold.answer_with(status);
        let Checked(code, out, errors) = check(&config, &["--online"]).await;
        assert!(code == Some(0) && out.contains("warning: "), "{out}{errors}");
        assert!(out.contains(&format!("answered {status}, which says nothing about `org_key`")), "{out}");
    }
    refold.answer_with(404);
    let found = errors(&config).await;
    assert!(found.contains("does not answer as Refold does (404") && found.contains("base_url = "), "{found}");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_with_the_step_that_failed() {
    let tenants = ["a", "b"].map(|id| Tenant::new(id).client_key(ClientKey::new("k", &format!("pst_{id}"))));
    let config = Configuration::bare().tenants(tenants.clone());
    let closed = config.clone().set("upstream.base_url", "http://127.0.0.1:1");
    let found = errors(&closed).await;
    assert!(found.contains("http://127.0.0.1:1: the server can't be reached: TCP connect: "), "{found}");
    assert!(found.contains("check host and port") && found.matches("127.0.0.1:1: ").count() == 1, "{found}");
    let unknown = config.clone().set("upstream.base_url", "http://no-such-host.invalid");
    assert!(errors(&unknown).await.contains("name look-up: "), "{}", errors(&unknown).await);
    let proxied = config.set("upstream.base_url", "https://refold.example").set("upstream.proxy", "http://127.0.0.1:1");
    assert!(errors(&proxied).await.contains("https://refold.example through the proxy http://127.0.0.1:1: "));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_an_error() {
    let folder = folder_with("server-1");
    let server =
        Process::serve_configuration(&Configuration::new().listeners([Listener::new().tls(&folder)]), &[]).await;
    let url = format!("https://localhost:{}", server.address().port());
    let config = Configuration::new().set("upstream.base_url", url);
    let found = errors(&config).await;
    assert!(found.contains("TLS handshake: ") && found.contains("UnknownIssuer"), "{found}");
    assert!(found.contains("has to be named by `ca_file`"), "{found}");
    let trusted = config.set("upstream.ca_file", data("ca.pem").to_str().expect("UTF-8"));
    assert!(errors(&trusted).await.contains("does not answer as Refold does (404"), "it is a Postern");
    let plain = Configuration::new().set("upstream.base_url", format!("https://{}", refold().await));
    assert!(errors(&plain).await.contains("TLS handshake: "));
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_an_error_of_their_issuer() {
    let keys = KeyServer::start(&[]).await;
    let config = Configuration::new().upstream(refold().await).issuer(keys.issuer());
    let found = errors(&config).await;
    assert!(found.contains("/jwks.json: there is no signature key of a supported kind in it: check"), "{found}");
    let junk = ScriptedRefold::start().await;
    let config = config.issuer(Issuer::with_server(junk.address()));
    let found = errors(&config).await;
    assert!(found.contains("/jwks.json: it is no JWKS document"), "{found}");
    junk.answer_with(404);
    assert!(errors(&config).await.contains("/jwks.json: it answered with status 404: check"));
}

#[tokio::test]
async fn a_collector_that_takes_no_spans_is_an_error() {
    let collector = ScriptedRefold::start().await;
    let endpoint = format!("http://{}", collector.address());
    let config = Configuration::new().upstream(refold().await).set("traces.endpoint", endpoint);
    for (status, advice) in [(401, "check `headers` in [traces]"), (404, "OTLP over HTTP (port 4318, not 4317)")] {
        collector.answer_with(status);
        let found = errors(&config).await;
        assert!(found.contains(&format!("answered {status} to an export")) && found.contains(advice), "{found}");
    }
    collector.answer_with(503);
    assert_eq!(check(&config, &["--online"]).await.0, Some(0));
}

#[tokio::test]
async fn the_fleets_server_is_asked_for_its_version_and_permissions() {
    let Some(redis) = RedisServer::start_with(&["--user", "postern", "on", "nopass", "~*", "-@all", "+info"]).await
    else {
        return;
    };
    let fleet = format!("[fleet]\nurl = \"{}\"\nreplicas = 2\nsecret = {{ env = \"FLEET_SECRET\" }}\n", redis.url());
    let config = Configuration::new().upstream(refold().await).toml(&fleet);
    let Checked(status, out, errors) = check(&config, &["--online"]).await;
    assert_eq!(status, Some(0), "{errors}");
    assert!(out.contains(".sock) has version ") && out.contains(" and takes the scripts\n"), "{out}");
    let user = config.set("fleet.username", "postern").toml("[fleet]\npassword = { env = \"REDIS_PASSWORD\" }");
    let refused = self::errors(&user).await;
    assert!(refused.contains("SCRIPT LOAD: ") && refused.contains("no permissions"), "{refused}");
}
