//! The metrics, as Prometheus reads them.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use postern::clock::Clock;
use postern::observe::DECLARED;

use crate::support::samples::{assert_samples, samples};
use crate::support::{
    ClientKey, EXECUTIONS, Issuer, KEY, ORG_KEY, ScriptedRefold, Tenant, World, as_account, refusal, signature,
};

/// A world after requests of every kind that the metrics tell apart.
async fn used() -> World {
    let keys = [ClientKey::new("all", KEY).expires("2036-01-01")];
    let builder = World::builder().client_keys(keys).config(|config| config.issuer(Issuer::with_secret()));
    let world = builder.tenant(Tenant::webhooks).start().await;
    let signature = signature(ORG_KEY, "{}");
    let delivered = world.gateway.post("/hooks/refold/t", &[("x-cobalt-signature", &signature)], "{}").await;
    assert_eq!(delivered.status, StatusCode::NO_CONTENT);
    for _ in 0..3 {
        assert_eq!(world.list("acme-1", "page=1").await.status, StatusCode::OK);
    }
    assert_eq!(world.list("acme-1", "page=0").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.gateway.get(EXECUTIONS, &[]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.gateway.get("/nothing", &[]).await.status, StatusCode::NOT_FOUND);
    let missing = world.gateway.get(&format!("{EXECUTIONS}/0123456789abcdef01234567"), &as_account("acme-1")).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    world
}

#[tokio::test]
async fn every_request_is_counted_by_its_outcome() {
    let world = used().await;
    let requests = |endpoint, tenant, outcome, cache| {
        format!(
            "postern_requests_total{{cache=\"{cache}\",endpoint=\"{endpoint}\",outcome=\"{outcome}\",tenant=\"{tenant}\"}}"
        )
    };
    assert_samples!(
        samples(&world.gateway),
        &requests("list", "t", "2xx", "miss") => 1.0,
        &requests("list", "t", "2xx", "hit") => 2.0,
        &requests("list", "t", "4xx", "none") => 1.0,
        &requests("list", "", "4xx", "none") => 1.0,
        &requests("other", "", "4xx", "none") => 1.0,
        &requests("document", "t", "4xx", "miss") => 1.0,
        "postern_errors_total{error_code=\"INVALID_PARAMETER\",tenant=\"t\"}" => 1.0,
        "postern_errors_total{error_code=\"NOT_FOUND\",tenant=\"\"}" => 1.0,
        // The body of the answer has Refold's code for it, SERVER_ERROR.
        "postern_errors_total{error_code=\"INVALID_CREDENTIALS\",tenant=\"\"}" => 1.0,
        // An error code of Refold's is not a label value.
        "postern_errors_total{error_code=\"UPSTREAM\",tenant=\"t\"}" => 1.0,
        "postern_request_duration_seconds_count{cache=\"hit\"}" => 2.0,
        "postern_request_duration_seconds_count{cache=\"miss\"}" => 2.0,
        "postern_request_duration_seconds_count{cache=\"other\"}" => 4.0,
        "postern_upstream_request_duration_seconds_count{outcome=\"2xx\",tenant=\"t\"}" => 1.0,
        "postern_upstream_request_duration_seconds_count{outcome=\"4xx\",tenant=\"t\"}" => 1.0,
        "postern_upstream_budget_granted_total{tenant=\"t\"}" => 2.0,
        "postern_upstream_budget_wait_seconds_count{tenant=\"t\",urgency=\"foreground\"}" => 2.0,
        "postern_upstream_budget_limit{tenant=\"t\"}" => 100_000.0,
        "postern_upstream_budget_pace_ratio{tenant=\"t\"}" => 1.0,
        "postern_upstream_in_flight" => 0.0,
        "postern_partitions{tenant=\"t\"}" => 1.0,
        "postern_tenant_ready{tenant=\"t\"}" => 1.0,
        "postern_config_last_reload_successful" => 1.0,
        // The clock of the test stands still.
        "postern_config_last_reload_success_timestamp_seconds" => 1_774_008_000.0,
        "postern_connections" => 1.0,
        "postern_cache_capacity_bytes" => f64::from(256 << 20),
        concat!("postern_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}") => 1.0,
    );
}

#[tokio::test]
async fn a_used_gateway_shows_exactly_the_declared_metrics() {
    let world = used().await;
    let samples = samples(&world.gateway);
    let mut expected = BTreeSet::new();
    // Those of a fleet are shown with one only.
    for declared in DECLARED.iter().filter(|declared| !declared.name.starts_with("postern_fleet_")) {
        match declared.kind {
            "histogram" => {
                expected.extend(["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", declared.name)));
            }
            _ => expected.extend([declared.name.to_owned()]),
        }
    }
    for needs_more in [
        "postern_certificate_expiry_timestamp_seconds",
        "postern_org_key_last_check_timestamp_seconds",
        "postern_renewal_errors_total",
    ] {
        assert!(expected.remove(needs_more));
    }
    assert_eq!(samples.names(), expected.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn durations_of_hits_have_buckets_of_their_own() {
    let text = used().await.gateway.metrics();
    for bound in ["0.000005", "0.00001", "0.000025", "0.00005"] {
        let bucket = format!("postern_request_duration_seconds_bucket{{cache=\"hit\",le=\"{bound}\"}} ");
        assert!(text.contains(&bucket), "{bound} in {text}");
    }
}

#[test]
fn the_documentation_lists_exactly_the_declared_metrics() {
    let row = |line: &str| {
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        (cells.len() == 6).then(|| [1, 2, 3, 4].map(|column| cells[column].clone()))
    };
    let documented: Vec<_> = include_str!("../../docs/observability.md")
        .lines()
        .filter(|line| line.starts_with("| `postern_") || line.starts_with("| `process_"))
        .map(|line| row(line).unwrap_or_else(|| panic!("{line}")))
        .collect();
    let declared: Vec<_> = DECLARED
        .iter()
        .map(|metric| [metric.name, metric.kind, &metric.labels.join(", "), metric.help].map(str::to_owned))
        .collect();
    assert_eq!(documented, declared);
}

#[tokio::test]
async fn retries_failures_and_the_circuit_are_counted() {
    let refold = ScriptedRefold::start().await;
    refold.answer_with(502);
    let builder = World::builder().refold(refold).clock(Clock::system());
    let limits = builder.config(|config| config.retries(1).set("upstream.breaker.failures", 2));
    let gateway = limits.start().await.gateway;
    let ask = async |page: u32| gateway.list("acme-1", &format!("page={page}")).await.status;
    assert_eq!(ask(1).await, StatusCode::BAD_GATEWAY);
    assert_eq!(ask(2).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_samples!(
        samples(&gateway),
        "postern_upstream_retries_total{tenant=\"t\"}" => 1.0,
        "postern_upstream_request_duration_seconds_count{outcome=\"5xx\",tenant=\"t\"}" => 2.0,
        "postern_upstream_circuit_open{tenant=\"t\"}" => 1.0,
        "postern_upstream_circuit_opened_total{tenant=\"t\"}" => 1.0,
        "postern_errors_total{error_code=\"UPSTREAM_CIRCUIT_OPEN\",tenant=\"t\"}" => 1.0,
    );
}

#[tokio::test]
async fn every_upstream_error_is_counted_as_the_upstreams() {
    let refold = ScriptedRefold::start().await;
    let world = World::builder().refold(refold).start().await;
    // 499 and 599 are not registered; none of the bodies has an error code.
    for (page, code) in [(1, 499), (2, 599), (3, 404)] {
        world.refold.answer_with(code);
        let answer = world.list("acme-1", &format!("page={page}")).await;
        assert_eq!(answer.status.as_u16(), code);
    }
    let samples = samples(&world.gateway);
    assert_samples!(&samples, "postern_errors_total{error_code=\"UPSTREAM\",tenant=\"t\"}" => 3.0);
    let labels = samples.of_metric("postern_errors_total");
    assert_eq!(labels.len(), 1, "{labels:?}");
}

#[tokio::test]
async fn every_refused_attempt_is_counted_and_leaves_the_tenant_ready() {
    let refold = ScriptedRefold::start().await;
    refold.answer_with(401);
    let builder = World::builder().refold(refold);
    let gateway = builder.tenant(|tenant| tenant.org_key_next("NEXT_ORG_KEY")).start().await.gateway;
    gateway.get(EXECUTIONS, &[("authorization", "Bearer made-up")]).await;
    assert_eq!(gateway.get(EXECUTIONS, &as_account("acme-1")).await.error_code(), "UPSTREAM_CREDENTIAL_REJECTED");
    assert_samples!(
        samples(&gateway),
        "postern_tenant_ready{tenant=\"t\"}" => 1.0,
        // Both keys, and the token.
        "postern_upstream_request_duration_seconds_count{outcome=\"401\",tenant=\"t\"}" => 3.0,
    );
}

#[tokio::test]
async fn refusals_of_the_upstream_budget_and_webhooks_are_counted() {
    let builder = World::builder().config(|config| config.upstream_limit(1, 1).max_wait("0s"));
    let world = builder.tenant(Tenant::webhooks).start().await;
    assert_eq!(world.list("acme-1", "page=1").await.status, StatusCode::OK);
    assert_eq!(world.list("acme-1", "page=2").await.status, StatusCode::TOO_MANY_REQUESTS);
    let refused = world.gateway.post("/hooks/refold/t", &[("x-cobalt-signature", "00")], "{}").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_samples!(
        samples(&world.gateway),
        "postern_upstream_budget_granted_total{tenant=\"t\"}" => 1.0,
        "postern_upstream_budget_refused_total{tenant=\"t\",urgency=\"foreground\"}" => 1.0,
        "postern_upstream_budget_waiting{tenant=\"t\"}" => 0.0,
        "postern_webhooks_total{outcome=\"refused\",tenant=\"t\"}" => 1.0,
        "postern_webhooks_total{outcome=\"taken\",tenant=\"t\"}" => 0.0,
    );
}

#[tokio::test]
async fn evicted_entries_are_counted() {
    let world = World::builder().config(|config| config.set("cache.capacity", "16KiB")).start().await;
    for page in 1..=20 {
        assert_eq!(world.list("acme-1", &format!("page={page}")).await.status, StatusCode::OK);
    }
    let samples = samples(&world.gateway);
    assert!(samples.get("postern_cache_evictions_total") >= 10.0);
    assert!(samples.get("postern_cache_entries") > 0.0 && samples.get("postern_cache_bytes") <= 16384.0);
}

#[tokio::test]
async fn a_derived_page_is_counted_as_quick_as_a_hit() {
    let world = World::builder().config(|config| config.derive("trusted")).start().await;
    assert_eq!(world.list("umbrella@example.com", "").await.status, StatusCode::OK);
    assert_eq!(world.list("umbrella@example.com", "status=ERRORED").await.status, StatusCode::OK);
    assert_samples!(
        samples(&world.gateway),
        "postern_requests_total{cache=\"miss\",endpoint=\"list\",outcome=\"2xx\",tenant=\"t\"}" => 1.0,
        "postern_requests_total{cache=\"derived\",endpoint=\"list\",outcome=\"2xx\",tenant=\"t\"}" => 1.0,
        "postern_request_duration_seconds_count{cache=\"hit\"}" => 1.0,
        "postern_upstream_budget_granted_total{tenant=\"t\"}" => 1.0,
    );
}

#[tokio::test]
async fn reloads_are_counted_and_keep_the_other_counters() {
    let world = World::start().await;
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(1));
    world.gateway.reload(&world.config());
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    assert_samples!(
        samples(&world.gateway),
        "postern_requests_total{cache=\"miss\",endpoint=\"list\",outcome=\"2xx\",tenant=\"t\"}" => 1.0,
        "postern_requests_total{cache=\"hit\",endpoint=\"list\",outcome=\"2xx\",tenant=\"t\"}" => 1.0,
        "postern_connections" => 1.0,
        "postern_config_reloads_total{outcome=\"succeeded\"}" => 1.0,
        "postern_config_reloads_total{outcome=\"refused\"}" => 0.0,
        "postern_config_last_reload_successful" => 1.0,
        "postern_config_last_reload_success_timestamp_seconds" => 1_774_008_001.0,
    );
    world.clock.advance(Duration::from_secs(1));
    world.gateway.server().refuse_reload(&refusal("[x]"));
    assert_samples!(
        samples(&world.gateway),
        "postern_config_reloads_total{outcome=\"succeeded\"}" => 1.0,
        "postern_config_reloads_total{outcome=\"refused\"}" => 1.0,
        "postern_config_last_reload_successful" => 0.0,
        "postern_config_last_reload_success_timestamp_seconds" => 1_774_008_001.0,
    );
}

#[tokio::test]
async fn no_label_contains_a_made_up_value() {
    let world = World::start().await;
    world.gateway.get("/made-up-path", &[]).await;
    world.gateway.send(Method::from_bytes(b"MADEUP").expect("a token"), EXECUTIONS, &as_account("made-up")).await;
    world.gateway.get(EXECUTIONS, &[("x-api-key", "made-up-key"), ("linked_account_id", "made-up")]).await;
    world.gateway.post("/hooks/refold/made-up", &[], "{}").await;
    let text = world.gateway.metrics();
    assert!(!text.contains("made-up") && !text.contains("MADEUP") && !text.contains(KEY), "{text}");
}

#[tokio::test]
#[ignore = "needs Prometheus' promtool"]
async fn promtool_accepts_the_metrics() {
    let world = used().await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed");
    let text = world.gateway.metrics();
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
