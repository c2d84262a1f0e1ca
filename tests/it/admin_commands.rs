//! The commands that ask a running gateway: `health`, `keys`, `purge`.

use std::process::Output;

use serde_json::Value;

use crate::support::connection::{get, once_as, raw};
use crate::support::tls::{data, folder_with};
use crate::support::{
    ADMIN_TOKEN, ClientKey, Configuration, EXECUTIONS, Folder, KEY, Listener, Process, ScriptedRefold, Tenant, postern,
    run_to_end,
};

fn run(arguments: &[&str]) -> Output {
    run_to_end(postern().args(arguments))
}

/// Runs a command that succeeds, and returns its output.
fn shown(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that fails, and returns its error.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn health_takes_names_and_unix_sockets() {
    let folder = Folder::new();
    let (path, admin) = (folder.join("postern.sock"), format!("unix:{}", folder.join("admin.sock").display()));
    let listeners = [Listener::new(), Listener::unix(&path)];
    let config = Configuration::new().listeners(listeners).set("admin.address", admin.clone());
    let process = Process::serve_configuration(&config, &[]).await;
    let name = format!("localhost:{}", process.address().port());
    let unix = format!("unix:{}", path.display());
    for arguments in [vec!["health", &name], vec!["health", &unix], vec!["health", "--admin", &admin, "--ready"]] {
        let health = run(&arguments);
        assert!(health.status.success(), "{arguments:?}: {}", text(&health.stderr));
    }
    let missing = format!("unix:{}", folder.join("none.sock").display());
    for address in [missing.as_str(), "no-such-host.invalid:80", "127.0.0.1:1"] {
        let health = run(&["health", address]);
        let error = text(&health.stderr);
        assert!(!health.status.success() && error.contains(&format!("no response from {address}: ")), "{error}");
    }
}

#[tokio::test]
async fn health_verifies_the_certificate_of_a_tls_listener() {
    let folder = folder_with("server-1");
    let process =
        Process::serve_configuration(&Configuration::new().listeners([Listener::new().tls(&folder)]), &[]).await;
    let port = process.address().port();
    let authorities = data("ca.pem").display().to_string();
    for (host, more) in
        [("localhost", vec![]), ("127.0.0.1", vec![]), ("127.0.0.1", vec!["--server-name", "localhost"])]
    {
        let address = format!("https://{host}:{port}");
        shown(&[&["health", &address, "--ca-file", &authorities], more.as_slice()].concat());
    }
    let address = format!("https://127.0.0.1:{port}");
    for (more, cause) in [
        (vec![], "UnknownIssuer"),
        (vec!["--ca-file", &authorities, "--server-name", "other.example"], "not valid for"),
        (vec!["--ca-file", "/nowhere/ca.pem"], "ca_file /nowhere/ca.pem: "),
    ] {
        let error = refused(&[&["health", &address], more.as_slice()].concat());
        assert!(error.contains(&format!("no response from {address}: ")) && error.contains(cause), "{error}");
    }
    let plain = refused(&["health", &format!("127.0.0.1:{port}")]);
    assert!(plain.contains("does not answer as a healthy Postern does: status 400"), "{plain}");
    let secured = refused(&["health", "https://127.0.0.1:1"]);
    assert!(secured.contains("no response from https://127.0.0.1:1: 127.0.0.1:1: connect: "), "{secured}");
}

/// A gateway whose admin listener is a Unix socket and takes [`ADMIN_TOKEN`], its configuration file, and its Refold.
struct Administered {
    process: Process,
    folder: Folder,
    refold: ScriptedRefold,
}

impl Administered {
    async fn start() -> Self {
        let (folder, refold) = (Folder::new(), ScriptedRefold::start().await);
        let keys = [
            ClientKey::new("dashboards", KEY).limit(1, 2),
            ClientKey::new("old", "pst_old").accounts(&["acme-*"]).expires("2020-01-01"),
        ];
        let other = Tenant::new("other").client_key(ClientKey::new("support", "pst_support").write());
        let config = Configuration::with_default_limits()
            .tenants([Tenant::new("t").client_keys(keys), other])
            .upstream(refold.address())
            .admin_with_token()
            .set("admin.address", format!("unix:{}", folder.join("admin.sock").display()));
        let mut process = Process::serve(&folder.write("postern.toml", config.to_toml())).await;
        process.until_logged("\"admin_listening\"", 1).await;
        Self { process, folder, refold }
    }

    /// The status of the answer to a request for a page.
    async fn list(&self, account: &str) -> String {
        let answer = raw(self.process.address(), get(EXECUTIONS, &once_as(account)).as_bytes()).await;
        answer.split(' ').nth(1).expect("a status").to_owned()
    }

    fn file(&self) -> String {
        self.folder.join("postern.toml").display().to_string()
    }
}

#[tokio::test]
async fn keys_lists_the_client_keys_and_their_use() {
    let gateway = Administered::start().await;
    for expected in ["200", "200", "429"] {
        assert_eq!(gateway.list("acme-1").await, expected);
    }
    let list = shown(&["keys", "--config", &gateway.file()]);
    let rows: Vec<Vec<&str>> =
        list.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    let headings =
        ["TENANT", "NAME", "ACCESS", "LINKED ACCOUNTS", "EXPIRES", "LAST USED", "REQUESTS/MIN", "429/MIN", "RATE"];
    assert_eq!(rows[0], headings);
    let help = shown(&["keys", "--help"]);
    assert!(headings.iter().all(|name| help.contains(name)), "{help}");
    let used = rows[1][5].to_owned();
    assert!(used.ends_with(" s ago"), "{list}");
    assert_eq!(rows[1], ["t", "dashboards", "read", "*", "never", &used, "3", "1", "1/s"]);
    assert_eq!(
        rows[2],
        ["t", "old", "read", "acme-*", "2020-01-01T00:00:00Z (expired)", "not since start", "0", "0", "-"]
    );
    assert_eq!(rows[3], ["other", "support", "read+write", "*", "never", "not since start", "0", "0", "-"]);
    let json = shown(&["keys", "--config", &gateway.file(), "--tenant", "other", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let [key] = json["client_keys"].as_array().expect("a list").as_slice() else { panic!("{json}") };
    assert_eq!((&key["name"], &key["requests"]), (&"support".into(), &0.into()));
    let unknown = refused(&["keys", "--config", &gateway.file(), "--tenant", "othr"]);
    assert!(unknown.contains("there is no tenant `othr`; did you mean `other`?"), "{unknown}");
}

#[tokio::test]
async fn keys_and_purge_need_no_secret_but_the_admin_token() {
    let gateway = Administered::start().await;
    let file = gateway.file();
    for arguments in [vec!["keys", "--config", &file], vec!["purge", "--all", "--config", &file]] {
        let output = run_to_end(postern().args(&arguments).env_remove("ORG_KEY"));
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        let output = run_to_end(postern().args(&arguments).env_remove("ADMIN_TOKEN"));
        assert!(!output.status.success() && text(&output.stderr).contains("ADMIN_TOKEN is not set"), "{arguments:?}");
    }
}

#[tokio::test]
async fn purge_drops_the_entries_of_an_account_of_a_tenant_or_all() {
    let mut gateway = Administered::start().await;
    assert_eq!(gateway.list("acme-1").await, "200");
    let file = gateway.file();
    for (what, dropped) in [
        (vec!["--tenant", "t", "--linked-account", "acme-1"], "dropped: linked account acme-1 of tenant t\n"),
        (vec!["--tenant", "t", "--account", "acme-1"], "dropped: linked account acme-1 of tenant t\n"),
        (vec!["--tenant", "t"], "dropped: all linked accounts of tenant t\n"),
        (vec!["--all"], "dropped: all entries of all tenants\n"),
        (vec!["--all", "--format", "json"], "{\"purged\":{\"all\":true}}\n"),
    ] {
        assert_eq!(shown(&[&["purge", "--config", &file], what.as_slice()].concat()), dropped);
    }
    gateway.process.until_logged("\"purged\"", 5).await;
    assert_eq!(gateway.list("acme-1").await, "200");
    assert_eq!(gateway.refold.requests(), 2, "the page is fetched again");
    let unknown = refused(&["purge", "--config", &file, "--tenant", "othr"]);
    assert!(unknown.contains("answers 404: there is no tenant `othr`; did you mean `other`?"), "{unknown}");
    for incomplete in [vec!["purge"], vec!["purge", "--linked-account", "a"], vec!["purge", "--all", "--tenant", "t"]] {
        assert_eq!(run(&incomplete).status.code(), Some(2), "{incomplete:?}");
    }
}

#[tokio::test]
async fn the_admin_token_comes_from_the_configuration_a_file_or_a_variable() {
    let gateway = Administered::start().await;
    let address = format!("unix:{}", gateway.folder.join("admin.sock").display());
    let token = gateway.folder.write("token", format!("{ADMIN_TOKEN}\n")).display().to_string();
    shown(&["keys", "--admin", &address, "--token-file", &token]);
    shown(&["keys", "--admin", &address, "--config", &gateway.file()]);
    let with_variable = |value: &str| {
        let output = run_to_end(postern().args(["keys", "--admin", &address]).env("POSTERN_ADMIN_TOKEN", value));
        (output.status.success(), text(&output.stderr))
    };
    assert!(with_variable(ADMIN_TOKEN).0);
    let (succeeded, error) = with_variable("a-wrong-token");
    assert!(
        !succeeded && error.contains("does not accept this token (401)") && !error.contains("a-wrong-token"),
        "{error}"
    );
    let error = refused(&["keys", "--admin", &address]);
    assert!(
        error.contains(&format!("the admin listener at {address} asks for a token (401): --config names")),
        "{error}"
    );
    let error = refused(&["keys", "--admin", &gateway.process.address().to_string()]);
    assert!(error.contains("404"), "{error}");
    let error = refused(&["keys", "--admin", &address, "--token-file", "/nowhere/token"]);
    assert!(error.contains("the token file /nowhere/token can't be read: "), "{error}");
    let off = gateway.folder.write("off.toml", Configuration::new().to_toml()).display().to_string();
    assert!(refused(&["keys", "--config", &off]).contains("has switched the admin listener off"));
}
