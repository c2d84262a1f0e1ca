//! The status page under axe-core: no violation, idle, under load and in an incident. Needs Chromium, which `.ci/run` installs,
//! and npm; `cargo test -- --ignored` runs it. The pictures are in `target/status-page-*.png`.

use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use crate::support::chromium::{Chromium, Tab, drive};
use crate::support::{Client, ClientKey, Configuration, EXECUTIONS, KEY, Tenant, World};

const AXE: &str = "axe-core@4.14.1";

/// The script of axe-core, which npm installs below `target/`.
fn axe() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = Command::new(root.join(".ci/npm-tools")).arg(AXE).output().expect("a shell");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let programs = String::from_utf8(installed.stdout).expect("a path");
    let script = Path::new(programs.trim()).with_file_name("axe-core/axe.min.js");
    std::fs::read_to_string(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()))
}

/// Asserts that axe-core finds nothing.
fn is_accessible(tab: &mut Tab<'_>, axe: &str, place: &str) {
    tab.value(&format!("window.axe ? null : (() => {{ {axe}\n }})()"));
    let found = tab.value(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations.map((one) => ({ id: one.id, nodes: one.nodes.map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`).slice(0, 3) })))",
    );
    assert_eq!(found, json!([]), "{place}");
}

fn fits(tab: &mut Tab<'_>, width: u32, place: &str) {
    let wide = tab.value("Math.max(document.documentElement.scrollWidth, innerWidth)");
    assert_eq!(wide, json!(width), "{place}: nothing sticks out");
}

/// Visits the three views of the page in all widths and themes.
fn visit(browser: &mut Chromium, world: &World, state: &str, ready: &str) {
    let admin = world.gateway.admin_address();
    let axe = axe();
    for width in [1440, 360] {
        for theme in ["light", "dark"] {
            let mut tab = browser.tab(width, theme);
            let place = format!("{state}, {width}, {theme}");
            tab.open(&format!("http://{admin}/"));
            tab.until("document.title.startsWith('Postern on ') && document.querySelector('#host').textContent");
            tab.until(ready);
            is_accessible(&mut tab, &axe, &place);
            fits(&mut tab, width, &place);
            tab.screenshot(&format!("status-page-{state}-{width}-{theme}.png"));
            tab.value("location.hash = '#explore'");
            tab.until("!document.querySelector('#explore').hidden");
            tab.write("#credential", KEY);
            tab.write("#account", "acme-1");
            tab.click("#run");
            tab.until("document.querySelector('#response')");
            is_accessible(&mut tab, &axe, &format!("explorer, {place}"));
            fits(&mut tab, width, &place);
            tab.screenshot(&format!("status-page-{state}-explorer-{width}-{theme}.png"));
            tab.value("location.hash = '#config'");
            // Each client key has a card of its own.
            tab.until("[...document.querySelectorAll('#config-tables h2')].filter((title) => title.textContent === '[[tenants.client_keys]]').length === 4");
            is_accessible(&mut tab, &axe, &format!("configuration, {place}"));
            fits(&mut tab, width, &place);
            tab.screenshot(&format!("status-page-{state}-config-{width}-{theme}.png"));
            let own = format!("http://{admin}/");
            assert!(tab.complaints().is_empty(), "{place}: {:?}", tab.complaints());
            assert!(tab.requests().iter().all(|url| url.starts_with(&own)), "{:?}", tab.requests());
        }
    }
}

async fn world() -> World {
    let keys = [
        ClientKey::new("dashboard", KEY),
        ClientKey::new("nightly-batch", "pst_batch").limit(1, 2),
        ClientKey::new("old-app", "pst_old").expires("2020-01-01"),
    ];
    let other = Tenant::new("other").org_key("OTHER_ORG_KEY").client_key(ClientKey::new("elsewhere", "pst_elsewhere"));
    let config = |config: Configuration| {
        let tenants = [Tenant::new("t").client_keys(keys), other];
        config.admin().tenants(tenants).client_limit(1000, 1000).breaker(3, "60s").retries(0)
    };
    World::builder().config(config).start().await
}

async fn send(gateway: &Client, rounds: u32) {
    for round in 0..rounds {
        for (account, key, query) in [
            ("acme-1", KEY, format!("page={}", 1 + round % 3)),
            ("globex", KEY, "page=1".to_owned()),
            ("globex", "pst_batch", "page=2".to_owned()),
            ("initech", KEY, "limit=0".to_owned()),
            ("acme-1", "pst_old", String::new()),
            ("acme-1", "pst_unknown", String::new()),
        ] {
            let headers = [("x-api-key", key), ("linked_account_id", account)];
            let target = format!("{EXECUTIONS}?{query}");
            gateway.try_send(Method::GET, &target, &headers).await.expect("an answer");
        }
    }
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn an_idle_status_page_is_accessible() {
    let world = world().await;
    drive(move || visit(&mut Chromium::start(), &world, "idle", "document.querySelector('#keys tbody')")).await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_status_page_under_load_is_accessible() {
    let world = world().await;
    send(&world.gateway, 12).await;
    world.clock.advance(std::time::Duration::from_secs(1));
    drive(move || {
        visit(&mut Chromium::start(), &world, "load", "document.querySelectorAll('#errors summary').length > 2");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn a_status_page_in_an_incident_is_accessible() {
    let world = world().await;
    send(&world.gateway, 6).await;
    world.gateway.reload(&world.config().set("cache.freshness.recent", "9s"));
    let json = ("content-type", "application/json");
    world.gateway.admin_post("/purge", &[json], r#"{"all":true}"#).await;
    world.refold.set_fault(Some("status=503".parse().expect("a fault")));
    for account in ["acme-1", "globex", "initech", "umbrella", "hooli"] {
        world.list(account, "page=7").await;
    }
    world.clock.advance(std::time::Duration::from_secs(1));
    drive(move || {
        let mut browser = Chromium::start();
        let failed = "document.querySelectorAll('#errors .failed summary').length > 0 && document.querySelectorAll('#events li').length === 3";
        visit(&mut browser, &world, "incident", failed);
        with_the_keyboard(&mut browser.tab(1440, "light"), &world);
    })
    .await;
}

/// Finds the cause of the incident, narrows the page to a tenant and purges an account with the keyboard alone.
fn with_the_keyboard(tab: &mut Tab<'_>, world: &World) {
    tab.open(&format!("http://{}/", world.gateway.admin_address()));
    tab.until("document.querySelector('#errors .failed summary') && !document.querySelector('#filter').hidden");
    let focus = |tab: &mut Tab<'_>, selector: &str| {
        for _ in 0..60 {
            tab.press("Tab", 9);
            if tab.value(&format!("document.activeElement.matches({selector:?})")) == json!(true) {
                return;
            }
        }
        panic!("Tab does not lead to {selector}");
    };
    focus(tab, "#tenant");
    tab.press("ArrowDown", 40);
    tab.press("ArrowDown", 40);
    tab.until("document.querySelectorAll('#states li').length === 3 && document.querySelector('#keys tbody').rows.length === 1");
    tab.press("ArrowUp", 38);
    tab.until("document.querySelector('#keys tbody').rows.length === 3");
    focus(tab, "#purge-account");
    for letter in "acme-1".chars() {
        tab.letter(letter);
    }
    tab.press("Enter", 13);
    tab.until("document.querySelector('#purged').textContent === 'The cached answers of acme-1 are dropped.'");
    focus(tab, "#errors .failed summary");
    tab.press("Enter", 13);
    tab.until("document.querySelector('#errors .failed details').open");
    focus(tab, "#errors .failed .copy");
    let details = tab.value("document.querySelector('#errors .failed .single').innerText");
    assert_ne!(details, Value::Null);
    focus(tab, "#events summary");
    tab.press("Enter", 13);
    tab.until("document.querySelector('#events pre').checkVisibility()");
    let changes = tab.value("document.querySelector('#events pre').textContent");
    assert!(changes.as_str().is_some_and(|text| text.contains("recent")), "{changes}");
}
