//! A page of another origin in a real browser. Needs Chromium, which `.ci/run` installs; `cargo test -- --ignored` runs it.
//!
//! The page makes the requests of the vendor's browser SDK. With `POSTERN_VENDOR_SDK` at the SDK's compiled file (`refold.js`
//! of the npm package `@refoldai/refold-js`) it uses that very file, unmodified.

use std::net::SocketAddr;

use http::Response;
use http_body_util::Full;
use jsonwebtoken::Algorithm;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::support::tokens::{KeyServer, claims, header, private, public, sign};
use crate::support::{World, chromium, http_upstream};

const PAGE: &str = include_str!("../data/page.html");

/// Serves the page and, if there is one, the vendor's SDK.
async fn page_server(sdk: Option<String>) -> SocketAddr {
    http_upstream(move |request| {
        let (body, kind) = match request.uri().path() {
            "/sdk.js" => (sdk.clone().unwrap_or_default(), "text/javascript; charset=utf-8"),
            _ => (PAGE.to_owned(), "text/html; charset=utf-8"),
        };
        async move {
            let mut response = Response::new(Full::new(body.into()));
            response.headers_mut().insert("content-type", kind.parse().expect("a value"));
            response
        }
    })
    .await
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_page_of_another_origin_reads_executions_in_both_dialects() {
    let sdk =
        std::env::var("POSTERN_VENDOR_SDK").ok().map(|path| std::fs::read_to_string(path).expect("the SDK's file"));
    for dialect in ["documented", "v3"] {
        let page = page_server(sdk.clone()).await;
        let issuer = KeyServer::start(&[public(Algorithm::ES256, "k")]).await;
        let world = World::builder()
            .config(|config| config.set("upstream.dialect", dialect).issuer(issuer.issuer()))
            .config(|config| config.set("cors.origins", vec![format!("http://{page}")]))
            .start()
            .await;
        // The page makes its requests once with each token.
        let jwt = sign(&header(Algorithm::ES256, "k"), &claims("globex"), &private(Algorithm::ES256));
        let tokens = [world.refold.session_token("globex"), jwt];
        let parameters =
            json!({ "baseUrl": format!("http://{}", world.gateway.address), "tokens": tokens }).to_string();
        let parameters = utf8_percent_encode(&parameters, NON_ALPHANUMERIC).to_string();
        let url = format!("http://{page}/#{parameters}");
        let dom = tokio::task::spawn_blocking(move || chromium::rendered(&url)).await.expect("the browser ends");
        let text = dom.split("<pre id=\"out\">").nth(1).and_then(|rest| rest.split("</pre>").next()).unwrap_or(&dom);
        let seen: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {dom}"));
        let expected = json!({ "docs": 10, "errored": true, "some": true, "one": true, "refused": "INVALID_PARAMETER", "headers": true, "sdk": sdk.is_some() });
        assert_eq!(seen, json!([expected, expected]), "{dialect}");
    }
}
