//! The explorer in a real browser, with answers and credentials that are out of the ordinary. Needs Chromium, which `.ci/run`
//! installs; `cargo test -- --ignored` runs it.

use serde_json::{Value, json};

use crate::support::chromium::{Chromium, Tab, drive};
use crate::support::{Configuration, KEY, World};

/// Opens the explorer.
fn open(tab: &mut Tab<'_>, world: &World) {
    tab.open(&format!("http://{}/#explore", world.gateway.admin_address()));
    tab.until("document.querySelector('#verdict')?.textContent === 'Ready'");
    tab.until("!document.querySelector('#explore').hidden");
    tab.write("#credential", KEY);
}

fn send(tab: &mut Tab<'_>, shown: &str) {
    tab.click("#run");
    tab.until("document.querySelector('#run').textContent === 'Send'");
    tab.until(shown);
}

/// Answers the next requests of the explorer with this status and body.
fn fake(tab: &mut Tab<'_>, status: u16, body: &str) {
    let explored = format!(r#"{{"status":{status},"headers":[],"body":{body}}}"#);
    let faked = json!(explored);
    tab.value(&format!(
        "(() => {{ window.asked ??= fetch; window.fetch = async (path, how) => path.startsWith('/explore') ? new Response({faked}) : asked(path, how); }})()"
    ));
}

fn page_of(document: &Value) -> String {
    json!({ "docs": [document], "totalDocs": 1, "page": 1, "totalPages": 1, "pagingCounter": 1 }).to_string()
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_explorer_sends_credentials_in_utf_8() {
    let world = World::builder().config(Configuration::admin).start().await;
    drive(move || {
        let mut browser = Chromium::start();
        let mut tab = browser.tab(1440, "light");
        open(&mut tab, &world);
        for account in ["müller", "株式会社", "naïve 🦀"] {
            tab.write("#account", account);
            send(&mut tab, "document.querySelector('#canonical') || document.querySelector('#answer .pill')");
            let shown = tab.value("document.querySelector('#answer').innerText").to_string();
            assert!(shown.contains(&format!("linked account {account}")), "{account}: {shown}");
            assert!(tab.value("document.querySelector('#curl').textContent").to_string().contains(account));
        }
        for token in ["schlüssel", "鍵", "кл́юч"] {
            tab.write("#credential", token);
            send(&mut tab, "document.querySelector('#answer').textContent.includes('Invalid Credentials')");
        }
        // Those are the answers of the gateway; nothing failed in the page.
        assert!(tab.complaints().is_empty(), "{:?}", tab.complaints());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_explorer_reads_a_document_and_batches() {
    let world = World::builder().config(Configuration::admin).start().await;
    drive(move || {
        let mut browser = Chromium::start();
        let mut tab = browser.tab(360, "dark");
        open(&mut tab, &world);
        tab.write("#account", "acme-1");
        send(&mut tab, "document.querySelectorAll('#answer tbody button.open').length === 10");
        tab.click("#answer tbody button.open");
        tab.until("document.querySelector('#document')");
        let id = tab.value("document.querySelector('#q-execution').value");
        let id = id.as_str().expect("an id");
        let curl = tab.value("document.querySelector('#curl').textContent");
        let curl = curl.as_str().expect("a command");
        assert!(
            curl.contains(&format!("/api/v2/public/execution/{id}'")) && curl.contains("linked_account_id: acme-1")
        );
        assert!(!curl.contains(KEY), "the command can be shared: {curl}");
        tab.value("document.querySelector('#q-resource').focus()");
        tab.press("ArrowDown", 40);
        tab.until("!document.querySelector('#q-node').parentElement.hidden");
        tab.write("#q-node", "n 1");
        send(&mut tab, "document.querySelector('#canonical')?.textContent.includes('/batches?page=1')");
        let response = tab.value("document.querySelector('#response').textContent");
        assert!(response.as_str().is_some_and(|text| text.starts_with("HTTP 200\n")), "{response}");
        let wide = tab.value("Math.max(document.documentElement.scrollWidth, innerWidth)");
        assert_eq!(wide, json!(360));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Chromium"]
async fn the_explorer_stands_odd_documents() {
    let world = World::builder().config(Configuration::admin).start().await;
    drive(move || {
        let mut browser = Chromium::start();
        for width in [1440, 360] {
            let mut tab = browser.tab(width, "light");
            open(&mut tab, &world);
            tab.write("#account", "acme-1");
            for (date, shown) in [
                (json!("yesterday"), "yesterday"),
                (json!("2026-99-99"), "2026-99-99"),
                (json!({ "$date": 1 }), "{…}"),
                (json!(""), ""),
            ] {
                fake(&mut tab, 200, &page_of(&json!({ "name": "n", "createdAt": date })));
                send(&mut tab, "document.querySelector('#answer td.created')");
                assert_eq!(tab.value("document.querySelector('#answer td.created').textContent"), json!(shown));
            }
            let long = "X".repeat(10_000);
            for body in [
                page_of(
                    &json!({ "name": long, "status": long, "execution_source": long, "createdAt": long, "_id": long }),
                ),
                json!({ "error_code": long, "message": long }).to_string(),
            ] {
                for status in [200, 502] {
                    fake(&mut tab, status, &body);
                    send(&mut tab, "document.querySelector('#answer .pill')");
                    let wide = tab.value("Math.max(document.documentElement.scrollWidth, innerWidth)");
                    assert_eq!(wide, json!(width), "{status}");
                }
            }
            let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
            for body in [
                page_of(&json!({ "name": "n", "status": "DEEP" })).replace("\"DEEP\"", &deep),
                deep.clone(),
                "null".to_owned(),
                "{\"docs\":7}".to_owned(),
            ] {
                fake(&mut tab, 200, &body);
                send(&mut tab, "document.querySelector('#answer .pill.good')");
                let shown = tab.value("document.querySelector('#answer').innerText").to_string();
                assert!(!shown.contains("does not answer"), "{}", &shown[..shown.len().min(500)]);
            }
            assert!(tab.complaints().is_empty(), "{:?}", tab.complaints());
        }
    })
    .await;
}
