//! The export of spans: batches, retries, dropped spans, and the variables of OpenTelemetry.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::support::collector::{Collector, CollectorAnswer, named};
use crate::support::tls::{data, in_front_of};
use crate::support::{
    Client, Configuration, EXECUTIONS, Folder, JWT_SECRET, Process, World, as_account, postern, read_head, run_to_end,
    spawn_upstream, until,
};

/// A delay that no test waits for, in milliseconds.
const NEVER: &str = "600000";

/// A world whose requests are all traced.
async fn traced(collector: &Collector, change: impl FnOnce(Configuration) -> Configuration) -> World {
    World::builder().config(|config| change(collector.traces(config, 1))).start().await
}

/// Sends a request that is refused, so that its trace has one span.
async fn refused(world: &World) {
    assert_eq!(world.gateway.get(EXECUTIONS, &[]).await.status, StatusCode::UNAUTHORIZED);
}

/// Waits until so many spans have been dropped.
async fn until_dropped(world: &World, spans: u32) {
    until(|| world.gateway.metrics().contains(&format!("postern_spans_dropped_total {spans}\n"))).await;
}

#[tokio::test]
async fn a_collector_added_by_a_reload_receives_the_next_request() {
    let world = World::start().await;
    let collector = Collector::start().await;
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    world.gateway.reload(&collector.traces(world.config(), 1));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    assert_eq!(collector.spans(1).await[0].attribute("postern.cache").as_deref(), Some("hit"));
}

#[tokio::test]
async fn spans_from_before_a_reload_reach_the_previous_collector() {
    let (earlier, later) = (Collector::start().await, Collector::start().await);
    let world = traced(&earlier, |config| config.variable("OTEL_BSP_SCHEDULE_DELAY", NEVER)).await;
    refused(&world).await;
    world.gateway.reload(&later.traces(world.config(), 1));
    earlier.spans(1).await;
    assert!(later.accepted().is_empty());
}

#[tokio::test]
async fn spans_are_sent_again_after_429_and_503() {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let collector = Collector::start().await;
        let world = traced(&collector, |config| config).await;
        collector.answer_next(CollectorAnswer::RetryAfter(status, "1"));
        refused(&world).await;
        collector.spans(1).await;
        assert_eq!(collector.headers().len(), 2, "{status}");
        until_dropped(&world, 0).await;
    }
}

#[tokio::test]
async fn spans_that_would_wait_longer_than_an_export_are_dropped() {
    let collector = Collector::start().await;
    let world = traced(&collector, |config| config).await;
    collector.answer_next(CollectorAnswer::RetryAfter(StatusCode::SERVICE_UNAVAILABLE, "3600"));
    refused(&world).await;
    until_dropped(&world, 1).await;
    refused(&world).await;
    collector.spans(1).await;
}

#[tokio::test]
async fn spans_that_no_collector_takes_are_counted() {
    let collector = Collector::start().await;
    let world = traced(&collector, |config| config.set("traces.endpoint", "http://127.0.0.1:1")).await;
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    until_dropped(&world, 4).await;
}

#[tokio::test]
async fn spans_that_the_collector_rejects_are_counted_and_no_others() {
    let collector = Collector::start().await;
    let world = traced(&collector, |config| config).await;
    // Each request makes a batch of one span.
    for (request, (rejected, dropped)) in [(2, 1), (-3, 1), (0, 1), (1, 2)].into_iter().enumerate() {
        collector.answer_next(CollectorAnswer::Rejects(rejected));
        refused(&world).await;
        collector.spans(request + 1).await;
        until_dropped(&world, dropped).await;
    }
}

#[tokio::test]
async fn spans_for_which_the_queue_has_no_place_are_counted() {
    let collector = Collector::start().await;
    let world = traced(&collector, |config| {
        config
            .variable("OTEL_BSP_SCHEDULE_DELAY", NEVER)
            .variable("OTEL_BSP_MAX_QUEUE_SIZE", "2")
            .variable("OTEL_EXPORTER_OTLP_TIMEOUT", NEVER)
    })
    .await;
    collector.hold();
    // A batch is as large as the queue. One is under way, and two spans wait.
    for _ in 0..2 {
        refused(&world).await;
    }
    until(|| collector.headers().len() == 1).await;
    for _ in 0..5 {
        refused(&world).await;
    }
    until_dropped(&world, 3).await;
    collector.release();
    collector.spans(4).await;
}

#[tokio::test]
async fn the_environment_names_a_collector() {
    let (all_signals, spans) = (Collector::start().await, Collector::start().await);
    let configuration = |config: Configuration| {
        let config = config.set("traces.sample", 1);
        config.variable("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", all_signals.address()))
    };
    let world = World::builder().config(configuration).start().await;
    refused(&world).await;
    all_signals.spans(1).await;
    // The variable for spans comes first, and has the whole path.
    let of_spans = format!("http://{}/v1/traces", spans.address());
    let config = world.config().variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", of_spans);
    world.gateway.reload(&config);
    refused(&world).await;
    spans.spans(1).await;
    // The file comes before both.
    let of_file = Collector::start().await;
    world.gateway.reload(&of_file.traces(config.clone(), 1));
    refused(&world).await;
    of_file.spans(1).await;
    for (name, value) in [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")] {
        let off = config.clone().variable(name, value).parse().expect("it is good");
        assert!(off.traces.export().is_none(), "{name}");
    }
}

/// A proxy that leads every CONNECT to one server. It keeps the first line and the credentials of each.
async fn egress_proxy(server: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<(String, String)>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let address = spawn_upstream(move |listener| async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Some(head) = read_head(&mut caller).await else { return };
                let line = head.lines().next().unwrap_or_default().to_owned();
                let field = head.lines().find(|line| line.to_ascii_lowercase().starts_with("proxy-authorization: "));
                let credentials = field.and_then(|field| field.split_once(": ")).map(|(_, value)| value.to_owned());
                seen.lock().expect("no panic").push((line, credentials.unwrap_or_default()));
                caller.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("it is read");
                let mut server = TcpStream::connect(server).await.expect("it listens");
                let _ = copy_bidirectional(&mut caller, &mut server).await;
            });
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn spans_reach_a_collector_over_tls_and_through_the_egress_proxy() {
    let collector = Collector::start().await;
    let server = in_front_of(collector.address()).await;
    let (proxy, asked) = egress_proxy(server).await;
    let direct = format!("https://localhost:{}", server.port());
    let authority = data("ca.pem").to_str().expect("UTF-8").to_owned();
    let world = |endpoint: &str, variables: &[(&'static str, String)], authority: Option<&str>| {
        let set = |config: Configuration| {
            let config = config.set("traces.endpoint", endpoint).set("traces.sample", 1);
            let config = variables.iter().fold(config, |config, (name, value)| config.variable(name, value.clone()));
            authority.into_iter().fold(config, |config, file| config.set("traces.ca_file", file))
        };
        World::builder().config(set).start()
    };
    // Without the authority the certificate is refused.
    let untrusting = world(&direct, &[], None).await;
    refused(&untrusting).await;
    until_dropped(&untrusting, 1).await;
    let trusting = world(&direct, &[], Some(&authority)).await;
    refused(&trusting).await;
    collector.spans(1).await;
    assert!(asked.lock().expect("no panic").is_empty());
    // Nothing listens at port 1: only the proxy leads to the collector.
    let through = ("HTTPS_PROXY", format!("http://user:secret@{proxy}"));
    let proxied = world("https://localhost:1", std::slice::from_ref(&through), Some(&authority)).await;
    refused(&proxied).await;
    collector.spans(2).await;
    let expected = ("CONNECT localhost:1 HTTP/1.1".to_owned(), "Basic dXNlcjpzZWNyZXQ=".to_owned());
    assert_eq!(*asked.lock().expect("no panic"), [expected]);
    let excepted = world(&direct, &[through, ("NO_PROXY", "localhost".to_owned())], Some(&authority)).await;
    refused(&excepted).await;
    collector.spans(3).await;
    assert_eq!(asked.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_process_ends() {
    let collector = Collector::start().await;
    let upstream = spawn_upstream(|_| async {}).await;
    let config = Configuration::new().upstream(upstream).set("traces.sample", 1);
    let config = config.toml("[traces]\nheaders = { x-of-both = { env = \"JWT_SECRET\" } }");
    let endpoint = format!("http://{}", collector.address());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-of-environment=a%20b,x-of-both=c"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "sidecar"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,service.name=other"),
        ("OTEL_BSP_SCHEDULE_DELAY", NEVER),
    ];
    let process = Process::serve_configuration(&config, &environment).await;
    let client = Client::new(process.address());
    assert_eq!(client.get("/elsewhere", &as_account("a")).await.status, StatusCode::NOT_FOUND);
    assert!(process.terminate().await.status.success());
    named(&collector.spans(1).await, "GET");
    for (name, value) in [
        ("service.name", "sidecar"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("deployment.environment", "test"),
        ("telemetry.sdk.language", "rust"),
    ] {
        assert_eq!(collector.resource(name).as_deref(), Some(value), "{name}");
    }
    let headers = &collector.headers()[0];
    assert_eq!(headers["x-of-environment"], "a b");
    assert_eq!(headers["content-encoding"], "gzip");
    assert_eq!(headers["x-of-both"], JWT_SECRET, "the file comes first");
}

#[tokio::test]
async fn check_warns_of_variables_without_effect() {
    let folder = Folder::new();
    let config =
        Configuration::new().toml("[traces]\nendpoint = \"http://collector:4318\"\nservice_name = \"postern\"");
    let file = folder.write("postern.toml", config.to_toml());
    let mut check = postern();
    check.arg("check").arg(file).envs([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4318"),
        ("OTEL_SERVICE_NAME", "other"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
    ]);
    let output = run_to_end(&mut check);
    assert!(output.status.success());
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    for warning in [
        "this overrides the environment variable OTEL_EXPORTER_OTLP_ENDPOINT",
        "this overrides the environment variable OTEL_SERVICE_NAME",
        "spans are sent by http/protobuf; the environment variable OTEL_EXPORTER_OTLP_PROTOCOL is ignored",
        "the environment variable OTEL_BSP_MAX_QUEUE_SIZE is ignored: it is no number from 1 to 65536",
    ] {
        assert!(text.contains(warning), "{warning}: {text}");
    }
}

#[tokio::test]
async fn a_collector_of_the_environment_that_cannot_be_used_is_a_warning() {
    let config =
        Configuration::new().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317").parse().expect("it is good");
    assert!(config.traces.export().is_none());
    let warnings: Vec<String> = config.warnings(jiff::Timestamp::UNIX_EPOCH).map(ToString::to_string).collect();
    let expected =
        "no spans are exported: the environment variable OTEL_EXPORTER_OTLP_ENDPOINT: the URL has to begin with";
    assert!(warnings.iter().any(|warning| warning.contains(expected)), "{warnings:?}");
}

#[tokio::test]
async fn check_and_serve_warn_of_variables_that_are_not_utf8() {
    let folder = Folder::new();
    let endpoint = "[traces]\nendpoint = \"http://127.0.0.1:1\"\n";
    for (traces, name, expected) in [
        (
            "",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "no spans are exported: the environment variable NAME: the value is not UTF-8",
        ),
        (endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT", "this overrides the environment variable NAME"),
        (endpoint, "OTEL_RESOURCE_ATTRIBUTES", "the environment variable NAME is ignored: the value is not UTF-8"),
        (endpoint, "OTEL_BSP_MAX_QUEUE_SIZE", "the environment variable NAME is ignored: the value is not UTF-8"),
    ] {
        let file = folder.write("postern.toml", Configuration::new().toml(traces).to_toml());
        let command = |command: &str| {
            let mut program = postern();
            program.args([command, "--config"]).arg(&file).env(name, OsStr::from_bytes(b"http://a.example/\xff"));
            program
        };
        let expected = expected.replace("NAME", name);
        let checked = run_to_end(&mut command("check"));
        assert!(checked.status.success());
        let checked = String::from_utf8([checked.stdout, checked.stderr].concat()).expect("UTF-8");
        assert_eq!(checked.matches("warning: ").count(), 1, "{checked}");
        let mut process = Process::run(command("serve")).await;
        process.until_logged("\"config_warning\"", 1).await;
        let served = process.terminate().await.log.join("\n");
        for said in [checked, served] {
            assert!(said.contains(&expected), "{expected}: {said}");
        }
    }
}
