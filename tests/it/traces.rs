//! Traces: what a collector receives, and what Refold is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use postern::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Answer, EXECUTIONS, Gateway, KEY, Setup, World, configuration, http_upstream, page_of, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00f067aa0ba902b7";

/// A span as it arrived at the collector.
#[derive(Clone, Debug)]
struct Span(Value);

impl Span {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.text("name")
    }

    fn id(&self) -> &str {
        self.text("spanId")
    }

    fn parent(&self) -> &str {
        self.text("parentSpanId")
    }

    fn trace(&self) -> &str {
        self.text("traceId")
    }

    fn attribute(&self, name: &str) -> Option<String> {
        let attributes = self.0["attributes"].as_array().expect("an array");
        let value = &attributes.iter().find(|attribute| attribute["key"] == name)?["value"];
        value["stringValue"].as_str().or(value["intValue"].as_str()).map(str::to_owned)
    }
}

/// A collector that takes every span.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let receiving = collector.clone();
        let address = http_upstream(move |request| {
            let receiving = receiving.clone();
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                receiving.headers.lock().expect("no panic").push(request.headers().clone());
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let message: Value = serde_json::from_slice(&body).expect("JSON");
                assert_eq!(message["resourceSpans"][0]["resource"]["attributes"][0]["key"], "service.name");
                let spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone();
                receiving.spans.lock().expect("no panic").extend(spans.into_iter().map(Span));
                http::Response::new(Full::new("{}".into()))
            }
        })
        .await;
        (collector, address)
    }

    /// All spans, once there are as many.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let arrived = || self.spans.lock().expect("no panic").clone();
        until(|| arrived().len() >= count).await;
        let spans = arrived();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

fn only<'a>(spans: &'a [Span], what: &str, is: impl Fn(&Span) -> bool) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| is(span)).collect();
    assert_eq!(found.len(), 1, "{what}: {found:#?} of {spans:#?}");
    found[0]
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    only(spans, name, |span| span.name() == name)
}

/// A gateway with a collector, in front of an upstream that notes what it was told.
struct Traced {
    gateway: Arc<Gateway>,
    collector: Collector,
    told: Arc<Mutex<Vec<HeaderMap>>>,
    /// The upstream waits for it to turn true.
    open: watch::Sender<bool>,
    clock: Clock,
}

impl Traced {
    /// `statuses` are the upstream's answers; after the last of them it answers 200.
    async fn start(lines: &str, statuses: &'static [u16], clock: Clock) -> Self {
        let (collector, address) = Collector::start().await;
        let told = Arc::new(Mutex::new(Vec::<HeaderMap>::new()));
        let open = watch::Sender::new(true);
        let (noted, gate) = (Arc::clone(&told), open.clone());
        let upstream = http_upstream(move |request| {
            let number = {
                let mut noted = noted.lock().expect("no panic");
                noted.push(request.headers().clone());
                noted.len() - 1
            };
            let mut gate = gate.subscribe();
            async move {
                gate.wait_for(|open| *open).await.expect("the test holds the gate");
                let mut response = page_of(&json!({ "_id": number, "status": "COMPLETED" }));
                let status = statuses.get(number).copied().unwrap_or(200);
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                response
            }
        })
        .await;
        let Setup { top, tenant, .. } = Setup::default();
        let top = top.replace("while_revalidate = \"0s\"", "while_revalidate = \"30s\"");
        let top = format!("retries = 1\n{top}{}", lines.replace("COLLECTOR", &format!("http://{address}")));
        let gateway = Arc::new(Gateway::start(upstream, &top, &tenant, clock.clone()));
        Self { gateway, collector, told, open, clock }
    }

    async fn ask(&self, query: &str, headers: &[(&str, &str)]) -> Answer {
        ask(&self.gateway, query, headers).await
    }

    fn told(&self) -> Vec<HeaderMap> {
        self.told.lock().expect("no panic").clone()
    }
}

async fn ask(gateway: &Gateway, query: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("x-api-key", KEY), ("linked_account_id", "acme-1")];
    all.extend_from_slice(headers);
    gateway.get(&format!("{EXECUTIONS}?{query}"), &all).await
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{CALLER}-{flags}")
}

const NEVER_BY_CHANCE: &str = "[traces]\nendpoint = \"COLLECTOR\"\nsample = 0\n";
const ALWAYS: &str = "[traces]\nendpoint = \"COLLECTOR\"\nsample = 1\n";

#[tokio::test]
async fn a_miss_shows_what_was_done_at_refold_and_a_hit_that_nothing_was() {
    let traced = Traced::start(NEVER_BY_CHANCE, &[], Setup::default().clock).await;
    let parent = traceparent(TRACE, "01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("tracestate", "other=2")];
    let miss = traced.ask("status=errored", &headers).await;
    let hit = traced.ask("status=ERRORED", &headers).await;
    assert!(hit.header("cache-status").starts_with("postern; hit"));
    let spans = traced.collector.spans(5).await;
    assert!(spans.iter().all(|span| span.trace() == TRACE));

    let cache = |result: &'static str| move |span: &Span| span.attribute("postern.cache").as_deref() == Some(result);
    let (missed, found) = (only(&spans, "the miss", cache("miss")), only(&spans, "the hit", cache("hit")));
    for (span, answer) in [(missed, &miss), (found, &hit)] {
        assert_eq!((span.name(), span.parent()), (&*format!("GET {EXECUTIONS}"), CALLER));
        assert_eq!(span.0["kind"], 2, "a server's");
        for (name, value) in [
            ("http.request.method", "GET"),
            ("http.route", EXECUTIONS),
            ("url.path", EXECUTIONS),
            ("http.response.status_code", "200"),
            ("postern.tenant", "t"),
            ("postern.request_id", answer.header("x-request-id")),
        ] {
            assert_eq!(span.attribute(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(span.attribute("error.type"), None);
    }
    let (fetch, budget, attempt) = (named(&spans, "fetch"), named(&spans, "budget"), named(&spans, "GET"));
    assert_eq!((fetch.parent(), budget.parent(), attempt.parent()), (missed.id(), fetch.id(), fetch.id()));
    assert_eq!(attempt.0["kind"], 3, "a client's");
    assert_eq!(attempt.attribute("http.response.status_code").as_deref(), Some("200"));
    assert!(attempt.0.get("status").is_none(), "it did not fail");

    // Refold is told which span asks it, and what others on the way have noted.
    let told = &traced.told()[0];
    assert_eq!(told["traceparent"], format!("00-{TRACE}-{}-01", attempt.id()));
    assert_eq!(told.get_all("tracestate").iter().collect::<Vec<_>>(), ["vendor=1", "other=2"]);
}

#[tokio::test]
async fn a_caller_who_shares_a_fetch_has_a_span_that_points_at_it() {
    let traced = Traced::start(NEVER_BY_CHANCE, &[], Setup::default().clock).await;
    let asking = |trace: &'static str, page: usize| {
        let gateway = Arc::clone(&traced.gateway);
        let headers = traceparent(trace, "01");
        tokio::spawn(async move { ask(&gateway, &format!("page={page}"), &[("traceparent", &headers)]).await })
    };
    // Whether the second has joined the fetch before it ends is seen afterwards: if not, they try again.
    for page in 1.. {
        traced.open.send_replace(false);
        let first = asking(TRACE, page);
        until(|| traced.told().len() == page).await;
        let second = asking(OTHER_TRACE, page);
        tokio::time::sleep(Duration::from_millis(10)).await;
        traced.open.send_replace(true);
        assert_eq!(first.await.expect("nobody has ended it").status, StatusCode::OK);
        if second.await.expect("nobody has ended it").header("cache-status").contains("collapsed") {
            break;
        }
        assert!(page < 100);
    }
    let all = || traced.collector.spans.lock().expect("no panic").clone();
    let waits = |spans: &[Span]| spans.iter().any(|span| span.name() == "wait");
    until(|| waits(&all())).await;
    let spans = all();
    let wait = named(&spans, "wait");
    assert_eq!((wait.trace(), &wait.0["links"][0]["traceId"]), (OTHER_TRACE, &json!(TRACE)));
    let fetch = only(&spans, "the fetch", |span| wait.0["links"][0]["spanId"] == span.id());
    assert_eq!((fetch.name(), fetch.trace()), ("fetch", TRACE));
    let request = only(&spans, "the one that waits", |span| wait.parent() == span.id());
    assert_eq!((request.trace(), request.parent(), &request.0["kind"]), (OTHER_TRACE, CALLER, &json!(2)));
}

#[tokio::test]
async fn a_retry_is_a_second_attempt_of_the_same_fetch() {
    let traced = Traced::start(ALWAYS, &[502], Clock::system()).await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::OK);
    let spans = traced.collector.spans(6).await;
    let fetch = named(&spans, "fetch");
    let mut attempts: Vec<_> = spans.iter().filter(|span| span.name() == "GET").collect();
    attempts.sort_by_key(|span| span.attribute("http.request.resend_count"));
    let [first, second] = attempts[..] else { panic!("two attempts: {spans:#?}") };
    assert_eq!((first.parent(), second.parent()), (fetch.id(), fetch.id()));
    assert_eq!((first.attribute("error.type").as_deref(), &first.0["status"]["code"]), (Some("502"), &json!(2)));
    assert_eq!(second.attribute("http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(spans.iter().filter(|span| span.name() == "budget" && span.parent() == fetch.id()).count(), 2);
    // Nobody has begun a trace, so this one is of our own making, and Refold hears of each attempt by its name.
    let told: Vec<_> = traced.told().iter().map(|headers| headers["traceparent"].clone()).collect();
    assert_eq!(told, [first, second].map(|span| format!("00-{}-{}-01", fetch.trace(), span.id())));
}

#[tokio::test]
async fn a_renewal_behind_the_callers_back_belongs_to_the_request_that_has_caused_it() {
    let traced = Traced::start(ALWAYS, &[], Setup::default().clock).await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::OK);
    traced.collector.spans(4).await;
    traced.clock.advance(Duration::from_secs(6));
    let stale = traced.ask("", &[]).await;
    assert!(stale.header("cache-status").starts_with("postern; hit; ttl=-"), "{stale:?}");
    let spans = traced.collector.spans(8).await;
    let request = only(&spans, "it", |span| span.attribute("postern.cache").as_deref() == Some("hit_stale"));
    only(&spans, "its fetch", |span| span.name() == "fetch" && span.parent() == request.id());
}

#[tokio::test]
async fn an_answer_that_follows_from_another_fetch_has_a_span_that_points_at_it() {
    let (collector, address) = Collector::start().await;
    let setup = Setup::default();
    let top = format!("{}{}", setup.top, ALWAYS.replace("COLLECTOR", &format!("http://{address}")));
    let world = Setup { top, ..setup }.start().await;
    // Its executions fit on one page.
    let account = "umbrella@example.com";
    for query in ["", "status=ERRORED"] {
        assert_eq!(world.list(account, query).await.status, StatusCode::OK);
    }
    collector.spans(5).await;
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(world.list(account, "status=ERRORED").await.status, StatusCode::OK);
    let spans = collector.spans(10).await;
    let request = only(&spans, "it", |span| span.attribute("postern.cache").as_deref() == Some("stale"));
    let wait = named(&spans, "wait");
    assert_eq!(wait.parent(), request.id());
    let fetch = only(&spans, "what it waits for", |span| wait.0["links"][0]["spanId"] == span.id());
    assert_eq!((fetch.name(), fetch.parent()), ("fetch", wait.id()));
    only(&spans, "the attempt", |span| span.name() == "GET" && span.parent() == fetch.id());
}

#[tokio::test]
async fn a_collector_that_a_reload_names_hears_of_the_next_request() {
    let world = World::start().await;
    let (collector, address) = Collector::start().await;
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    let Setup { top, tenant, .. } = Setup::default();
    let top = format!("{top}{}", ALWAYS.replace("COLLECTOR", &format!("http://{address}")));
    world.gateway.reload(&configuration(world.refold_address, &top, &tenant));
    assert_eq!(world.list("acme-1", "").await.status, StatusCode::OK);
    assert_eq!(collector.spans(1).await[0].attribute("postern.cache").as_deref(), Some("hit"));
}

#[tokio::test]
async fn what_the_caller_does_not_record_is_not_recorded_and_passed_on_as_it_came() {
    let parent = traceparent(TRACE, "00");
    for lines in [ALWAYS, ""] {
        let traced = Traced::start(lines, &[], Setup::default().clock).await;
        let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
        assert_eq!(traced.ask("", &headers).await.status, StatusCode::OK);
        // What comes after it is the first that the collector hears of.
        let told = &traced.told()[0];
        assert_eq!(
            (told["traceparent"].as_bytes(), told["tracestate"].as_bytes()),
            (parent.as_bytes(), &b"vendor=1"[..])
        );
        if lines == ALWAYS {
            traced.ask("", &[]).await;
            assert_eq!(traced.collector.spans(1).await[0].attribute("postern.cache").as_deref(), Some("hit"));
        }
        let nonsense = [("traceparent", "00-nonsense"), ("tracestate", "vendor=1")];
        if lines.is_empty() {
            assert_eq!(traced.ask("page=2", &nonsense).await.status, StatusCode::OK);
            let told = &traced.told()[1];
            assert!(!told.contains_key("traceparent") && !told.contains_key("tracestate"), "{told:?}");
        }
    }
}

#[tokio::test]
async fn a_collector_is_shown_its_secret_and_a_span_no_secret() {
    let lines = format!("{ALWAYS}headers = {{ authorization = {{ env = \"JWT_SECRET\" }} }}\n");
    let traced = Traced::start(&lines, &[401], Setup::default().clock).await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::BAD_GATEWAY);
    let spans = traced.collector.spans(4).await;
    let shown = traced.collector.headers.lock().expect("no panic")[0].clone();
    assert_eq!(shown["authorization"], crate::harness::JWT_SECRET);
    let text = format!("{spans:?}");
    for secret in [KEY, crate::harness::ORG_KEY, crate::harness::JWT_SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
    let request = only(&spans, "the request", |span| span.parent().is_empty());
    assert_eq!(request.attribute("error.type").as_deref(), Some("UPSTREAM_CREDENTIAL_REJECTED"));
}

#[tokio::test]
async fn spans_that_nobody_takes_are_counted() {
    let lines = "[traces]\nendpoint = \"http://127.0.0.1:1\"\nsample = 1\n";
    let traced = Traced::start(lines, &[], Setup::default().clock).await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::OK);
    until(|| traced.gateway.metrics().contains("postern_spans_dropped_total 4")).await;
}
