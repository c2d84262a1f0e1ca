//! The configuration changes while the gateway serves: what is kept, what is not, and that nothing breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::Full;
use jsonwebtoken::Algorithm;
use postern::clock::Clock;
use postern::config::ListenAddress;
use postern::simulator::{Simulator, SimulatorSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::encryption::{Folder, Kept, ask, client_config, data, install, tls_lines};
use crate::harness::{
    Answer, EXECUTIONS, Gateway, KEY, NEXT_ORG_KEY, ORG_KEY, OTHER_ORG_KEY, Setup, as_account, client_key,
    configuration, http_upstream, page_of, parsed, spawn_upstream, until,
};
use crate::issuer::{KeyServer, claims, header, private, public, sign};

/// A gateway whose configuration changes, in front of a simulated Refold that knows all its org keys.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) refold: Simulator,
    upstream: SocketAddr,
    clock: Clock,
}

impl World {
    pub(crate) async fn start(text: impl Fn(SocketAddr) -> String) -> Self {
        let Setup { clock, settings, .. } = Setup::default();
        let org_keys = [ORG_KEY, NEXT_ORG_KEY, OTHER_ORG_KEY].map(str::to_owned).to_vec();
        let refold = Simulator::new(SimulatorSettings { org_keys, ..settings }, clock.clone());
        let served = refold.clone();
        let upstream = spawn_upstream(|listener| async move {
            let _ = served.serve(listener).await;
        })
        .await;
        let gateway = Gateway::start_with(&text(upstream), clock.clone());
        Self { gateway, refold, upstream, clock }
    }

    async fn list(&self, key: &str, account: &str) -> Answer {
        self.gateway.get(EXECUTIONS, &[("x-api-key", key), ("linked_account_id", account)]).await
    }
}

pub(crate) fn usual(upstream: SocketAddr) -> String {
    let Setup { top, tenant, .. } = Setup::default();
    configuration(upstream, &top, &tenant)
}

/// A connection that stays open.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("it listens"))
    }

    pub(crate) async fn send(&mut self, lines: &str) {
        let request = format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        self.0.write_all(request.as_bytes()).await.expect("it reads");
    }

    /// The next answer: its head, read together with its body.
    pub(crate) async fn receive(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            bytes.push(self.0.read_u8().await.expect("an answer"));
            if bytes.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8(bytes).expect("UTF-8");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).await.expect("a body");
        head
    }

    pub(crate) async fn ask(&mut self, lines: &str) -> String {
        self.send(lines).await;
        self.receive().await
    }

    /// Whether the server has closed it.
    pub(crate) async fn ends(mut self) -> bool {
        self.0.read(&mut [0]).await.is_ok_and(|read| read == 0)
    }
}

pub(crate) fn with_key(key: &str, account: &str) -> String {
    format!("x-api-key: {key}\r\nlinked_account_id: {account}\r\n")
}

#[tokio::test]
async fn what_is_cached_survives_a_change_that_has_nothing_to_do_with_it() {
    let world = World::start(usual).await;
    assert_eq!(world.list(KEY, "acme-2").await.header("cache-status"), "postern; fwd=uri-miss; stored");
    let more = client_key("new", "pst_new", "linked_accounts = [\"acme-*\"]\nper_second = 1\nburst = 1");
    let text = usual(world.upstream).replace("drain_timeout = \"200ms\"", "drain_timeout = \"300ms\"") + &more;
    world.gateway.reload(&text);
    assert!(world.list("pst_new", "acme-2").await.header("cache-status").starts_with("postern; hit"));
    assert!(world.list(KEY, "acme-2").await.header("cache-status").starts_with("postern; hit"));
    assert_eq!(world.refold.requests(), 1);
    let reloads = world.gateway.server().lifecycle().reloads();
    assert_eq!((reloads.succeeded, reloads.refused, reloads.last_succeeded()), (1, 0, true));
}

#[tokio::test]
async fn an_org_key_that_is_rotated_keeps_the_pages_and_another_orgs_key_drops_them() {
    let world = World::start(usual).await;
    world.list(KEY, "acme-2").await;
    let keyed = |lines: &str| usual(world.upstream).replace("org_key = { env = \"ORG_KEY\" }", lines);
    for (lines, hit) in [
        ("org_key = { env = \"ORG_KEY\" }\norg_key_next = { env = \"NEXT_ORG_KEY\" }", true),
        ("org_key = { env = \"NEXT_ORG_KEY\" }", true),
        ("org_key = { env = \"OTHER_ORG_KEY\" }", false),
    ] {
        world.gateway.reload(&keyed(lines));
        let answer = world.list(KEY, "acme-2").await;
        assert_eq!(answer.header("cache-status").starts_with("postern; hit"), hit, "{lines}");
    }
}

#[tokio::test]
async fn pages_of_another_upstream_or_of_other_questions_are_not_given() {
    let world = World::start(usual).await;
    let other = http_upstream(|_| async { page_of(&serde_json::json!({ "_id": "other", "status": "COMPLETED" })) });
    let other = other.await;
    let changed = |from: &str, to: &str| usual(world.upstream).replace(from, to);
    for text in [
        changed("[upstream]\n", "[upstream]\ndialect = \"v3\"\n"),
        changed("[upstream]\n", "[query]\nunknown_parameters = \"drop\"\n[upstream]\n"),
        changed("[upstream]\n", "[cache]\ncapacity = \"1MiB\"\n[upstream]\n"),
        usual(other),
    ] {
        world.gateway.reload(&usual(world.upstream));
        world.list(KEY, "acme-2").await;
        assert!(world.list(KEY, "acme-2").await.header("cache-status").starts_with("postern; hit"));
        world.gateway.reload(&text);
        let answer = world.list(KEY, "acme-2").await;
        assert_eq!(answer.header("cache-status"), "postern; fwd=uri-miss; stored", "{text}");
    }
    assert_eq!(world.list(KEY, "acme-2").await.json()["docs"][0]["_id"], "other");
}

#[tokio::test]
async fn no_budget_is_refilled_by_a_reload_unless_its_rate_is_another() {
    let limits = "[limits.upstream]\nper_second = 1\nburst = 3\nmax_wait = \"0s\"\n[limits.client]\nper_second = 1\nburst = 6\n[cache]\ncapacity = 0\n";
    let tenant = client_key("all", KEY, "linked_accounts = [\"*\"]")
        + &client_key("small", "pst_small", "linked_accounts = [\"*\"]\nper_second = 1\nburst = 2");
    let text = move |upstream| configuration(upstream, limits, &tenant);
    let world = World::start(&text).await;
    let text = text(world.upstream);
    let spend = async |key, account| world.list(key, account).await;
    while spend(KEY, "acme-1").await.status == StatusCode::OK {}
    while spend("pst_small", "acme-3").await.error_code() != "RATE_LIMIT_EXCEEDED" {}
    let harmless = text.clone() + &client_key("new", "pst_new", "linked_accounts = [\"*\"]");
    world.gateway.reload(&harmless);
    assert_eq!(spend(KEY, "acme-1").await.error_code(), "UPSTREAM_BUDGET_EXCEEDED");
    assert_eq!(spend("pst_small", "acme-3").await.error_code(), "RATE_LIMIT_EXCEEDED");
    while spend(KEY, "acme-1").await.error_code() != "RATE_LIMIT_EXCEEDED" {}
    world.gateway.reload(&text);
    assert_eq!(spend(KEY, "acme-1").await.error_code(), "RATE_LIMIT_EXCEEDED");
    // What was spent of Refold's stays spent, also at another rate.
    world.gateway.reload(&text.replace("burst = 6", "burst = 7").replace("burst = 3", "burst = 4"));
    let asked = world.refold.requests();
    let codes = [spend(KEY, "acme-1").await, spend(KEY, "acme-1").await];
    assert!(world.refold.requests() <= asked + 1, "one more at once is what the larger burst grants");
    assert_eq!(codes[1].error_code(), "UPSTREAM_BUDGET_EXCEEDED", "its own budget is a new one");
}

#[tokio::test]
async fn what_is_taken_away_is_refused_on_connections_that_are_open_already() {
    let other = client_key("other", "pst_other", "linked_accounts = [\"*\"]");
    let listener = "session_tokens = \"t\"";
    let full = move |upstream| usual(upstream) + &other;
    let world = World::start(&full).await;
    let (trusted, untrusted) = ("trusted = { tenant = \"t\" }", "");
    let text = full(world.upstream);
    let token = format!("authorization: Bearer {}\r\n", world.refold.session_token("acme-1"));
    let of_all = "linked_accounts = [\"*\"]\n";
    for (before, after, lines, status) in [
        (text.clone(), usual(world.upstream), with_key("pst_other", "acme-1"), "401"),
        (text.clone(), text.replace(of_all, "linked_accounts = [\"x\"]\n"), with_key("pst_other", "acme-1"), "403"),
        (text.clone(), text.replace(listener, ""), token, "401"),
        (
            text.replace(listener, trusted),
            text.replace(listener, untrusted),
            "linked_account_id: acme-1\r\n".to_owned(),
            "401",
        ),
        (text.clone(), text.replace("id = \"t\"", "id = \"u\"").replace(listener, ""), with_key(KEY, "acme-1"), "200"),
    ] {
        world.gateway.reload(&before);
        let mut connection = Connection::open(world.gateway.address).await;
        for _ in 0..2 {
            let head = connection.ask(&lines).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        world.gateway.reload(&after);
        let head = connection.ask(&lines).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{after}\n{head}");
        assert!(!head.contains("connection: close"), "it is not closed for that");
    }
}

#[tokio::test]
async fn a_certificate_stands_for_whom_the_present_configuration_says() {
    let folder = Folder::new("reload-certificates");
    install(&folder, "server-1");
    let authority = |name: &str| format!(", client_ca = \"{}\"", data(name).display());
    let tls = tls_lines(&folder, &authority("ca.pem"));
    let caller = "[[tenants.client_certificates]]\nname = \"dashboard\"\nsan = \"spiffe://cluster.local/ns/app/sa/dashboard\"\nlinked_accounts = [\"acme-*\"]\n";
    let text = |upstream| usual(upstream).replace("session_tokens = \"t\"", &tls) + caller;
    let world = World::start(text).await;
    let text = text(world.upstream);
    let other_authority = text.replace(&tls, &tls_lines(&folder, &authority("server-1.pem")));
    for (changed, status) in [
        (text.replace("acme-*", "globex"), StatusCode::FORBIDDEN),
        (text.replace(caller, ""), StatusCode::UNAUTHORIZED),
        (other_authority, StatusCode::UNAUTHORIZED),
        (text.replace("drain_timeout = \"200ms\"", "drain_timeout = \"300ms\""), StatusCode::OK),
    ] {
        world.gateway.reload(&text);
        let mut kept = Kept::open(world.gateway.address, Some("client-app")).await;
        let account = [("linked_account_id", "acme-1")];
        assert_eq!(kept.ask(&account).await.0, StatusCode::OK);
        world.gateway.reload(&changed);
        assert_eq!(kept.ask(&account).await.0, status, "{changed}");
    }
}

#[tokio::test]
async fn an_authority_that_is_replaced_on_disk_counts_from_the_first_request_after_a_reload() {
    let folder = Folder::new("reload-replaced-authority");
    install(&folder, "server-1");
    let clients = folder.path().join("clients.pem");
    let put = |authority: &str| std::fs::copy(data(authority), &clients).expect("a temporary file");
    put("ca.pem");
    let tls = tls_lines(&folder, &format!(", client_ca = \"{}\"", clients.display()));
    let caller = "[[tenants.client_certificates]]\nname = \"dashboard\"\nsan = \"spiffe://cluster.local/ns/app/sa/dashboard\"\nlinked_accounts = [\"acme-*\"]\n";
    let text = |upstream| usual(upstream).replace("session_tokens = \"t\"", &tls) + caller;
    let world = World::start(text).await;
    let mut kept = Kept::open(world.gateway.address, Some("client-app")).await;
    let account = [("linked_account_id", "acme-1")];
    assert_eq!(kept.ask(&account).await.0, StatusCode::OK);
    put("server-1.pem");
    world.gateway.reload(&text(world.upstream));
    assert_eq!(kept.ask(&account).await.0, StatusCode::UNAUTHORIZED);
}

/// An upstream that answers when it is let, and counts who waits.
pub(crate) struct Held {
    pub(crate) upstream: SocketAddr,
    arrived: Arc<AtomicUsize>,
    pub(crate) gate: Arc<Semaphore>,
}

impl Held {
    pub(crate) async fn start() -> Self {
        let (arrived, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counter, held) = (Arc::clone(&arrived), Arc::clone(&gate));
        let upstream = http_upstream(move |_| {
            let (counter, held) = (Arc::clone(&counter), Arc::clone(&held));
            async move {
                counter.fetch_add(1, Ordering::SeqCst);
                held.acquire().await.expect("it is never closed").forget();
                page_of(&serde_json::json!({ "status": "COMPLETED" }))
            }
        });
        Self { upstream: upstream.await, arrived, gate }
    }

    pub(crate) async fn until_arrived(&self, requests: usize) {
        until(|| self.arrived.load(Ordering::SeqCst) == requests).await;
    }
}

#[tokio::test]
async fn a_request_that_has_begun_ends_with_the_configuration_that_it_began_with() {
    let held = Held::start().await;
    let gateway = Gateway::start_with(&usual(held.upstream), Setup::default().clock);
    let mut begun = Connection::open(gateway.address).await;
    begun.send(&with_key(KEY, "acme-1")).await;
    held.until_arrived(1).await;
    let Setup { top, .. } = Setup::default();
    let other = client_key("all", "pst_another", "linked_accounts = [\"*\"]");
    gateway.reload(&configuration(held.upstream, &top, &other));
    let mut after = Connection::open(gateway.address).await;
    assert!(after.ask(&with_key(KEY, "acme-1")).await.starts_with("HTTP/1.1 401"));
    held.gate.add_permits(1);
    assert!(begun.receive().await.starts_with("HTTP/1.1 200"));
    assert!(begun.ask(&with_key(KEY, "acme-1")).await.starts_with("HTTP/1.1 401"));
    // What it has fetched is there for those who come after.
    let told = after.ask(&with_key("pst_another", "acme-1")).await;
    assert!(told.contains("cache-status: postern; hit"), "{told}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_changes_nothing_and_says_why() {
    let world = World::start(usual).await;
    world.list(KEY, "acme-2").await;
    let lifecycle = Arc::clone(world.gateway.server().lifecycle());
    let broken = parsed("[server]\nworkerz = 1\n").expect_err("it is broken");
    world.gateway.server().refuse_reload(&broken);
    let why = lifecycle.reloads().last_refusal.expect("it was refused");
    assert!(why.starts_with("test.toml:2:1: unknown key `workerz`; did you mean `workers`?"), "{why}");
    // Good in itself, but the address is somebody else's.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it is bound");
    let more = format!("[[listeners]]\naddress = \"{taken}\"\n[[listeners]]");
    let text = usual(world.upstream).replacen("[[listeners]]", &more, 1).replace(KEY, "");
    let text = text.replace("burst = 100000", "burst = 1");
    let refused = world.gateway.server().reload(parsed(&text).expect("it is good")).expect_err("it is taken");
    assert!(refused.to_string().starts_with(&format!("can't listen on {taken}: ")), "{refused}");
    let reloads = lifecycle.reloads();
    assert_eq!((reloads.succeeded, reloads.refused, reloads.last_succeeded()), (0, 2, false));
    for _ in 0..3 {
        assert!(world.list(KEY, "acme-2").await.header("cache-status").starts_with("postern; hit"));
    }
    world.clock.advance(Duration::from_secs(1));
    world.gateway.reload(&usual(world.upstream));
    let reloads = lifecycle.reloads();
    assert_eq!((reloads.succeeded, reloads.refused, reloads.last_refusal), (1, 2, None));
    assert_eq!(reloads.last_success, world.clock.wall());
}

#[tokio::test]
async fn a_listener_that_is_added_is_served_and_one_that_is_removed_closes_with_its_next_answers() {
    let world = World::start(usual).await;
    let folder = Folder::new("added-listener");
    let path = folder.path().join("postern.sock");
    let more =
        format!("[[listeners]]\naddress = \"unix:{}\"\ntrusted = {{ tenant = \"t\" }}\n[[listeners]]", path.display());
    let both = usual(world.upstream).replacen("[[listeners]]", &more, 1);
    let mut old = Connection::open(world.gateway.address).await;
    old.ask(&with_key(KEY, "acme-1")).await;
    world.gateway.reload(&both);
    let addresses = world.gateway.server().addresses();
    assert_eq!(addresses, [ListenAddress::Unix(path.clone()), ListenAddress::Tcp(world.gateway.address)]);
    let request =
        format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\nlinked_account_id: acme-1\r\nConnection: close\r\n\r\n");
    let ask = async || {
        let mut stream = tokio::net::UnixStream::connect(&path).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    assert!(ask().await.expect("an answer").starts_with("HTTP/1.1 200"));
    // Without the TCP listener: its open connection gets one answer more.
    let alone = both.replace("[[listeners]]\naddress = \"127.0.0.1:0\"\nsession_tokens = \"t\"\n", "");
    world.gateway.reload(&alone);
    // The worker may hear of it a moment later.
    while !old.ask(&with_key(KEY, "acme-1")).await.contains("\r\nconnection: close\r\n") {}
    assert!(old.ends().await);
    let address = world.gateway.address;
    until(|| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50)).is_err()).await;
    assert!(ask().await.expect("an answer").starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn whoever_came_in_at_a_socket_that_another_one_replaces_is_answered_as_before_and_told_to_come_again() {
    let folder = Folder::new("replaced-socket");
    let path = folder.path().join("postern.sock");
    let world = World::start(usual).await;
    let with = |lines: &str| {
        let more = format!("[[listeners]]\naddress = \"unix:{}\"\n{lines}\n[[listeners]]", path.display());
        usual(world.upstream).replacen("[[listeners]]", &more, 1)
    };
    let trusted = "trusted = { tenant = \"t\" }\n";
    world.gateway.reload(&with(trusted));
    let mut kept = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    let ask = async |stream: &mut tokio::net::UnixStream| {
        let request = format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\nlinked_account_id: acme-1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("UTF-8");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        stream.read_exact(&mut vec![0; length.parse().expect("a number")]).await.expect("a body");
        head
    };
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 200"));
    // Another mode is another socket.
    world.gateway.reload(&with(&format!("{trusted}socket = {{ mode = \"0600\" }}\n")));
    // The worker may hear of it a moment later.
    loop {
        let head = ask(&mut kept).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        if head.contains("\r\nconnection: close\r\n") {
            break;
        }
    }
    // Where nobody is trusted any more, nobody is.
    let mut kept = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 200"));
    world.gateway.reload(&usual(world.upstream));
    assert!(ask(&mut kept).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_listener_that_becomes_encrypted_lets_the_connections_go_that_are_not() {
    let folder = Folder::new("becomes-encrypted");
    install(&folder, "server-1");
    let world = World::start(usual).await;
    let mut plain = Connection::open(world.gateway.address).await;
    assert!(!plain.ask(&with_key(KEY, "acme-1")).await.contains("connection: close"));
    let encrypted = |lines: &str| usual(world.upstream).replace("session_tokens = \"t\"", lines);
    world.gateway.reload(&encrypted(&tls_lines(&folder, "")));
    let ask = async || ask(world.gateway.address, &client_config(None), &as_account("acme-1")).await;
    let (status, first) = ask().await.expect("an answer");
    assert_eq!(status, StatusCode::OK);
    // The worker may hear of it a moment later.
    while !plain.ask(&with_key(KEY, "acme-1")).await.contains("connection: close") {}
    assert!(plain.ends().await);
    // Other files are another certificate, at once.
    let other = Folder::new("becomes-encrypted-anew");
    install(&other, "server-2");
    world.gateway.reload(&encrypted(&tls_lines(&other, "")));
    assert_ne!(ask().await.expect("an answer").1, first);
}

#[tokio::test]
async fn a_listener_that_demands_a_certificate_lets_the_connections_go_that_came_in_without() {
    let folder = Folder::new("demands-certificates");
    install(&folder, "server-1");
    let asked = format!(", client_ca = \"{}\"", data("ca.pem").display());
    let other = format!(", client_ca = \"{}\"", data("server-1.pem").display());
    let text = |upstream, more: &str| usual(upstream).replace("session_tokens = \"t\"", &tls_lines(&folder, more));
    for (before, after) in [
        (String::new(), asked.clone()),
        (asked.clone(), format!("{asked}, client_certificate = \"required\"")),
        (asked, other),
    ] {
        let world = World::start(|upstream| text(upstream, &before)).await;
        let mut kept = Kept::open(world.gateway.address, None).await;
        assert_eq!(kept.ask(&as_account("acme-1")).await, (StatusCode::OK, false));
        world.gateway.reload(&text(world.upstream, &after));
        // The worker may hear of it a moment later.
        let let_go = async { while !kept.ask(&as_account("acme-1")).await.1 {} };
        tokio::time::timeout(Duration::from_secs(20), let_go).await.expect("it is let go");
    }
}

#[tokio::test]
async fn an_issuers_keys_outlive_a_reload_and_its_tokens_do_not_outlive_its_settings() {
    let issuer = KeyServer::start(&[public(Algorithm::ES256, "one")]).await;
    let lines = issuer.lines("");
    let text = |upstream| usual(upstream) + &lines;
    let world = World::start(text).await;
    let text = text(world.upstream);
    let signed = |account| sign(&header(Algorithm::ES256, "one"), &claims(account), &private(Algorithm::ES256));
    let ask = async |account| {
        let token = format!("Bearer {}", signed(account));
        world.gateway.get(EXECUTIONS, &[("authorization", &token)]).await.status
    };
    assert_eq!(ask("acme-1").await, StatusCode::OK);
    issuer.fail(StatusCode::SERVICE_UNAVAILABLE);
    world.gateway.reload(&(text.clone() + "leeway = \"10s\"\n"));
    assert_eq!((ask("acme-1").await, ask("acme-2").await), (StatusCode::OK, StatusCode::OK));
    world.gateway.reload(&text.replace("audience = [\"postern\"]", "audience = [\"another\"]"));
    assert_eq!((ask("acme-1").await, ask("acme-2").await), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    world.gateway.reload(&usual(world.upstream).replace("session_tokens = \"t\"", ""));
    assert_eq!(ask("acme-1").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_token_that_was_accepted_stays_so_and_another_upstream_has_to_be_asked() {
    let world = World::start(usual).await;
    let token = format!("Bearer {}", world.refold.session_token("acme-2"));
    let ask = async || world.gateway.get(EXECUTIONS, &[("authorization", &token)]).await;
    assert_eq!(ask().await.status, StatusCode::OK);
    world.gateway.reload(&usual(world.upstream).replace("drain_timeout = \"200ms\"", "drain_timeout = \"300ms\""));
    assert!(ask().await.header("cache-status").starts_with("postern; hit"));
    let refuses = http_upstream(|_| async {
        let mut refused = http::Response::new(Full::default());
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        refused
    });
    world.gateway.reload(&usual(refuses.await));
    assert_eq!(ask().await.status, StatusCode::UNAUTHORIZED);
}
