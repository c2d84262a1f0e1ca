//! The admin listener: access, probes, status, purge and explorer.

use std::time::Duration;

use http::StatusCode;
use postern::digest::{Hex, sha256};
use serde_json::{Value, json};

use crate::support::connection::{Connection, get, raw, with_key};
use crate::support::{
    ADMIN_TOKEN, Configuration, EXECUTIONS, Folder, Issuer, JWT_SECRET, KEY, ORG_KEY, ScriptedRefold, World, as_account,
};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn world() -> World {
    World::builder().config(Configuration::admin).start().await
}

async fn world_with_token() -> World {
    World::builder().config(Configuration::admin_with_token).start().await
}

#[tokio::test]
async fn only_probes_and_the_page_need_no_token() {
    let world = world_with_token().await;
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
    // Without a token the probe gives no reason.
    let probe = world.gateway.admin("/readyz", &[]).await.json();
    assert_eq!(probe, json!({ "ready": true, "draining": false }));
    let full = world.gateway.admin("/readyz", &[("authorization", &good)]).await.json();
    assert_eq!(full["tenants"][0]["id"], "t");
}

#[tokio::test]
async fn requests_for_another_host_name_are_refused() {
    let world = world().await;
    for host in ["rebound.example", "rebound.example:9180", "127.0.0.1.example"] {
        for target in ["/status", "/", "/healthz", "/explore"] {
            let refused = world.gateway.admin(target, &[("host", host)]).await;
            assert_eq!((refused.status, refused.error_code().as_str()), (StatusCode::BAD_REQUEST, "MALFORMED_REQUEST"));
        }
    }
    assert_eq!(world.gateway.admin("/status", &[("host", "localhost:9180")]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_response_keeps_browsers_to_this_origin() {
    let world = world().await;
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
async fn pages_of_other_origins_may_not_use_the_admin_listener() {
    let world = world().await;
    let address = world.gateway.admin_address();
    let own = format!("http://{address}");
    let other = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "made-up"),
        ("origin", "https://attacker.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
    ];
    for header in other {
        for target in ["/status", "/metrics", "/config", "/explore?page=1", "/page/main.js", "/", "/nowhere"] {
            let answer = world.gateway.admin(target, &[header]).await;
            assert_eq!(answer.error(), (403, "ORIGIN_NOT_ALLOWED".to_owned()), "{target} {header:?}");
        }
        let purge = world.gateway.admin_post("/purge", &[JSON, header], r#"{"all":true}"#).await;
        assert_eq!(purge.error(), (403, "ORIGIN_NOT_ALLOWED".to_owned()), "{header:?}");
        for probe in ["/healthz", "/readyz"] {
            assert_eq!(world.gateway.admin(probe, &[header]).await.status, StatusCode::OK, "{probe} {header:?}");
        }
    }
    assert_eq!(world.gateway.recent_errors().len(), 0, "the recent errors are those of callers");
    for header in [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"), ("origin", &own)] {
        for target in ["/status", "/", "/page/main.js", "/explore?page=1"] {
            assert_eq!(world.gateway.admin(target, &[header]).await.status, StatusCode::OK, "{target} {header:?}");
        }
    }
    // A link leads to the status page, and to nothing else.
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    assert_eq!(world.gateway.admin("/", &link).await.status, StatusCode::OK);
    assert_eq!(world.gateway.admin("/status", &link).await.status, StatusCode::FORBIDDEN);
    let frame = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
    assert_eq!(world.gateway.admin("/", &frame).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn wrong_requests_are_refused_with_documented_errors() {
    let world = world().await;
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
    let world = world().await;
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
async fn an_open_circuit_is_shown_and_stays_ready() {
    let world = World::builder().config(|config| config.admin().breaker(1, "5s")).start().await;
    world.refold.set_fault(Some("status=503".parse().expect("a fault")));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let open = world.gateway.admin("/readyz", &[]).await;
    assert_eq!((open.status, &open.json()["circuit"]), (StatusCode::OK, &json!("open")));
    world.clock.advance(Duration::from_secs(5));
    let tried = world.gateway.admin("/readyz", &[]).await;
    assert_eq!((tried.status, &tried.json()["circuit"]), (StatusCode::OK, &json!("half_open")));
}

#[tokio::test]
async fn a_refused_configuration_is_shown_and_stays_ready() {
    let world = world().await;
    let lifecycle = world.gateway.lifecycle();
    lifecycle.refused("postern.toml:3:1: unknown key `x`".to_owned());
    let answer = world.gateway.admin("/readyz", &[]).await;
    let refused = json!({ "ok": false, "error": "postern.toml:3:1: unknown key `x`" });
    assert_eq!((answer.status, &answer.json()["configuration"]), (StatusCode::OK, &refused));
    assert_eq!(world.gateway.admin("/status", &[]).await.json()["configuration"], refused);
    lifecycle.reloaded(world.clock.wall());
    assert_eq!(world.gateway.admin("/readyz", &[]).await.json()["configuration"], json!({ "ok": true }));
}

#[tokio::test]
async fn a_draining_gateway_is_alive_and_not_ready() {
    let builder = World::builder().refold(ScriptedRefold::gated().await).config(Configuration::admin);
    let world = builder.config(|config| config.drain_timeout("1s").set("server.workers", 1)).start().await;
    let admin = world.gateway.admin_address();
    let mut in_flight = Connection::open(world.gateway.address).await;
    in_flight.send(&with_key(KEY, "acme-1")).await;
    world.refold.until_received(1).await;
    let stopping = world.gateway.stop().await;
    let probe = async |path: &str| raw(admin, get(path, "Connection: close\r\n").as_bytes()).await;
    let ready = probe("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"draining\":true"), "{ready}");
    assert!(probe("/healthz").await.starts_with("HTTP/1.1 200"));
    world.refold.release();
    assert!(in_flight.receive().await.starts_with("HTTP/1.1 200"), "the request in flight is answered");
    tokio::task::spawn_blocking(|| stopping.join()).await.expect("no panic").expect("no panic");
}

#[tokio::test]
async fn the_status_shows_traffic_errors_and_tenants() {
    let world = world().await;
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
        "status": 400, "error_code": "INVALID_PARAMETER", "tenant": "t", "caller": "all", "linked_account": "acme-1",
        "count": 1, "first_seconds_ago": 1.0, "seconds_ago": 1.0,
        "last": [{ "seconds_ago": 1.0, "request_id": refused.header("x-request-id"), "endpoint": "list" }],
    });
    assert_eq!(error, &expected);
    let tenant = &status["tenants"][0];
    let used = tenant["upstream"]["used"].as_array().and_then(|all| all.last());
    assert_eq!((used, &tenant["upstream"]["waiting"], &tenant["budget"]), (Some(&json!(2)), &json!(0), &json!("free")));
    assert_eq!((&status["cache"]["entries"], &status["circuit"]), (&json!(2), &json!("closed")));
    assert!(status["cache"]["bytes"].as_u64() > Some(0));
}

#[tokio::test]
async fn the_status_names_linked_accounts_as_the_log_does() {
    let hash = Hex(&sha256(b"acme-1")[..8]).to_string();
    for (setting, shown) in [("plain", json!("acme-1")), ("hashed", json!(hash)), ("none", Value::Null)] {
        let world = World::builder().config(|config| config.admin().set("log.linked_accounts", setting)).start().await;
        assert_eq!(world.list("acme-1", "limit=0").await.status, StatusCode::BAD_REQUEST);
        let status = world.gateway.admin("/status", &[]).await.json();
        let (busiest, errors) = (&status["busiest"][0], &status["errors"][0]);
        assert_eq!((&busiest["requests"], &errors["error_code"]), (&json!(1), &json!("INVALID_PARAMETER")));
        assert_eq!((&busiest["linked_account"], &errors["linked_account"]), (&shown, &shown));
    }
}

#[tokio::test]
async fn a_reload_hides_accounts_that_the_status_named() {
    let world = World::builder().config(Configuration::admin).start().await;
    for account in ["acme-1", "acme-2"] {
        for _ in 0..4 {
            assert_eq!(world.list(account, "limit=0").await.status, StatusCode::BAD_REQUEST);
        }
        let purged = json!({ "tenant": "t", "linked_account": account }).to_string();
        assert_eq!(world.gateway.admin_post("/purge", &[JSON], &purged).await.status, StatusCode::OK);
    }
    let status = async || world.gateway.admin("/status", &[]).await.json();
    let before = status().await;
    assert_eq!(
        (&before["errors"][1]["linked_account"], &before["events"][1]["details"]),
        (&json!("acme-1"), &json!("acme-1"))
    );
    for (naming, groups) in [("hashed", 2), ("none", 1)] {
        world.gateway.reload(&world.config().set("log.linked_accounts", naming));
        let status = status().await;
        for part in ["errors", "events", "busiest"] {
            assert!(!status[part].to_string().contains("acme-"), "{naming}: {}", status[part]);
        }
        let errors = status["errors"].as_array().expect("a list");
        let counts: Vec<_> =
            errors.iter().map(|group| (&group["count"], group["last"].as_array().map(Vec::len))).collect();
        assert_eq!(counts, vec![(&json!(8 / groups), Some(5.min(8 / groups))); groups], "{naming}");
    }
}

#[tokio::test]
async fn the_explorer_sends_requests_with_the_rights_of_its_credential() {
    let world = world_with_token().await;
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
    // Neither access to the admin listener nor its token is a credential for the API.
    for none in [vec![], vec![("x-api-key", ADMIN_TOKEN), ("linked_account_id", "acme-1")]] {
        let refused = explore("", &none).await;
        assert_eq!((&refused["status"], &refused["question"]), (&json!(401), &Value::Null));
    }
}

#[tokio::test]
async fn no_response_contains_a_secret() {
    let builder = World::builder().config(|config| config.admin_with_token().issuer(Issuer::with_secret()));
    let world = builder.start().await;
    let session = world.refold.session_token("globex");
    world.list("acme-1", "limit=0").await;
    world.list("acme-1", "").await;
    world.gateway.get(EXECUTIONS, &[("authorization", &format!("Bearer {session}"))]).await;
    world.gateway.get(EXECUTIONS, &[("x-api-key", "pst_wrong"), ("linked_account_id", "acme-1")]).await;
    let bearer = format!("Bearer {ADMIN_TOKEN}");
    let credential = [("authorization", bearer.as_str()), as_account("acme-1")[0], as_account("acme-1")[1]];
    for target in ["/status", "/config", "/metrics", "/", "/page/main.js", "/readyz", "/explore?page=1"] {
        let answer = world.gateway.admin(target, &credential).await;
        assert_eq!(answer.status, StatusCode::OK, "{target}");
        let text = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        for secret in [ORG_KEY, KEY, ADMIN_TOKEN, JWT_SECRET, session.as_str(), "pst_wrong"] {
            assert!(!text.contains(secret), "{target}: {text}");
        }
    }
    let config = world.gateway.admin("/config", &credential).await.json();
    assert_eq!(config["tenants"][0]["org_key"], json!({ "env": "ORG_KEY" }));
    assert_eq!(config["issuers"][0]["keys"], json!({ "secret": { "env": "JWT_SECRET" } }));
    assert_eq!(config["admin"]["token"], json!({ "env": "ADMIN_TOKEN" }));
    assert!(!format!("{:?}", world.gateway.server()).contains(ADMIN_TOKEN));
}

#[tokio::test]
async fn the_admin_listener_can_be_a_unix_socket_or_off() {
    let folder = Folder::new();
    let path = folder.join("admin.sock");
    let address = format!("unix:{}", path.display());
    let _world = World::builder().config(|config| config.set("admin.address", address)).start().await;
    let mut connection = Connection::open_unix(&path).await;
    connection.write("GET /status HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n").await;
    let answer = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let off = World::builder().config(Configuration::admin_off).start().await;
    assert!(off.gateway.server().admin_address().is_none());
}

#[tokio::test]
async fn metrics_are_in_prometheus_text_format() {
    let world = world().await;
    world.list("acme-1", "").await;
    let metrics = world.gateway.admin("/metrics", &[]).await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(metrics.body.to_vec()).expect("UTF-8");
    assert!(text.lines().any(|line| line.starts_with("# TYPE postern_")), "{text}");
    let head = world.gateway.admin("/healthz", &[]).await;
    assert_eq!(head.json(), json!({ "status": "ok" }));
}

#[tokio::test]
async fn silent_and_oversized_clients_do_not_block_others() {
    let world = world().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(Connection::open(world.gateway.admin_address()).await);
    }
    assert_eq!(world.gateway.admin("/healthz", &[]).await.status, StatusCode::OK);
    let large = world.gateway.admin("/status", &[("x-large", &"x".repeat(20 << 10))]).await;
    assert_eq!(large.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    drop(silent);
}

#[tokio::test]
async fn switched_off_by_a_reload_it_only_answers_probes() {
    let world = world_with_token().await;
    let gateway = &world.gateway;
    gateway.reload(&world.config().admin_off());
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
