//! The variants that the experiment compares, and the run of one of them.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use postern::clock::Clock;
use postern::config::{Config, Environment, ListenAddress};
use postern::digest::{Hex, sha256};
use postern::server::Server;

use crate::poll::{HttpClient, Target, account_id, poll};
use crate::report::{ColdStart, VariantReport};
use crate::trouble::Trouble;
use crate::trust::earn;
use crate::upstream::{ORG_KEY, SimulatedUpstream};
use crate::{ACCOUNTS, BenchError, PER_SECOND, QUERIES};

const CLIENT_KEY: &str = "pst_load";
/// The outage, from the beginning of the measurement on.
const OUTAGE: Range<Duration> = Duration::from_secs(10)..Duration::from_secs(40);

/// A set-up that is compared with the others.
#[derive(Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Lines of the configuration, at the end of `[cache]`.
    cache_settings: &'static str,
    /// Lines of the configuration's tenant.
    tenant_settings: &'static str,
    scenario: Scenario,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scenario {
    Plain,
    /// One account sends a hundred times as many requests as each of the others.
    Greedy,
    /// Refold is unreachable from the tenth second to the fortieth.
    Outage,
    /// Refold or its callers misbehave.
    Trouble(Trouble),
    /// Refold delivers webhooks to the gateway.
    Webhooks,
    /// The dashboards poll Refold without a gateway.
    Direct,
}

/// Long lifetimes, which webhooks make possible.
const LONG_LIFETIMES: &str = "webhooks = true\nfreshness = { live = \"10m\", recent = \"10m\" }";

pub(crate) const VARIANTS: [Variant; 12] = [
    Variant { name: "postern", cache_settings: "", tenant_settings: "", scenario: Scenario::Plain },
    Variant { name: "greedy", cache_settings: "", tenant_settings: "", scenario: Scenario::Greedy },
    Variant { name: "outage", cache_settings: "", tenant_settings: "", scenario: Scenario::Outage },
    Variant {
        name: "failover",
        cache_settings: "",
        tenant_settings: "",
        scenario: Scenario::Trouble(Trouble::Failover),
    },
    Variant { name: "slow", cache_settings: "", tenant_settings: "", scenario: Scenario::Trouble(Trouble::Slow) },
    Variant {
        name: "stranger",
        cache_settings: "",
        tenant_settings: "",
        scenario: Scenario::Trouble(Trouble::Strangers),
    },
    Variant {
        name: "no-collapsing",
        cache_settings: "collapse = false",
        tenant_settings: "",
        scenario: Scenario::Plain,
    },
    Variant {
        name: "no-budget",
        cache_settings: "[limits.upstream]\nper_second = 100000\nburst = 100000",
        tenant_settings: "",
        scenario: Scenario::Plain,
    },
    Variant {
        name: "no-derivation",
        cache_settings: "derive = \"off\"",
        tenant_settings: "",
        scenario: Scenario::Plain,
    },
    Variant { name: "trusted", cache_settings: "derive = \"trusted\"", tenant_settings: "", scenario: Scenario::Plain },
    Variant { name: "webhooks", cache_settings: "", tenant_settings: LONG_LIFETIMES, scenario: Scenario::Webhooks },
    Variant { name: "no-gateway", cache_settings: "", tenant_settings: "", scenario: Scenario::Direct },
];

impl Variant {
    pub(crate) async fn run(self) -> Result<VariantReport, BenchError> {
        let clock = Clock::system();
        let mut upstream = SimulatedUpstream::start(&clock)?;
        let server = self.start_gateway(&upstream, clock)?;
        let target = self.target(&server, &upstream)?;
        if self.scenario == Scenario::Webhooks {
            register_webhook(&target, &upstream).await?;
        }
        let cold_start = warm_up(&target).await?;
        let trust_earned = earn(&target, &server).await?;
        let simulator = upstream.simulator.clone();
        let (requests, rate_limited) = (simulator.requests(), simulator.rate_limited());
        let begun = Instant::now();
        let outage = async {
            if self.scenario == Scenario::Outage {
                let measurement = tokio::time::Instant::now();
                tokio::time::sleep_until(measurement + OUTAGE.start).await;
                upstream.stop();
                tokio::time::sleep_until(measurement + OUTAGE.end).await;
                upstream.restart()?;
            }
            Ok::<_, BenchError>(())
        };
        let trouble = async {
            let Scenario::Trouble(trouble) = self.scenario else { return Ok(None) };
            trouble.cause(&target, &simulator, &server).await.map(Some)
        };
        let polled = poll(&target, &simulator, self.scenario == Scenario::Greedy);
        let (samples, outage, trouble) = tokio::join!(polled, outage, trouble);
        outage?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(VariantReport {
            name: self.name,
            samples: samples?,
            seconds,
            upstream_requests: simulator.requests() - requests,
            upstream_rate_limited: simulator.rate_limited() - rate_limited,
            age_bound: self.age_bound(&upstream),
            age_minimum: self.age_minimum(),
            cold_start,
            trouble: trouble?,
            trust_earned,
            outage: (self.scenario == Scenario::Outage).then_some(OUTAGE),
        })
    }

    pub(crate) fn start_gateway(self, upstream: &SimulatedUpstream, clock: Clock) -> Result<Server, BenchError> {
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", ORG_KEY);
        let text = self.configuration(upstream);
        let config = Config::parse(&text, std::path::Path::new("load.toml"), &environment)?;
        Ok(Server::start(config, clock)?)
    }

    pub(crate) fn target(self, server: &Server, upstream: &SimulatedUpstream) -> Result<Target, BenchError> {
        let ListenAddress::Tcp(gateway) = server.addresses()[0] else { return Err("no TCP listener".into()) };
        let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
        Ok(match self.scenario {
            Scenario::Direct => Target { client, base_url: format!("http://{}", upstream.address), key: ORG_KEY },
            _ => Target { client, base_url: format!("http://{gateway}"), key: CLIENT_KEY },
        })
    }

    fn configuration(self, upstream: &SimulatedUpstream) -> String {
        let Self { cache_settings, tenant_settings, .. } = self;
        format!(
            r#"
            [[listeners]]
            address = "127.0.0.1:0"
            session_tokens = "load"
            [admin]
            address = "off"
            [server]
            workers = 1
            [upstream]
            base_url = "http://{}"
            [limits.client]
            per_second = 100000
            burst = 100000
            [cache.stale]
            while_revalidate = "5m"
            [cache]
            {cache_settings}
            [[tenants]]
            id = "load"
            mode = "inject"
            org_key = {{ env = "ORG_KEY" }}
            {tenant_settings}
            [[tenants.client_keys]]
            name = "load"
            sha256 = "{}"
            linked_accounts = ["*"]
            "#,
            upstream.address,
            Hex(&sha256(CLIENT_KEY.as_bytes()))
        )
    }

    /// Returns the lowest age for a gateway that fetches the queries of its callers: all queries whose responses do not follow
    /// from those of others, one after the other at the published rate. `None` if age does not depend on that round: with
    /// webhooks, or without a gateway.
    fn age_bound(self, upstream: &SimulatedUpstream) -> Option<Duration> {
        let derives = !self.cache_settings.contains("off");
        let queries = |account| {
            let total = upstream.simulator.executions(&account_id(account));
            // With at most ten executions the first page is the whole list.
            if derives && total <= 10 { 1 } else { QUERIES.len() }
        };
        let queries: usize = (0..ACCOUNTS).map(queries).sum();
        let bound = Duration::from_secs(1) * u32::try_from(queries).ok()? / u32::try_from(PER_SECOND).ok()?;
        self.polls_in_rounds().then_some(bound)
    }

    /// Returns the lowest age for any gateway: one request for each linked account, at the published rate.
    fn age_minimum(self) -> Option<Duration> {
        let accounts = u32::try_from(ACCOUNTS).ok()?;
        self.polls_in_rounds().then(|| Duration::from_secs(1) * accounts / u32::try_from(PER_SECOND).unwrap_or(1))
    }

    fn polls_in_rounds(self) -> bool {
        matches!(self.scenario, Scenario::Plain | Scenario::Greedy | Scenario::Outage | Scenario::Trouble(_))
    }
}

async fn register_webhook(gateway: &Target, upstream: &SimulatedUpstream) -> Result<(), BenchError> {
    let events = ["running", "stopping", "completed", "errored", "timed_out", "stopped"];
    let body = serde_json::json!({
        "webhook_url": format!("{}/hooks/refold/load", gateway.base_url),
        "webhook_events": events.map(|event| format!("execution.{event}")),
    });
    let request = Request::post(format!("http://{}/api/v2/public/webhook", upstream.address))
        .header("x-api-key", ORG_KEY)
        .body(Full::new(Bytes::from(body.to_string())))?;
    match gateway.client.request(request).await?.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("the webhook was not registered: {status}").into()),
    }
}

/// Sends every query once, all at the same time; a refused request is repeated after its `Retry-After`.
pub(crate) async fn warm_up(target: &Target) -> Result<ColdStart, BenchError> {
    let begun = Instant::now();
    let tasks = (0..ACCOUNTS * QUERIES.len()).map(|number| {
        let target = target.clone();
        tokio::spawn(async move {
            let mut refused = Vec::new();
            loop {
                let sent = Instant::now();
                let response = target.get(number % ACCOUNTS, QUERIES[number / ACCOUNTS]).await?;
                if response.status == StatusCode::OK {
                    return Ok::<_, BenchError>((sent.elapsed(), refused));
                }
                let pause = response.retry_after.ok_or("a response was refused without Retry-After")?;
                refused.push(pause);
                tokio::time::sleep(Duration::from_secs(pause) + Duration::from_millis(fastrand::u64(..1000))).await;
            }
        })
    });
    let mut cold_start = ColdStart::default();
    for task in tasks.collect::<Vec<_>>() {
        let (wait, refused) = task.await??;
        cold_start.waits.push(wait);
        cold_start.refused.extend(refused);
    }
    cold_start.until_all = begun.elapsed();
    Ok(cold_start)
}
