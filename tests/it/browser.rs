//! A page of another origin in a real browser. Needs Chromium, which `.ci/run` installs; `cargo test -- --ignored` runs it.
//!
//! The page makes the requests of the vendor's browser SDK. With `POSTERN_VENDOR_SDK` at the SDK's compiled file (`refold.js`
//! of the npm package `@refoldai/refold-js`) it uses that very file, unmodified.

use std::process::Command;

use http_body_util::Full;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::encryption::Folder;
use crate::harness::{Setup, World, http_upstream};
use crate::issuer::{KeyServer, claims, header, private, public, sign};

const PAGE: &str = include_str!("../data/page.html");

/// What a page shows once its scripts have run.
async fn shown(url: String) -> String {
    tokio::task::spawn_blocking(move || {
        let profile = Folder::new(&format!("chromium-{}", fastrand::u64(..)));
        let output = Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--timeout=20000", "--virtual-time-budget=20000", "--dump-dom", &url])
            .output()
            .expect("chromium is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
    .await
    .expect("the browser ends")
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_page_of_another_origin_lists_filters_and_reads_executions_with_either_token_in_both_dialects() {
    let sdk =
        std::env::var("POSTERN_VENDOR_SDK").ok().map(|path| std::fs::read_to_string(path).expect("the SDK's file"));
    for dialect in ["documented", "v3"] {
        let given = sdk.clone();
        let page = http_upstream(move |request| {
            let (body, kind) = match request.uri().path() {
                "/sdk.js" => (given.clone().unwrap_or_default(), "text/javascript; charset=utf-8"),
                _ => (PAGE.to_owned(), "text/html; charset=utf-8"),
            };
            async move {
                let mut response = http::Response::new(Full::new(body.into()));
                response.headers_mut().insert("content-type", kind.parse().expect("a value"));
                response
            }
        })
        .await;
        let issuer = KeyServer::start(&[public(Algorithm::ES256, "k")]).await;
        let setup = Setup::default();
        let top = format!("dialect = \"{dialect}\"\n{}[cors]\norigins = [\"http://{page}\"]\n", setup.top);
        let tenant = setup.tenant.clone() + &issuer.lines("");
        let world: World = Setup { top, tenant, ..setup }.start().await;
        let jwt = sign(&header(Algorithm::ES256, "k"), &claims("globex"), &private(Algorithm::ES256));
        let tokens = [world.refold.session_token("globex"), jwt];
        let base_url = format!("http://{}", world.gateway.address);
        let asked = json!({ "baseUrl": base_url, "tokens": tokens }).to_string();
        let asked = percent_encoding::utf8_percent_encode(&asked, percent_encoding::NON_ALPHANUMERIC).to_string();
        let dom = shown(format!("http://{page}/#{asked}")).await;
        let text = dom.split("<pre id=\"out\">").nth(1).and_then(|rest| rest.split("</pre>").next()).unwrap_or(&dom);
        let seen: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {dom}"));
        let expected = json!({ "docs": 10, "errored": true, "some": true, "one": true, "refused": "INVALID_PARAMETER", "headers": true, "sdk": sdk.is_some() });
        assert_eq!(seen, json!([expected, expected]), "{dialect}");
    }
}
