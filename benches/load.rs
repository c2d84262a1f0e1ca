//! A thousand dashboards inside twenty requests a second: what they get, how long they wait, and how old it is.
//!
//! `cargo bench --bench load -- run` polls for a minute, after a warm-up in which every question was answered once; with
//! `greedy` one account asks a hundred times as much; with `direct` there is no gateway. Without an argument (as `cargo test`
//! and a plain `cargo bench` run it) it ends at once.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "figures for people, printed"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use postern::clock::Clock;
use postern::config::{Config, Environment, ListenAddress};
use postern::digest::{Hex, sha256};
use postern::server::Server;
use postern::simulator::{Settings, Simulator};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const POLLERS: usize = 1000;
const ACCOUNTS: usize = 200;
const INTERVAL: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_mins(1);
const QUESTIONS: [&str; 4] = ["", "?status=ERRORED", "?status=RUNNING", "?execution_source=Event"];
const ORG_KEY: &str = "tk_load";
const CLIENT_KEY: &str = "pst_load";

type Http = Client<HttpConnector, Full<Bytes>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One answer: when it was asked for and how long that took, its status, and its age in seconds.
#[derive(Clone, Copy)]
struct Sample {
    account: usize,
    wait: Duration,
    status: StatusCode,
    age: u64,
    stale: bool,
}

/// Where the pollers ask, and with which key.
#[derive(Clone)]
struct Target {
    client: Http,
    base: String,
    key: &'static str,
}

impl Target {
    async fn ask(&self, account: usize, question: usize) -> Result<Sample, Failure> {
        let request = Request::get(format!("{}/api/v2/public/execution{}", self.base, QUESTIONS[question]))
            .header("x-api-key", self.key)
            .header("linked_account_id", format!("account-{account}"))
            .body(Full::default())?;
        let begun = Instant::now();
        let (head, body) = self.client.request(request).await?.into_parts();
        body.collect().await?;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Sample {
            account,
            wait: begun.elapsed(),
            status: head.status,
            age: text("age").parse().unwrap_or(0),
            stale: text("cache-status").contains("ttl=-"),
        })
    }
}

fn configuration(refold: std::net::SocketAddr) -> String {
    format!(
        r#"
        [[listeners]]
        address = "127.0.0.1:0"
        [upstream]
        base_url = "http://{refold}"
        [cache.stale]
        while_revalidate = "5m"
        [limits.client]
        per_second = 100000
        burst = 100000
        [[tenants]]
        id = "load"
        mode = "inject"
        org_key = {{ env = "ORG_KEY" }}
        [[tenants.client_keys]]
        name = "load"
        sha256 = "{}"
        linked_accounts = ["*"]
        "#,
        Hex(&sha256(CLIENT_KEY.as_bytes()))
    )
}

fn main() -> Result<(), Failure> {
    let what = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    if !["run", "greedy", "direct"].contains(&what.as_str()) {
        return Ok(());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(experiment(&what))
}

async fn experiment(what: &str) -> Result<(), Failure> {
    let clock = Clock::system();
    let settings = Settings { org_keys: vec![ORG_KEY.to_owned()], ..Settings::default() };
    let refold = Simulator::new(settings, clock.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = refold.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let mut environment = Environment::default();
    environment.insert("ORG_KEY", ORG_KEY);
    let config = Config::parse(&configuration(address), std::path::Path::new("load.toml"), &environment)?;
    let server = Server::start(config, clock)?;
    let ListenAddress::Tcp(gateway) = server.addresses()[0] else { return Err("a TCP listener".into()) };
    let client = Client::builder(TokioExecutor::new()).build_http();
    let target = match what {
        "direct" => Target { client, base: format!("http://{address}"), key: ORG_KEY },
        _ => Target { client, base: format!("http://{gateway}"), key: CLIENT_KEY },
    };
    let begun = Instant::now();
    if what != "direct" {
        warm_up(&target).await?;
    }
    println!("warm-up: every question answered once after {:.1} s", begun.elapsed().as_secs_f64());
    let (asked, refused) = (refold.requests(), refold.rate_limited());
    let polling = Instant::now();
    let samples = poll(&target, what == "greedy").await?;
    let seconds = polling.elapsed().as_secs_f64();
    report(&samples);
    println!(
        "upstream: {:.2} requests/s, {} answered 429",
        (refold.requests() - asked) as f64 / seconds,
        refold.rate_limited() - refused
    );
    Ok(())
}

/// Asks every question until it is answered.
async fn warm_up(target: &Target) -> Result<(), Failure> {
    let asking = (0..ACCOUNTS * QUESTIONS.len()).map(|number| {
        let target = target.clone();
        tokio::spawn(async move {
            while target.ask(number % ACCOUNTS, number / ACCOUNTS).await?.status != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(1000 + fastrand::u64(..1000))).await;
            }
            Ok::<_, Failure>(())
        })
    });
    for task in asking.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

async fn poll(target: &Target, greedy: bool) -> Result<Vec<Sample>, Failure> {
    let samples = Arc::new(Mutex::new(Vec::with_capacity(POLLERS * 40)));
    // The greedy account's pollers come on top, each as eager as all others.
    let extra = if greedy { 100 * POLLERS / ACCOUNTS } else { 0 };
    let end = Instant::now() + MEASURED;
    let polling: Vec<_> = (0..POLLERS + extra)
        .map(|number| {
            let (target, samples) = (target.clone(), Arc::clone(&samples));
            let account = if number < POLLERS { number % ACCOUNTS } else { 0 };
            let question = number / ACCOUNTS % QUESTIONS.len();
            tokio::spawn(async move {
                tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
                while Instant::now() < end {
                    let next = tokio::time::Instant::now() + INTERVAL;
                    let sample = target.ask(account, question).await?;
                    samples.lock().await.push(sample);
                    tokio::time::sleep_until(next).await;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in polling {
        task.await??;
    }
    Ok(Arc::try_unwrap(samples).map_err(|_| "a poller is left")?.into_inner())
}

fn report(samples: &[Sample]) {
    let share = |count: usize| 100.0 * count as f64 / samples.len().max(1) as f64;
    let others: Vec<Sample> = samples.iter().filter(|sample| sample.account != 0).copied().collect();
    let percentile = |mut values: Vec<f64>, part: f64| {
        values.sort_by(f64::total_cmp);
        values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    let served = samples.iter().filter(|sample| sample.status == StatusCode::OK).count();
    let waits = |part| percentile(samples.iter().map(|sample| sample.wait.as_secs_f64() * 1e3).collect(), part);
    let ages = |part| percentile(others.iter().map(|sample| sample.age as f64).collect(), part);
    let distinct = ACCOUNTS * QUESTIONS.len();
    println!(
        "answers: {}, served {:.2} %, stale {:.1} %",
        samples.len(),
        share(served),
        share(samples.iter().filter(|sample| sample.stale).count())
    );
    println!("wait: p50 {:.1} ms, p99 {:.1} ms", waits(0.5), waits(0.99));
    println!(
        "age (but of account 0): p50 {:.0} s, p99 {:.0} s; the bound for {distinct} questions at 20/s is {} s",
        ages(0.5),
        ages(0.99),
        distinct / 20
    );
}
