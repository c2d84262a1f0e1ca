//! The admin listener: who may ask there, what it tells, and what it does.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::encryption::Folder;
use crate::harness::{
    ADMIN, ADMIN_TOKEN, EXECUTIONS, Gateway, JWT_SECRET, KEY, ORG_KEY, Setup, World, as_account, http_upstream, page_of,
};

const WITH_TOKEN: &str = "[admin]\naddress = \"127.0.0.1:0\"\ntoken = { env = \"ADMIN_TOKEN\" }\n";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn world(admin: &str) -> World {
    let setup = Setup::default();
    let top = format!("{}{admin}", setup.top);
    Setup { top, ..setup }.start().await
}

#[tokio::test]
async fn probes_and_the_bare_page_need_no_token_and_everything_else_does() {
    let world = world(WITH_TOKEN).await;
    let good = format!("Bearer {ADMIN_TOKEN}");
    for open in ["/healthz", "/readyz", "/", "/page/main.js", "/page/style.css"] {
        assert_eq!(world.gateway.admin(open, &[]).await.status, StatusCode::OK, "{open}");
    }
    for closed in ["/metrics", "/status", "/config", "/explore?page=1"] {
        for wrong in [vec![], vec![("authorization", "Bearer wrong")], as_account("acme-1").to_vec()] {
            let refused = world.gateway.admin(closed, &wrong).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{closed}");
            assert_eq!(refused.json()["http_error_type"], "UNAUTHORIZED");
            assert_eq!(refused.json()["request_id"], refused.header("x-request-id"));
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
        }
        assert_eq!(world.gateway.admin(closed, &[("authorization", &good)]).await.status, StatusCode::OK, "{closed}");
    }
    let purge = world.gateway.admin_post("/purge", &[JSON], "{\"all\":true}").await;
    assert_eq!(purge.status, StatusCode::UNAUTHORIZED);
    // Whoever shows no token learns whether, and not why.
    let probe = world.gateway.admin("/readyz", &[]).await.json();
    assert_eq!(probe, json!({ "ready": true, "draining": false }));
    let told = world.gateway.admin("/readyz", &[("authorization", &good)]).await.json();
    assert_eq!(told["tenants"][0]["id"], "t");
}

#[tokio::test]
async fn a_page_that_was_led_here_by_a_made_up_name_gets_nothing() {
    let world = world(ADMIN).await;
    for host in ["rebound.example", "rebound.example:9180", "127.0.0.1.example"] {
        for target in ["/status", "/", "/healthz", "/explore"] {
            let refused = world.gateway.admin(target, &[("host", host)]).await;
            assert_eq!((refused.status, refused.error_code().as_str()), (StatusCode::BAD_REQUEST, "MALFORMED_REQUEST"));
        }
    }
    assert_eq!(world.gateway.admin("/status", &[("host", "localhost:9180")]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_keeps_browsers_to_this_origin() {
    let world = world(ADMIN).await;
    for target in ["/", "/status", "/page/main.js", "/nowhere"] {
        let answer = world.gateway.admin(target, &[("origin", "https://other.example")]).await;
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{target}: {policy}");
        }
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!((answer.header("referrer-policy"), answer.header("cache-control")), ("no-referrer", "no-store"));
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{target}");
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_meant_so_is_refused_in_the_documented_shape() {
    let world = world(ADMIN).await;
    let none = world.gateway.admin("/nowhere", &[]).await;
    assert_eq!((none.status, none.error_code().as_str()), (StatusCode::NOT_FOUND, "NOT_FOUND"));
    let wrong = world.gateway.admin("/purge", &[]).await;
    assert_eq!((wrong.status, wrong.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    let wrong = world.gateway.admin_post("/status", &[JSON], "{}").await;
    assert_eq!((wrong.status, wrong.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"));
    for (kind, body, status, word) in [
        ("text/plain", "{\"all\":true}", 400, "application/json"),
        ("application/x-www-form-urlencoded", "all=true", 400, "application/json"),
        ("application/json", "{\"all\":", 400, "the body"),
        ("application/json", "{}", 400, "linked_account"),
        ("application/json", "{\"all\":true,\"tenant\":\"t\"}", 400, "linked_account"),
        ("application/json", "{\"linked_account\":\"acme-1\"}", 400, "linked_account"),
        ("application/json", "{\"tennant\":\"t\"}", 400, "tennant"),
        ("application/json", "{\"tenant\":\"T\"}", 404, "did you mean `t`?"),
        ("application/json", &format!("{{\"tenant\":\"{}\"}}", "t".repeat(5000)), 413, "larger than"),
    ] {
        let refused = world.gateway.admin_post("/purge", &[("content-type", kind)], body).await;
        assert_eq!(refused.status.as_u16(), status, "{body}");
        assert!(refused.json()["message"].as_str().expect("a text").contains(word), "{:?}", refused.body);
    }
}

#[tokio::test]
async fn a_purge_drops_a_linked_account_a_tenant_or_everything() {
    let world = world(ADMIN).await;
    let fetched = async |account: &str| {
        let before = world.refold.requests();
        assert_eq!(world.list(account, "").await.status, StatusCode::OK);
        world.refold.requests() > before
    };
    for (body, drops_acme, drops_globex) in [
        (json!({ "tenant": "t", "linked_account": "acme-1" }), true, false),
        (json!({ "tenant": "t", "linked_account": "acme" }), false, false),
        (json!({ "tenant": "t" }), true, true),
        (json!({ "all": true }), true, true),
    ] {
        fetched("acme-1").await;
        fetched("globex").await;
        assert!(!fetched("acme-1").await && !fetched("globex").await, "both are cached");
        let purged = world.gateway.admin_post("/purge", &[JSON], &body.to_string()).await;
        assert_eq!((purged.status, &purged.json()["purged"]), (StatusCode::OK, &body));
        assert_eq!((fetched("acme-1").await, fetched("globex").await), (drops_acme, drops_globex), "{body}");
    }
}

#[tokio::test]
async fn an_open_circuit_shows_and_sends_nobody_away_from_what_is_cached() {
    let setup = Setup::default();
    let top = format!("{ADMIN}[upstream.breaker]\nfailures = 1\nopen_for = \"5s\"\n{}", setup.top);
    let world = Setup { top, ..setup }.start().await;
    world.refold.set_fault(Some("status=503".parse().expect("a fault")));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let open = world.gateway.admin("/readyz", &[]).await;
    assert_eq!((open.status, &open.json()["circuit"]), (StatusCode::OK, &json!("open")));
    world.clock.advance(Duration::from_secs(5));
    let tried = world.gateway.admin("/readyz", &[]).await;
    assert_eq!((tried.status, &tried.json()["circuit"]), (StatusCode::OK, &json!("half_open")));
}

#[tokio::test]
async fn a_configuration_that_was_refused_shows_and_does_not_make_it_unready() {
    let world = world(ADMIN).await;
    let lifecycle = Arc::clone(world.gateway.server().lifecycle());
    lifecycle.refused("postern.toml:3:1: unknown key `x`".to_owned());
    let answer = world.gateway.admin("/readyz", &[]).await;
    let refused = json!({ "ok": false, "error": "postern.toml:3:1: unknown key `x`" });
    assert_eq!((answer.status, &answer.json()["configuration"]), (StatusCode::OK, &refused));
    assert_eq!(world.gateway.admin("/status", &[]).await.json()["configuration"], refused);
    lifecycle.reloaded(world.clock.wall());
    assert_eq!(world.gateway.admin("/readyz", &[]).await.json()["configuration"], json!({ "ok": true }));
}

#[tokio::test]
async fn while_it_drains_it_is_alive_and_not_ready() {
    let (asked, mut is_asked) = tokio::sync::mpsc::channel(1);
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let upstream = http_upstream(move |_| {
        let (asked, waits) = (asked.clone(), Arc::clone(&waits));
        async move {
            let _ = asked.send(()).await;
            waits.acquire().await.expect("it stays open").forget();
            page_of(&json!({ "_id": "1", "status": "COMPLETED" }))
        }
    })
    .await;
    let Setup { top, tenant, clock, .. } = Setup::default();
    let top = format!("[server]\nworkers = 1\ndrain_timeout = \"20s\"\n{ADMIN}{top}");
    let gateway = Gateway::start(upstream, &top, &tenant, clock);
    let (address, admin) = (gateway.address, gateway.admin_address());
    let in_flight = tokio::spawn(raw(
        address,
        format!("GET {EXECUTIONS} HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nlinked_account_id: a\r\n\r\n"),
    ));
    is_asked.recv().await.expect("it is asked");
    let lifecycle = Arc::clone(gateway.server().lifecycle());
    let stopping = tokio::task::spawn_blocking(move || drop(gateway));
    crate::harness::until(|| lifecycle.is_draining()).await;
    let probe = |path: &str| raw(admin, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    let ready = probe("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"draining\":true"), "{ready}");
    assert!(probe("/healthz").await.starts_with("HTTP/1.1 200"));
    gate.add_permits(1);
    assert!(in_flight.await.expect("it ends").starts_with("HTTP/1.1 200"), "what was in flight is answered");
    stopping.await.expect("it stops");
}

/// Sends bytes as they are, and reads until the connection ends.
async fn raw(address: std::net::SocketAddr, request: String) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn the_status_tells_what_is_going_on() {
    let world = world(ADMIN).await;
    for (account, requests) in [("acme-1", 3), ("globex", 1)] {
        for _ in 0..requests {
            world.list(account, "").await;
        }
    }
    let refused = world.list("acme-1", "limit=0").await;
    world.clock.advance(Duration::from_secs(1));
    let status = world.gateway.admin("/status", &[]).await.json();
    let last = |outcome: &str| status["traffic"][outcome].as_array().and_then(|all| all.last()).cloned();
    let counts = ["hit", "fetched", "refused", "failed"].map(|outcome| last(outcome).expect("a series"));
    assert_eq!(counts, [json!(2), json!(2), json!(1), json!(0)]);
    assert_eq!((&status["latency"]["hits"]["count"], &status["latency"]["fetches"]["count"]), (&json!(2), &json!(2)));
    let busiest: Vec<_> = status["busiest"].as_array().expect("a list").iter().collect();
    assert_eq!(busiest[0], &json!({ "tenant": "t", "linked_account": "acme-1", "requests": 4 }));
    assert_eq!(busiest[1]["linked_account"], "globex");
    let error = &status["errors"][0];
    let expected = json!({
        "seconds_ago": 1.0, "request_id": refused.header("x-request-id"), "status": 400,
        "error_code": "INVALID_PARAMETER", "endpoint": "list", "tenant": "t", "linked_account": "acme-1",
    });
    assert_eq!(error, &expected);
    let tenant = &status["tenants"][0];
    let used = tenant["upstream"]["used"].as_array().and_then(|all| all.last());
    assert_eq!((used, &tenant["upstream"]["waiting"], &tenant["budget"]), (Some(&json!(2)), &json!(0), &json!("free")));
    assert_eq!((&status["cache"]["entries"], &status["circuit"]), (&json!(2), &json!("closed")));
    assert!(status["cache"]["bytes"].as_u64() > Some(0));
}

#[tokio::test]
async fn linked_accounts_are_named_as_the_log_may_name_them() {
    let hash = postern::digest::Hex(&postern::digest::sha256(b"acme-1")[..8]).to_string();
    for (setting, shown) in [("plain", json!("acme-1")), ("hashed", json!(hash)), ("none", Value::Null)] {
        let world = world(&format!("{ADMIN}[log]\nlinked_accounts = \"{setting}\"\n")).await;
        assert_eq!(world.list("acme-1", "limit=0").await.status, StatusCode::BAD_REQUEST);
        let status = world.gateway.admin("/status", &[]).await.json();
        let (busiest, errors) = (&status["busiest"][0], &status["errors"][0]);
        assert_eq!((&busiest["requests"], &errors["error_code"]), (&json!(1), &json!("INVALID_PARAMETER")));
        assert_eq!((&busiest["linked_account"], &errors["linked_account"]), (&shown, &shown));
    }
}

#[tokio::test]
async fn the_explorer_asks_as_any_caller_does_and_shows_what_came_of_it() {
    let world = world(WITH_TOKEN).await;
    let token = format!("Bearer {ADMIN_TOKEN}");
    let operator = ("authorization", token.as_str());
    let explore = async |query: &str, credential: &[(&str, &str)]| {
        world.gateway.admin(&format!("/explore?{query}"), &[&[operator], credential].concat()).await.json()
    };
    let header = |answer: &Value, name: &str| {
        let headers = answer["headers"].as_array().expect("a list").iter();
        headers.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().expect("a text").to_owned()).next()
    };
    let first = explore("status=errored&execution_source=api_call", &as_account("acme-1")).await;
    assert_eq!((&first["status"], &first["body"]["page"]), (&json!(200), &json!(1)));
    assert_eq!(header(&first, "cache-status").as_deref(), Some("postern; fwd=uri-miss; stored"));
    let canonical = "/api/v2/public/execution?page=1&limit=10&status=ERRORED&execution_source=API%20Call";
    assert_eq!(
        first["question"],
        json!({ "tenant": "t", "linked_account": "acme-1", "caller": "all", "canonical": canonical, "upstream": canonical })
    );
    let again = explore("limit=010&execution_source=API+Call&status=ERRORED", &as_account("acme-1")).await;
    assert!(header(&again, "cache-status").is_some_and(|status| status.starts_with("postern; hit")), "{again}");
    let session = format!("Bearer {}", world.refold.session_token("globex"));
    let session = explore("", &[("x-explore-authorization", &session)]).await;
    assert_eq!((&session["status"], &session["question"]["linked_account"]), (&json!(200), &Value::Null));
    let wrong = explore("stats=ERRORED", &as_account("acme-1")).await;
    assert_eq!((&wrong["status"], &wrong["body"]["error_code"]), (&json!(400), &json!("UNKNOWN_PARAMETER")));
    assert_eq!(wrong["question"], Value::Null);
    // To be at the admin listener is no credential at the gateway, nor is its token.
    for nobody in [vec![], vec![("x-api-key", ADMIN_TOKEN), ("linked_account_id", "acme-1")]] {
        let nobody = explore("", &nobody).await;
        assert_eq!((&nobody["status"], &nobody["question"]), (&json!(401), &Value::Null));
    }
}

#[tokio::test]
async fn no_secret_is_in_anything_that_it_tells() {
    let setup = Setup::default();
    let issuer = "[[issuers]]\nissuer = \"https://i.example\"\naudience = [\"postern\"]\ntenant = \"t\"\nkeys = { secret = { env = \"JWT_SECRET\" } }\n";
    let top = format!("{}{WITH_TOKEN}", setup.top);
    let tenant = format!("{}{issuer}", setup.tenant);
    let world = Setup { top, tenant, ..setup }.start().await;
    let session = world.refold.session_token("globex");
    world.list("acme-1", "limit=0").await;
    world.list("acme-1", "").await;
    world.gateway.get(EXECUTIONS, &[("authorization", &format!("Bearer {session}"))]).await;
    world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_wrong"), ("linked_account_id", "acme-1")]).await;
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let credential = [("authorization", bearer.as_str()), as_account("acme-1")[0], as_account("acme-1")[1]];
    for target in ["/status", "/config", "/metrics", "/", "/page/main.js", "/readyz", "/explore?page=1"] {
        let told = world.gateway.admin(target, &credential).await;
        assert_eq!(told.status, StatusCode::OK, "{target}");
        let told = format!("{:?} {}", told.headers, String::from_utf8_lossy(&told.body));
        for secret in [ORG_KEY, KEY, ADMIN_TOKEN, JWT_SECRET, session.as_str(), "pst_wrong"] {
            assert!(!told.contains(secret), "{target}: {told}");
        }
    }
    let config = world.gateway.admin("/config", &credential).await.json();
    assert_eq!(config["tenants"][0]["org_key"], json!({ "env": "ORG_KEY" }));
    assert_eq!(config["issuers"][0]["keys"], json!({ "secret": { "env": "JWT_SECRET" } }));
    assert_eq!(config["admin"]["token"], json!({ "env": "ADMIN_TOKEN" }));
    assert!(!format!("{:?}", world.gateway.server()).contains(ADMIN_TOKEN));
}

#[tokio::test]
async fn it_listens_on_a_unix_socket_too_or_not_at_all() {
    let folder = Folder::new("admin-unix");
    let path = folder.path().join("admin.sock");
    let world = world(&format!("[admin]\naddress = \"unix:{}\"\n", path.display())).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(world);
    let off = self::world("[admin]\naddress = \"off\"\n").await;
    assert!(off.gateway.server().admin_address().is_none());
}

#[tokio::test]
async fn metrics_are_in_prometheus_text_format() {
    let world = world(ADMIN).await;
    world.list("acme-1", "").await;
    let metrics = world.gateway.admin("/metrics", &[]).await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(metrics.body.to_vec()).expect("UTF-8");
    assert!(text.lines().any(|line| line.starts_with("# TYPE postern_")), "{text}");
    let head = world.gateway.admin("/healthz", &[]).await;
    assert_eq!(head.json(), json!({ "status": "ok" }));
}

#[tokio::test]
async fn a_slow_or_greedy_peer_keeps_nobody_else_from_asking() {
    let world = world(ADMIN).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(tokio::net::TcpStream::connect(world.gateway.admin_address()).await.expect("it listens"));
    }
    assert_eq!(world.gateway.admin("/healthz", &[]).await.status, StatusCode::OK);
    let large = world.gateway.admin("/status", &[("x-large", &"x".repeat(20 << 10))]).await;
    assert_eq!(large.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    drop(silent);
}

#[tokio::test]
async fn switched_off_by_a_reload_it_answers_probes_and_nothing_else() {
    let setup = Setup::default();
    let text =
        crate::harness::configuration(([127, 0, 0, 1], 9).into(), &format!("{}{WITH_TOKEN}", setup.top), &setup.tenant);
    let gateway = Gateway::start_with(&text, setup.clock.clone());
    gateway.reload(&text.replace(WITH_TOKEN, "[admin]\naddress = \"off\"\n"));
    let good = format!("Bearer {ADMIN_TOKEN}");
    for headers in [vec![], vec![("authorization", good.as_str())]] {
        for closed in ["/metrics", "/status", "/config", "/explore"] {
            assert_eq!(gateway.admin(closed, &headers).await.status, StatusCode::UNAUTHORIZED, "{closed}");
        }
        let purge = gateway.admin_post("/purge", &[headers.as_slice(), &[JSON]].concat(), "{\"all\":true}").await;
        assert_eq!(purge.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(gateway.admin("/readyz", &[]).await.json(), json!({ "ready": true, "draining": false }));
}
