//! The dashboard, the alert rules and the manifests in `deploy/`.

use std::collections::BTreeSet;
use std::path::Path;

use postern::observe::DECLARED;

/// The metrics that a text names, without the suffixes of a histogram's series.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("postern_"))
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
