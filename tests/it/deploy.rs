//! The dashboard, the alert rules and the manifests in `deploy/`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use postern::observe::DECLARED;

use crate::documents::{anchor, page};
use crate::support::connection::{get, raw};
use crate::support::{EXECUTIONS, Folder, Process, World, command, postern, run_to_end};

/// The metrics that a text names, without the suffixes of a histogram's series.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("postern_") || word.starts_with("process_"))
        .map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word))
        .collect()
}

#[test]
fn dashboard_and_alert_rules_name_only_declared_metrics() {
    let declared: BTreeSet<_> = DECLARED.iter().map(|metric| metric.name).collect();
    for file in ["deploy/grafana/dashboard.json", "deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts.test.yaml"]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).expect("the file is there");
        let named = metrics(&text);
        assert!(named.len() > 3, "{file}: {named:?}");
        for name in named {
            assert!(declared.contains(name), "{file}: {name} is not declared");
        }
    }
}

#[test]
fn every_alert_links_to_its_section() {
    let rules = read("deploy/prometheus/alerts.yaml");
    let incidents = page("docs/incidents.md");
    let sections: BTreeSet<String> = incidents
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| format!("#{}", anchor(heading)))
        .collect();
    let url = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/incidents.md");
    let links: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert_eq!(links.len(), rules.matches("- alert: ").count());
    let linked: BTreeSet<String> =
        links.iter().map(|link| link.strip_prefix(url).unwrap_or_else(|| panic!("{link}")).to_owned()).collect();
    assert_eq!(linked, sections, "each section has its alert, and each alert its section");
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the file is there")
}

/// The part of a text between two marks.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).unwrap_or_else(|| panic!("no {before}")).0
}

/// The samples that count requests, errors and refusals.
async fn counts(admin: SocketAddr, token: &str) -> Vec<String> {
    let request = get("/metrics", &format!("Connection: close\r\nAuthorization: Bearer {token}\r\n"));
    let metrics = raw(admin, request.as_bytes()).await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    let counters = ["postern_requests_total", "postern_errors_total", "postern_refused_credentials_total"];
    let counted = metrics.lines().filter(|line| counters.iter().any(|name| line.starts_with(name)));
    counted.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_configuration_of_the_compose_demo_serves_its_traffic() {
    let compose = read("deploy/compose.demo.yaml");
    let (org_key, token) = (between(&compose, "REFOLD_ORG_KEY: ", "\n"), between(&compose, "DEMO_ADMIN_TOKEN: ", "\n"));
    assert!(compose.contains(&format!("\"--org-key\", \"{org_key}\"]")), "Refold accepts the gateway's org key");
    assert!(
        read("deploy/demo/prometheus.yaml").contains(&format!("credentials: {token}\n")),
        "Prometheus has the token"
    );
    let world = World::builder().simulator(|settings| settings.org_keys = vec![org_key.to_owned()]).start().await;
    let refold = world.refold_address().to_string();
    let loopback =
        read("deploy/demo/postern.toml").replace("refold:9090", &refold).replace("0.0.0.0:8080", "127.0.0.1:0");
    let folder = Folder::new();
    let file = folder.write("postern.toml", loopback.replace("0.0.0.0:9180", "127.0.0.1:0"));
    let mut command = command(&file);
    command.env("REFOLD_ORG_KEY", org_key).env("DEMO_ADMIN_TOKEN", token);
    let mut gateway = Process::run(command).await;
    let admin = gateway.admin_address().await;
    let key = between(&compose, "x-api-key: ", "\"");
    let accounts = between(&compose, "for account in ", ";").split(' ');
    let queries: Vec<&str> =
        between(&compose, "for query in ", ";").split(' ').map(|query| query.trim_matches('"')).collect();
    let mut sent = 0;
    for account in accounts {
        for query in &queries {
            sent += 1;
            let lines = format!("Connection: close\r\nx-api-key: {key}\r\nlinked_account_id: {account}\r\n");
            let answer = raw(gateway.address(), get(&format!("{EXECUTIONS}{query}"), &lines).as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{account}{query}: {answer}");
        }
    }
    let before = counts(admin, token).await;
    assert!(!before.is_empty());
    let probe = read("Dockerfile");
    let probe: Vec<String> = serde_json::from_str(between(&probe, "start-period=2s CMD ", "\n")).expect("a JSON array");
    let (program, arguments) = probe.split_first().expect("a command");
    assert!(program.ends_with("/postern"), "{program}");
    let at = |argument: &String| argument.replace("127.0.0.1:9180", &admin.to_string());
    let probed = run_to_end(postern().args(arguments.iter().map(at)));
    assert!(probed.status.success(), "{}", String::from_utf8_lossy(&probed.stderr));
    assert_eq!(counts(admin, token).await, before, "a probe is not counted");
    let ended = gateway.terminate().await;
    assert!(ended.status.success());
    let requests = ended.log.iter().filter(|line| line.contains("\"postern::access\"")).count();
    assert_eq!(requests, sent, "a probe is not logged");
}
