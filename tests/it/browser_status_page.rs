//! The status page in a real browser, on a phone and on a desk, light and dark. Needs Chromium, which `.ci/run` installs;
//! `cargo test -- --ignored` runs it. The pictures are in `target/status-page-*.png`.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use postern::clock::Clock;
use serde_json::json;

use crate::chromium::{Chromium, Tab};
use crate::harness::{ADMIN, ADMIN_TOKEN, EXECUTIONS, KEY, Setup, World};

/// Dashboards that poll, some more than others, one of them with a wrong key and one with a wrong limit.
async fn load(gateway: SocketAddr) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    for round in 0u64.. {
        for (account, questions) in [("acme-1", 9), ("globex", 5), ("initech", 3), ("acme-2", 1)] {
            for question in 0..questions {
                let page = if question == 0 { round } else { 1 + round % 3 };
                let query =
                    if account == "initech" && question == 0 { "limit=0".to_owned() } else { format!("page={page}") };
                let key = if account == "acme-2" && round % 5 == 0 { "pst_nobody" } else { KEY };
                let request = Request::get(format!("http://{gateway}{EXECUTIONS}?{query}"))
                    .header("x-api-key", key)
                    .header("linked_account_id", account)
                    .body(Full::default())
                    .expect("a request");
                let Ok(answer) = client.request(request).await else { return };
                let _ = answer.into_body().collect().await;
            }
        }
        // Polls have pauses; the page is what is waited for, by its figures.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn world(admin: &str) -> World {
    let setup = Setup::default();
    let top =
        format!("[limits.upstream]\nmax_wait = \"1s\"\n[limits.client]\nper_second = 1000\nburst = 1000\n{admin}");
    Setup { top, clock: Clock::system(), ..setup }.start().await
}

/// Runs what blocks while the world goes on.
async fn drive(script: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(script).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
}

/// A page that is wider than the device makes the browser show more than the device is wide.
fn fits(tab: &mut Tab<'_>, width: u32) {
    let wide = tab.value("Math.max(document.documentElement.scrollWidth, innerWidth)");
    assert_eq!(wide, json!(width), "nothing sticks out");
}

fn is_clean(tab: &Tab<'_>, admin: SocketAddr) {
    assert!(tab.complaints().is_empty(), "{:?}", tab.complaints());
    let own = format!("http://{admin}/");
    let requests = tab.requests();
    assert!(requests.len() > 5 && requests.iter().all(|url| url.starts_with(&own)), "{requests:?}");
    assert!(!requests.iter().any(|url| url.contains(KEY)), "no credential is in a URL: {requests:?}");
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_status_page_is_live_and_explores_on_a_phone_and_on_a_desk_light_and_dark() {
    let world = world(ADMIN).await;
    let admin = world.gateway.admin_address();
    let polling = tokio::spawn(load(world.gateway.address));
    drive(move || {
        let mut browser = Chromium::start();
        for width in [1440, 360] {
            for theme in ["light", "dark"] {
                let mut tab = browser.tab(width, theme);
                tab.open(&format!("http://{admin}/"));
                figures_change(&mut tab);
                fits(&mut tab, width);
                tab.screenshot(&format!("status-page-{width}-{theme}.png"));
                explore(&mut tab);
                fits(&mut tab, width);
                tab.screenshot(&format!("status-page-explorer-{width}-{theme}.png"));
                let dark = tab.value("matchMedia('(prefers-color-scheme: dark)').matches && getComputedStyle(document.body).backgroundColor");
                assert_eq!(dark.is_string(), theme == "dark");
                is_clean(&tab, admin);
            }
        }
    })
    .await;
    polling.abort();
}

/// Nobody reloads the page, and what it shows is another thing from one look to the next.
fn figures_change(tab: &mut Tab<'_>) {
    tab.until("document.querySelector('#verdict').textContent.startsWith('Ready')");
    tab.until("parseFloat(document.querySelector('#rate').textContent) > 5");
    tab.until("document.querySelectorAll('#busiest b').length >= 3");
    tab.until("parseFloat(document.querySelector('#ratio').textContent) > 10");
    tab.until("document.querySelectorAll('#errors tbody tr').length > 3");
    tab.until("document.querySelectorAll('#latencies .span').length === 2");
    let shown = tab.value("document.querySelector('#traffic-legend').textContent");
    let shape = tab.value("document.querySelector('#traffic-chart .cached').getAttribute('points')");
    tab.until(&format!("document.querySelector('#traffic-legend').textContent !== {shown}"));
    tab.until(&format!("document.querySelector('#traffic-chart .cached').getAttribute('points') !== {shape}"));
    assert_eq!(tab.value("document.querySelector('#busiest li span').textContent"), json!("acme-1"));
    assert_eq!(tab.value("document.querySelector('#errors .copy').dataset.id.length"), json!(36), "a request id");
}

/// A person types a key and an account, picks a filter, and asks; then turns the page.
fn explore(tab: &mut Tab<'_>) {
    tab.click("nav a[data-view=explore]");
    tab.until("!document.querySelector('#explore').hidden && document.querySelector('#status').hidden");
    tab.write("#credential", KEY);
    tab.write("#account", "whale");
    tab.write("#q-limit", "5");
    tab.value("document.querySelector('#q-status').focus()");
    tab.press("ArrowDown", 40);
    tab.press("ArrowDown", 40);
    tab.click("#run");
    tab.until("document.querySelectorAll('#answer table.executions tbody tr').length === 5");
    let canonical = tab.value("document.querySelector('#canonical').textContent");
    assert_eq!(canonical, json!("/api/v2/public/execution?page=1&limit=5&status=ERRORED"));
    assert_eq!(
        tab.value("document.querySelectorAll('#answer td.status .pill.bad').length"),
        json!(5),
        "they all have failed"
    );
    let headers = tab.value("document.querySelector('.headers').innerText");
    let headers = headers.as_str().expect("a text");
    for name in ["cache-status", "age", "etag", "ratelimit", "Refold gave this answer", "more requests may follow"] {
        assert!(headers.contains(name), "{name}: {headers}");
    }
    // With the keyboard alone, another page and a wrong limit.
    tab.write("#q-page", "2");
    tab.press("Enter", 13);
    tab.until("document.querySelector('#canonical')?.textContent.includes('page=2')");
    tab.write("#q-limit", "500");
    tab.press("Enter", 13);
    tab.until("document.querySelector('#answer').textContent.includes('INVALID_PARAMETER')");
    tab.write("#q-limit", "5");
    tab.press("Enter", 13);
    tab.until("document.querySelectorAll('#answer table.executions tbody tr').length === 5");
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_explorer_shows_an_execution_that_is_null_as_an_empty_row() {
    let world = world(ADMIN).await;
    let admin = world.gateway.admin_address();
    drive(move || {
        let mut browser = Chromium::start();
        let mut tab = browser.tab(1440, "light");
        tab.open(&format!("http://{admin}/"));
        tab.until("document.querySelector('#verdict')?.textContent === 'Ready'");
        let body =
            json!({ "docs": [null, { "name": "b" }], "totalDocs": 2, "page": 1, "totalPages": 1, "pagingCounter": 1 });
        let explored = json!({ "status": 200, "headers": [], "body": body });
        let faked = format!("path.startsWith('/explore') ? Response.json({explored}) : asked(path, how)");
        tab.value(&format!("(() => {{ const asked = fetch; window.fetch = async (path, how) => {faked}; }})()"));
        tab.click("nav a[data-view=explore]");
        tab.until("!document.querySelector('#explore').hidden");
        tab.write("#credential", KEY);
        tab.write("#account", "whale");
        tab.click("#run");
        tab.until("document.querySelectorAll('#answer table.executions tbody tr').length === 2");
        let first = tab.value("document.querySelector('#answer table.executions tbody tr').textContent");
        assert_eq!(first, json!("–––––"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_status_page_asks_for_the_token_and_keeps_it_to_the_tab() {
    let world = world("[admin]\naddress = \"127.0.0.1:0\"\ntoken = { env = \"ADMIN_TOKEN\" }\n").await;
    let admin = world.gateway.admin_address();
    drive(move || {
        let mut browser = Chromium::start();
        let mut tab = browser.tab(360, "light");
        tab.open(&format!("http://{admin}/"));
        tab.until("!document.querySelector('#token').hidden && document.querySelector('#status').hidden");
        tab.screenshot("status-page-token-360-light.png");
        tab.write("#token-value", "not the token");
        tab.press("Enter", 13);
        tab.until("document.querySelector('#token-wrong').textContent !== ''");
        tab.write("#token-value", ADMIN_TOKEN);
        tab.press("Enter", 13);
        tab.until(
            "document.querySelector('#token').hidden && document.querySelector('#verdict').textContent === 'Ready'",
        );
        assert_eq!(tab.value("Object.keys(localStorage).length + document.cookie.length"), json!(1), "the theme alone");
        assert!(!tab.requests().iter().any(|url| url.contains(ADMIN_TOKEN)));
        fits(&mut tab, 360);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_status_page_says_so_when_the_gateway_is_gone_and_when_there_is_nothing_to_show() {
    let world = world(ADMIN).await;
    let admin = world.gateway.admin_address();
    let (gone, is_gone) = std::sync::mpsc::channel::<World>();
    gone.send(world).expect("somebody takes it");
    drive(move || {
        let mut browser = Chromium::start();
        let mut tab = browser.tab(1440, "light");
        tab.open(&format!("http://{admin}/"));
        tab.until("!document.querySelector('#traffic-empty').hidden");
        tab.until("document.querySelector('#errors').textContent.startsWith('None')");
        tab.screenshot("status-page-empty-1440-light.png");
        drop(is_gone.recv());
        tab.until("document.querySelector('#verdict').textContent === 'No answer'");
        tab.until("document.querySelector('#notices').textContent.includes('does not answer')");
    })
    .await;
}
