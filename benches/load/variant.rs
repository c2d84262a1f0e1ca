//! What is compared, and how one of them is run.

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

use crate::poll::{Http, Target, name, poll};
use crate::refold::{ORG_KEY, Refold};
use crate::report::{Cold, Report};
use crate::{ACCOUNTS, Failure, PER_SECOND, QUESTIONS};

const CLIENT_KEY: &str = "pst_load";

/// One of the things that are compared.
#[derive(Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// Lines of the configuration's top.
    settings: &'static str,
    /// Lines of its tenant.
    tenant: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// One account asks a hundred times as much as the others.
    Greedy,
    /// Refold is gone from the tenth second to the fortieth.
    Outage,
    /// Refold tells of changes.
    Webhooks,
    /// The pollers ask Refold themselves.
    Direct,
}

const LONG: &str = "webhooks = true\nfreshness = { live = \"10m\", recent = \"10m\" }";

pub(crate) const VARIANTS: [Variant; 8] = [
    Variant { name: "postern", settings: "", tenant: "", kind: Kind::Plain },
    Variant { name: "greedy", settings: "", tenant: "", kind: Kind::Greedy },
    Variant { name: "outage", settings: "", tenant: "", kind: Kind::Outage },
    Variant { name: "no-collapsing", settings: "collapse = false", tenant: "", kind: Kind::Plain },
    Variant {
        name: "no-budget",
        settings: "[limits.upstream]\nper_second = 100000\nburst = 100000",
        tenant: "",
        kind: Kind::Plain,
    },
    Variant { name: "no-derivation", settings: "derive = false", tenant: "", kind: Kind::Plain },
    Variant { name: "webhooks", settings: "", tenant: LONG, kind: Kind::Webhooks },
    Variant { name: "no-gateway", settings: "", tenant: "", kind: Kind::Direct },
];

impl Variant {
    pub(crate) async fn run(self) -> Result<Report, Failure> {
        let clock = Clock::system();
        let mut refold = Refold::start(&clock)?;
        let mut environment = Environment::default();
        environment.insert("ORG_KEY", ORG_KEY);
        let text = self.configuration(&refold);
        let config = Config::parse(&text, std::path::Path::new("load.toml"), &environment)?;
        let server = Server::start(config, clock)?;
        let ListenAddress::Tcp(gateway) = server.addresses()[0] else { return Err("a TCP listener".into()) };
        let client: Http = Client::builder(TokioExecutor::new()).build_http();
        let target = match self.kind {
            Kind::Direct => Target { client, base: format!("http://{}", refold.address), key: ORG_KEY },
            _ => Target { client, base: format!("http://{gateway}"), key: CLIENT_KEY },
        };
        if self.kind == Kind::Webhooks {
            register(&target.client, &refold, &target.base).await?;
        }
        let cold = warm_up(&target).await?;
        let simulator = refold.simulator.clone();
        let (asked, refused) = (simulator.requests(), simulator.rate_limited());
        let begun = Instant::now();
        let outage = async {
            if self.kind == Kind::Outage {
                tokio::time::sleep(Duration::from_secs(10)).await;
                refold.kill();
                tokio::time::sleep(Duration::from_secs(30)).await;
                refold.revive()?;
            }
            Ok::<_, Failure>(())
        };
        let (samples, ended) = tokio::join!(poll(&target, &simulator, self.kind == Kind::Greedy), outage);
        ended?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Report {
            name: self.name,
            samples: samples?,
            seconds,
            asked: simulator.requests() - asked,
            refused: simulator.rate_limited() - refused,
            bound: self.bound(&refold),
            least: self.least(),
            cold,
            outage: (self.kind == Kind::Outage).then_some((10, 40)),
        })
    }

    fn configuration(self, refold: &Refold) -> String {
        let Self { settings, tenant, .. } = self;
        format!(
            r#"
            [[listeners]]
            address = "127.0.0.1:0"
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
            {settings}
            [[tenants]]
            id = "load"
            mode = "inject"
            org_key = {{ env = "ORG_KEY" }}
            {tenant}
            [[tenants.client_keys]]
            name = "load"
            sha256 = "{}"
            linked_accounts = ["*"]
            "#,
            refold.address,
            Hex(&sha256(CLIENT_KEY.as_bytes()))
        )
    }

    /// The age that no gateway can beat which asks what it is asked: all distinct questions whose answers do not follow from
    /// others', one after the other at the published rate. `None` where age is not a matter of the round: with webhooks, or
    /// without a gateway.
    fn bound(self, refold: &Refold) -> Option<Duration> {
        let derives = !self.settings.contains("derive = false");
        let questions = |account| {
            let total = refold.simulator.executions(&name(account));
            // The first page is the whole list.
            if derives && total <= 10 { 1 } else { QUESTIONS.len() }
        };
        let questions: usize = (0..ACCOUNTS).map(questions).sum();
        let bound = Duration::from_secs(1) * u32::try_from(questions).ok()? / u32::try_from(PER_SECOND).ok()?;
        self.goes_round().then_some(bound)
    }

    /// The age that no gateway can beat at all: one request for each linked account.
    fn least(self) -> Option<Duration> {
        let accounts = u32::try_from(ACCOUNTS).ok()?;
        self.goes_round().then(|| Duration::from_secs(1) * accounts / u32::try_from(PER_SECOND).unwrap_or(1))
    }

    fn goes_round(self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Greedy | Kind::Outage)
    }
}

async fn register(client: &Http, refold: &Refold, gateway: &str) -> Result<(), Failure> {
    let events = ["running", "stopping", "completed", "errored", "timed_out", "stopped"];
    let body = serde_json::json!({
        "webhook_url": format!("{gateway}/hooks/refold/load"),
        "webhook_events": events.map(|event| format!("execution.{event}")),
    });
    let request = Request::post(format!("http://{}/api/v2/public/webhook", refold.address))
        .header("x-api-key", ORG_KEY)
        .body(Full::new(Bytes::from(body.to_string())))?;
    match client.request(request).await?.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("the webhook was not registered: {status}").into()),
    }
}

/// All ask at once what nobody has asked before; who is refused comes again when told to.
async fn warm_up(target: &Target) -> Result<Cold, Failure> {
    let begun = Instant::now();
    let asking = (0..ACCOUNTS * QUESTIONS.len()).map(|number| {
        let target = target.clone();
        tokio::spawn(async move {
            let mut refused = Vec::new();
            loop {
                let asked = Instant::now();
                let answer = target.ask(number % ACCOUNTS, QUESTIONS[number / ACCOUNTS]).await?;
                if answer.status == StatusCode::OK {
                    return Ok::<_, Failure>((asked.elapsed(), refused));
                }
                let pause = answer.retry_after.ok_or("refused without Retry-After")?;
                refused.push(pause);
                tokio::time::sleep(Duration::from_secs(pause) + Duration::from_millis(fastrand::u64(..1000))).await;
            }
        })
    });
    let mut cold = Cold::default();
    for task in asking.collect::<Vec<_>>() {
        let (wait, refused) = task.await??;
        cold.waits.push(wait);
        cold.refused.extend(refused);
    }
    cold.until_all = begun.elapsed();
    Ok(cold)
}
