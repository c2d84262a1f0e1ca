//! The status page in a real browser, on a phone and on a desk, light and dark. Needs Chromium, which `.ci/run` installs;
//! `cargo test -- --ignored` runs it. The pictures are in `target/status-page-*.png`.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use postern::clock::Clock;
use serde_json::json;

use crate::support::chromium::{Chromium, Tab, drive};
use crate::support::{ADMIN_TOKEN, Client, Configuration, EXECUTIONS, KEY, World};

/// Requests as dashboards poll them: more for some linked accounts, one with a wrong key and one with a wrong limit.
async fn load(gateway: Client) {
    let mut polls = tokio::time::interval(Duration::from_millis(100));
    for round in 0u64.. {
        polls.tick().await;
        for (account, questions) in [("acme-1", 9), ("globex", 5), ("initech", 3), ("acme-2", 1)] {
            for question in 0..questions {
                let page = if question == 0 { round } else { 1 + round % 3 };
                let query =
                    if account == "initech" && question == 0 { "limit=0".to_owned() } else { format!("page={page}") };
                let key = if account == "acme-2" && round % 5 == 0 { "pst_unknown" } else { KEY };
                let headers = [("x-api-key", key), ("linked_account_id", account)];
                if gateway.try_send(Method::GET, &format!("{EXECUTIONS}?{query}"), &headers).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn world(admin: fn(Configuration) -> Configuration) -> World {
    let limits = |_| Configuration::with_default_limits().max_wait("1s").client_limit(1000, 1000);
    World::builder().config(limits).config(admin).clock(Clock::system()).start().await
}

/// Asserts that the page is not wider than the device.
fn fits(tab: &mut Tab<'_>, width: u32) {
    let wide = tab.value("Math.max(document.documentElement.scrollWidth, innerWidth)");
    assert_eq!(wide, json!(width), "nothing sticks out");
}

/// Asserts that the page logs no error and requests nothing from elsewhere.
fn is_clean(tab: &Tab<'_>, admin: SocketAddr) {
    assert!(tab.complaints().is_empty(), "{:?}", tab.complaints());
    let own = format!("http://{admin}/");
    let requests = tab.requests();
    assert!(requests.len() > 5 && requests.iter().all(|url| url.starts_with(&own)), "{requests:?}");
    assert!(!requests.iter().any(|url| url.contains(KEY)), "no credential is in a URL: {requests:?}");
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_status_page_works_in_every_width_and_theme() {
    let world = world(Configuration::admin).await;
    let admin = world.gateway.admin_address();
    let polling = tokio::spawn(load((*world.gateway).clone()));
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

/// Asserts that the figures change without a reload of the page.
fn figures_change(tab: &mut Tab<'_>) {
    tab.until("document.querySelector('#verdict').textContent.startsWith('Ready')");
    tab.until("parseFloat(document.querySelector('#rate').textContent) > 5");
    tab.until("document.querySelectorAll('#busiest b').length >= 3");
    tab.until("parseFloat(document.querySelector('#ratio').textContent) > 10");
    tab.until("document.querySelectorAll('#errors summary').length >= 2");
    tab.until("document.querySelectorAll('#latencies .span').length === 2");
    let shown = tab.value("document.querySelector('#traffic-legend').textContent");
    let shape = tab.value("document.querySelector('#traffic-chart .cached').getAttribute('points')");
    tab.until(&format!("document.querySelector('#traffic-legend').textContent !== {shown}"));
    tab.until(&format!("document.querySelector('#traffic-chart .cached').getAttribute('points') !== {shape}"));
    assert_eq!(tab.value("document.querySelector('#busiest li span').textContent"), json!("acme-1"));
    assert_eq!(tab.value("document.querySelector('#errors .copy').dataset.id.length"), json!(36), "a request id");
}

/// Types a key and an account, picks a filter and sends the request; then turns the page.
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
        "all of them failed"
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
async fn the_explorer_shows_a_null_execution_as_an_empty_row() {
    let world = world(Configuration::admin).await;
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
async fn the_status_page_keeps_the_token_to_its_tab() {
    let world = world(Configuration::admin_with_token).await;
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
async fn the_status_page_shows_an_idle_and_a_stopped_gateway() {
    let world = world(Configuration::admin).await;
    let admin = world.gateway.admin_address();
    let (gone, is_gone) = std::sync::mpsc::channel::<World>();
    gone.send(world).expect("the receiver lives");
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
