//! The allow-list does not let a caller out of its linked account.

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::support::{
    ClientKey, Configuration, Folder, Gateway, KEY, World, as_account, http_upstream, postern, run_to_end,
};

const EVERYTHING: &str = r#"
[[pass_through]]
methods = ["GET", "POST", "PUT", "DELETE"]
path = "/api/v2/public/**"
"#;
const SESSION_TOKEN: &str = r#"
[[pass_through]]
methods = ["POST"]
path = "/api/v2/public/session-token"
scope = "org"
"#;

const CONFINED: &str = "pst_one_account";

/// A gateway with a key for every account and one for `acme-1`, before an upstream that answers everything with 200.
async fn gateway(list: &str) -> Gateway {
    let upstream = http_upstream(|_: Request<Incoming>| async { Response::new(Full::default()) }).await;
    let keys = [ClientKey::new("all", KEY).write(), ClientKey::new("one", CONFINED).accounts(&["acme-1"]).write()];
    let builder = World::builder().refold(upstream).config(|config: Configuration| config.toml(list));
    builder.client_keys(keys).start().await.gateway
}

fn confined(kind: &'static str) -> [(&'static str, &'static str); 3] {
    [("x-api-key", CONFINED), ("linked_account_id", "acme-1"), ("content-type", kind)]
}

#[tokio::test]
async fn only_operations_of_one_account_pass_with_the_scope_of_an_account() {
    let gateway = gateway(EVERYTHING).await;
    for (method, target) in [
        (Method::POST, "/api/v2/public/session-token"),
        (Method::DELETE, "/api/v2/public/linked-account/globex"),
        (Method::POST, "/api/v2/public/connect-url?linked_account_id=acme-1"),
        (Method::GET, "/api/v2/public/webhook"),
        (Method::GET, "/api/v2/public/application/%65vent"),
        (Method::GET, "/api/v2/public/not-in-the-table"),
    ] {
        // Also for a key for every account: the entry of the allow-list decides.
        for headers in [confined("application/json").to_vec(), as_account("acme-1").to_vec()] {
            let status = gateway.send(method.clone(), target, &headers).await.status;
            let refused = status == StatusCode::NOT_FOUND || status == StatusCode::METHOD_NOT_ALLOWED;
            assert!(refused, "{method} {target}: {status}");
        }
    }
    for target in ["/api/v2/public/workflow?page=1&linked_account_id=acme-1", "/api/v2/public/workflow/7"] {
        assert_eq!(gateway.get(target, &confined("text/plain")).await.status, StatusCode::OK, "{target}");
    }
    let wrong = gateway.send(Method::DELETE, "/api/v2/public/workflow/7", &confined("text/plain")).await;
    assert_eq!((wrong.status, wrong.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET"));
}

#[tokio::test]
async fn the_scope_of_an_org_needs_a_key_for_every_account() {
    let gateway = gateway(&format!("{EVERYTHING}{SESSION_TOKEN}")).await;
    let (target, body) = ("/api/v2/public/session-token", r#"{"linked_account_id": "other"}"#);
    let refused = gateway.post(target, &confined("application/json"), body).await;
    assert_eq!(refused.error(), (403, "LINKED_ACCOUNT_NOT_ALLOWED".to_owned()));
    assert_eq!(gateway.post(target, &as_account("acme-1"), body).await.status, StatusCode::OK);
    // An operation of one account passes by the other entry.
    let passed = gateway.post("/api/v2/public/event/trigger", &confined("application/json"), "{}").await;
    assert_eq!(passed.status, StatusCode::OK);
}

#[tokio::test]
async fn another_linked_account_in_query_or_body_is_refused() {
    let gateway = gateway(EVERYTHING).await;
    let json = confined("application/json");
    for (target, kind, body, allowed) in [
        ("/api/v2/public/workflow?linked_account_id=other", "application/json", "{}", false),
        ("/api/v2/public/workflow?linked%5Faccount_id=other", "application/json", "{}", false),
        ("/api/v2/public/workflow", "application/json", r#"{"linked_account_id": "other"}"#, false),
        ("/api/v2/public/workflow", "application/json", r#"{"a": [{"linked_account_id": "other"}]}"#, false),
        ("/api/v2/public/workflow", "application/x-www-form-urlencoded", "linked_account_id=other", false),
        ("/api/v2/public/workflow", "application/json", r#"{"linked_account_id": "acme-1"}"#, true),
    ] {
        let answer = gateway.post(target, &confined(kind), body).await;
        if allowed {
            assert_eq!(answer.status, StatusCode::OK, "{target} {body}");
        } else {
            assert_eq!(answer.error(), (403, "LINKED_ACCOUNT_NOT_ALLOWED".to_owned()), "{target} {body}");
        }
    }
    let answer = gateway.post("/api/v2/public/workflow", &json, "{").await;
    assert_eq!(answer.error(), (400, "MALFORMED_REQUEST".to_owned()));
}

#[test]
fn check_names_the_routes_that_need_the_scope_of_an_org() {
    let folder = Folder::new();
    let more = "[[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/files/**\"\n[[pass_through]]\nmethods = [\"GET\"]\npath = \"/api/v2/public/workflow\"\n";
    let config = Configuration::new().toml(&format!("{EVERYTHING}{more}"));
    let file = folder.write("postern.toml", config.to_toml());
    let output = run_to_end(postern().args(["check", "--config"]).arg(file));
    let text = String::from_utf8_lossy(&output.stdout);
    for operation in
        ["POST /api/v2/public/session-token", "GET /api/v2/files/**", "DELETE /api/v2/public/workflow/{workflowId}"]
    {
        let line = format!("{operation} is not forwarded without `scope = \"org\"`");
        assert!(text.contains(&line), "{operation}: {text}");
    }
    assert!(!text.contains("GET /api/v2/public/workflow is"), "{text}");
}
