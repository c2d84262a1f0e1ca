//! Traces: the spans that a collector receives, and the headers that Refold receives.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use postern::clock::Clock;

use crate::support::collector::{Collector, Span, named, only};
use crate::support::{
    Answer, Configuration, EXECUTIONS, JWT_SECRET, KEY, ORG_KEY, ScriptedRefold, World, as_account, manual_clock, until,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "00f067aa0ba902b7";

/// Changes the tracing of a configuration.
type Change = fn(Configuration) -> Configuration;

/// A world with a collector, in front of an upstream that records the headers of its requests.
struct Traced {
    world: World<ScriptedRefold>,
    collector: Collector,
}

impl Traced {
    /// The upstream answers the first requests with `statuses`, all others with 200.
    async fn start(change: Change, statuses: &[u16], clock: Clock) -> Self {
        let collector = Collector::start().await;
        let refold = ScriptedRefold::start().await;
        refold.answer_next_with(statuses);
        let builder = World::builder().refold(refold).clock(clock);
        let builder = builder
            .config(|config| config.one_worker().retries(1).while_revalidate("30s"))
            .config(|c| collector.traces(c, 1));
        Self { world: builder.config(change).start().await, collector }
    }

    /// Every request is sampled.
    async fn sampled() -> Self {
        Self::start(|config| config, &[], manual_clock()).await
    }

    /// Only requests are sampled whose callers ask for it.
    async fn unsampled() -> Self {
        Self::start(|config| config.set("traces.sample", 0), &[], manual_clock()).await
    }

    async fn ask(&self, query: &str, headers: &[(&str, &str)]) -> Answer {
        let headers = [as_account("acme-1").as_slice(), headers].concat();
        self.world.gateway.get(&format!("{EXECUTIONS}?{query}"), &headers).await
    }

    /// The headers of all requests to the upstream.
    fn received(&self) -> Vec<HeaderMap> {
        self.world.refold.received().into_iter().map(|head| head.headers).collect()
    }
}

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{CALLER}-{flags}")
}

#[tokio::test]
async fn a_miss_has_upstream_spans_and_a_hit_has_none() {
    let traced = Traced::unsampled().await;
    let parent = traceparent(TRACE, "01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("tracestate", "other=2")];
    let miss = traced.ask("status=errored", &headers).await;
    let hit = traced.ask("status=ERRORED", &headers).await;
    assert!(hit.is_hit());
    let spans = traced.collector.spans(5).await;
    assert!(spans.iter().all(|span| span.trace() == TRACE));

    let cache = |result: &'static str| move |span: &Span| span.attribute("postern.cache").as_deref() == Some(result);
    let (missed, found) = (only(&spans, "the miss", cache("miss")), only(&spans, "the hit", cache("hit")));
    for (span, answer) in [(missed, &miss), (found, &hit)] {
        assert_eq!((span.name(), &*span.parent()), (&*format!("GET {EXECUTIONS}"), CALLER));
        assert!(span.has_remote_parent());
        assert_eq!(span.trace_state(), "vendor=1,other=2");
        assert_eq!(span.kind(), SpanKind::Server);
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
    assert_eq!(attempt.kind(), SpanKind::Client);
    assert_eq!(attempt.attribute("http.response.status_code").as_deref(), Some("200"));
    assert!(!attempt.failed() && !attempt.has_remote_parent());

    // The upstream receives the id of the span of its request, and the state of other tracers.
    let received = &traced.received()[0];
    assert_eq!(received["traceparent"], format!("00-{TRACE}-{}-01", attempt.id()));
    assert_eq!(received.get_all("tracestate").iter().collect::<Vec<_>>(), ["vendor=1", "other=2"]);
}

#[tokio::test]
async fn a_caller_that_shares_a_fetch_links_to_its_span() {
    let traced = Traced::unsampled().await;
    let ask = |trace: &str| {
        let parent = traceparent(trace, "01");
        let headers = [as_account("acme-1").as_slice(), &[("traceparent", parent.as_str())]].concat();
        traced.world.gateway.spawn_get(EXECUTIONS, &headers)
    };
    traced.world.refold.hold();
    let first = ask(TRACE);
    traced.world.refold.until_received(1).await;
    let second = ask(OTHER_TRACE);
    traced.world.gateway.until_joined("acme-1", 2).await;
    traced.world.refold.release();
    assert_eq!(first.answer().await.status, StatusCode::OK);
    assert!(second.answer().await.cache_status().contains("collapsed"));
    let all = || traced.collector.accepted();
    until(|| all().iter().any(|span| span.name() == "wait")).await;
    let spans = all();
    let wait = named(&spans, "wait");
    let (linked_trace, linked_span) = wait.link();
    assert_eq!((&*wait.trace(), &*linked_trace), (OTHER_TRACE, TRACE));
    let fetch = only(&spans, "the fetch", |span| linked_span == span.id());
    assert_eq!((fetch.name(), &*fetch.trace()), ("fetch", TRACE));
    let request = only(&spans, "the request that waits", |span| wait.parent() == span.id());
    assert_eq!((&*request.trace(), &*request.parent(), request.kind()), (OTHER_TRACE, CALLER, SpanKind::Server));
}

#[tokio::test]
async fn a_retry_is_a_second_attempt_of_the_same_fetch() {
    let traced = Traced::start(|config| config, &[502], Clock::system()).await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::OK);
    let spans = traced.collector.spans(6).await;
    let fetch = named(&spans, "fetch");
    let mut attempts: Vec<_> = spans.iter().filter(|span| span.name() == "GET").collect();
    attempts.sort_by_key(|span| span.attribute("http.request.resend_count"));
    let [first, second] = attempts[..] else { panic!("two attempts: {spans:#?}") };
    assert_eq!((first.parent(), second.parent()), (fetch.id(), fetch.id()));
    assert_eq!((first.attribute("error.type").as_deref(), first.failed()), (Some("502"), true));
    assert_eq!(second.attribute("http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(spans.iter().filter(|span| span.name() == "budget" && span.parent() == fetch.id()).count(), 2);
    // The caller sends no trace, so the gateway begins one, and the upstream receives the id of each attempt's span.
    let received: Vec<_> = traced.received().iter().map(|headers| headers["traceparent"].clone()).collect();
    assert_eq!(received, [first, second].map(|span| format!("00-{}-{}-01", fetch.trace(), span.id())));
}

#[tokio::test]
async fn a_background_renewal_belongs_to_the_request_that_caused_it() {
    let traced = Traced::sampled().await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::OK);
    traced.collector.spans(4).await;
    traced.world.clock.advance(Duration::from_secs(6));
    let stale = traced.ask("", &[]).await;
    assert!(stale.cache_status().starts_with("postern; hit; ttl=-"), "{stale:?}");
    let spans = traced.collector.spans(8).await;
    let request = only(&spans, "the request", |span| span.attribute("postern.cache").as_deref() == Some("hit_stale"));
    only(&spans, "its fetch", |span| span.name() == "fetch" && span.parent() == request.id());
}

#[tokio::test]
async fn a_derived_page_has_a_span_that_links_to_its_fetch() {
    let collector = Collector::start().await;
    let world = World::builder().config(|config| collector.traces(config, 1).derive("trusted")).start().await;
    // The executions of this account fit on one page.
    let account = "umbrella@example.com";
    for query in ["", "status=ERRORED"] {
        assert_eq!(world.list(account, query).await.status, StatusCode::OK);
    }
    collector.spans(5).await;
    world.clock.advance(Duration::from_secs(6));
    assert_eq!(world.list(account, "status=ERRORED").await.status, StatusCode::OK);
    let spans = collector.spans(10).await;
    let request = only(&spans, "the request", |span| span.attribute("postern.cache").as_deref() == Some("stale"));
    let wait = named(&spans, "wait");
    assert_eq!(wait.parent(), request.id());
    let fetch = only(&spans, "the fetch", |span| wait.link().1 == span.id());
    assert_eq!((fetch.name(), fetch.parent()), ("fetch", wait.id()));
    only(&spans, "the attempt", |span| span.name() == "GET" && span.parent() == fetch.id());
}

#[tokio::test]
async fn an_unsampled_trace_is_forwarded_and_not_recorded() {
    let parent = traceparent(TRACE, "00");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1")];
    let without: Change = |config| config.without("traces");
    for traced in [Traced::sampled().await, Traced::start(without, &[], manual_clock()).await] {
        assert_eq!(traced.ask("", &headers).await.status, StatusCode::OK);
        let received = &traced.received()[0];
        assert_eq!(received["traceparent"], parent);
        assert_eq!(received["tracestate"], "vendor=1");
        assert!(traced.collector.accepted().is_empty());
    }
    // The first span that a collector receives is of a later request.
    let traced = Traced::sampled().await;
    traced.ask("", &headers).await;
    traced.ask("", &[]).await;
    assert_eq!(traced.collector.spans(1).await[0].attribute("postern.cache").as_deref(), Some("hit"));
}

#[tokio::test]
async fn an_invalid_traceparent_is_not_forwarded() {
    let traced = Traced::start(|config| config.without("traces"), &[], manual_clock()).await;
    let nonsense = [("traceparent", "00-nonsense"), ("tracestate", "vendor=1")];
    assert_eq!(traced.ask("page=2", &nonsense).await.status, StatusCode::OK);
    let received = &traced.received()[0];
    assert!(!received.contains_key("traceparent") && !received.contains_key("tracestate"), "{received:?}");
}

#[tokio::test]
async fn a_collector_gets_its_secret_and_spans_have_none() {
    let with_secret: Change =
        |config| config.toml("[traces]\nheaders = { authorization = { env = \"JWT_SECRET\" } }\n");
    let traced = Traced::start(with_secret, &[401], manual_clock()).await;
    assert_eq!(traced.ask("", &[]).await.status, StatusCode::BAD_GATEWAY);
    let spans = traced.collector.spans(4).await;
    let shown = traced.collector.headers()[0].clone();
    assert_eq!(shown["authorization"], JWT_SECRET);
    let text = format!("{spans:?}");
    for secret in [KEY, ORG_KEY, JWT_SECRET] {
        assert!(!text.contains(secret), "{text}");
    }
    let request = only(&spans, "the request", |span| span.parent().is_empty());
    assert_eq!(request.attribute("error.type").as_deref(), Some("UPSTREAM_CREDENTIAL_REJECTED"));
}

#[tokio::test]
async fn a_method_of_any_length_is_no_name_of_a_span() {
    let traced = Traced::sampled().await;
    for (target, method) in [(EXECUTIONS, &*"A".repeat(3000)), ("/elsewhere", "PURGE"), (EXECUTIONS, "get")] {
        let method = http::Method::from_bytes(method.as_bytes()).expect("a token");
        traced.world.gateway.send(method, target, &as_account("acme-1")).await;
    }
    for span in traced.collector.spans(3).await {
        assert!(["_OTHER", &format!("_OTHER {EXECUTIONS}")].contains(&span.name()), "{span:?}");
        assert_eq!(span.attribute("http.request.method").as_deref(), Some("_OTHER"));
    }
}
