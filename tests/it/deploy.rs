//! What is deployed beside the program speaks of metrics that there are.

use std::collections::BTreeSet;
use std::path::Path;

fn read(file: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).ok()
}

/// The metrics that a text names, without the suffixes of a histogram's series.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("postern_"))
        .map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word))
        .collect()
}

#[test]
fn dashboard_and_alert_rules_name_only_metrics_that_are_declared() {
    let declared = read("src/observe/metrics.rs").expect("it is there");
    for file in ["deploy/grafana/dashboard.json", "deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts.test.yaml"]
    {
        let text = read(file).expect("it is there");
        let named = metrics(&text);
        assert!(named.len() > 3, "{file}: {named:?}");
        for name in named {
            assert!(declared.contains(&format!("\"{name}\"")), "{file}: {name} is declared nowhere");
        }
    }
}
