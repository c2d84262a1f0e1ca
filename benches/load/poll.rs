//! Dashboards: they ask, wait, remember what they show, and note how old it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use jiff::Timestamp;
use postern::simulator::Simulator;
use tokio::sync::Mutex;

use crate::{ACCOUNTS, Failure, INTERVAL, MEASURED, POLLERS, QUESTIONS};

/// Pollers of the greedy account beside its own: they ask a hundred times as much as another account's five, and for ever
/// other pages.
const GREEDY: usize = 100 * POLLERS / ACCOUNTS;

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// One answer.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) account: usize,
    /// Since the polling began.
    pub(crate) at: Duration,
    pub(crate) wait: Duration,
    pub(crate) status: StatusCode,
    /// Said to be stale.
    pub(crate) stale: bool,
    /// How old what the dashboard shows is, whether it came with this answer or an earlier one; `None` if it is blank.
    pub(crate) age: Option<Duration>,
    /// For how long what the dashboard shows has not been true any more.
    pub(crate) outdated: Option<Duration>,
}

/// Where dashboards ask, and with which key.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) client: Http,
    pub(crate) base: String,
    pub(crate) key: &'static str,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<u64>,
    age: Duration,
    stale: bool,
    body: Bytes,
}

impl Target {
    pub(crate) async fn ask(&self, account: usize, query: &str) -> Result<Answer, Failure> {
        let request = Request::get(format!("{}/api/v2/public/execution{query}", self.base))
            .header("x-api-key", self.key)
            .header("linked_account_id", name(account))
            .body(Full::default())?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: head.status,
            retry_after: text("retry-after").parse().ok(),
            // Whole seconds, rounded down.
            age: Duration::from_secs(text("age").parse().unwrap_or(0)),
            stale: text("cache-status").contains("ttl=-"),
            body,
        })
    }
}

pub(crate) fn name(account: usize) -> String {
    format!("account-{account}")
}

/// Polls for the time that is measured.
pub(crate) async fn poll(target: &Target, refold: &Simulator, greedy: bool) -> Result<Vec<Sample>, Failure> {
    let samples = Arc::new(Mutex::new(Vec::with_capacity(POLLERS * 40)));
    let begun = Instant::now();
    let extra = if greedy { GREEDY } else { 0 };
    let polling: Vec<_> = (0..POLLERS + extra)
        .map(|number| {
            let (target, refold, samples) = (target.clone(), refold.clone(), Arc::clone(&samples));
            tokio::spawn(async move {
                tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
                let mut dashboard = Dashboard::new(number);
                while begun.elapsed() < MEASURED {
                    let next = tokio::time::Instant::now() + INTERVAL;
                    let sample = dashboard.look(&target, &refold, begun).await?;
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

struct Dashboard {
    account: usize,
    query: String,
    /// What it shows, and when that was true.
    shows: Option<(Bytes, Instant)>,
}

impl Dashboard {
    fn new(number: usize) -> Self {
        let question = QUESTIONS[number / ACCOUNTS % QUESTIONS.len()];
        match number.checked_sub(POLLERS) {
            None => Self { account: number % ACCOUNTS, query: question.to_owned(), shows: None },
            Some(page) => {
                let mark = if question.is_empty() { '?' } else { '&' };
                Self { account: 0, query: format!("{question}{mark}page={}", page / QUESTIONS.len() + 1), shows: None }
            }
        }
    }

    async fn look(&mut self, target: &Target, refold: &Simulator, polling: Instant) -> Result<Sample, Failure> {
        let begun = Instant::now();
        let answer = target.ask(self.account, &self.query).await?;
        if answer.status == StatusCode::OK {
            // A gateway says how old; without one it is as old as the way is long.
            self.shows = begun.checked_sub(answer.age).map(|at| (answer.body, at));
        }
        let age = self.shows.as_ref().map(|(_, at)| at.elapsed());
        let outdated = self.shows.as_ref().map(|(shown, at)| self.outdated(shown, at.elapsed(), refold));
        Ok(Sample {
            account: self.account,
            at: polling.elapsed(),
            wait: begun.elapsed(),
            status: answer.status,
            stale: answer.stale,
            age,
            outdated,
        })
    }

    /// For how long what is shown has not been true any more.
    fn outdated(&self, shown: &Bytes, age: Duration, refold: &Simulator) -> Duration {
        let account = name(self.account);
        let since = refold.last_change(&account).map(|changed| Timestamp::now().duration_since(changed));
        let since = since.map_or(Duration::MAX, |since| Duration::try_from(since).unwrap_or_default());
        // Ages are in whole seconds. Nothing has changed since then, or it is to be looked at.
        if since > age + Duration::from_secs(1) {
            return Duration::ZERO;
        }
        let same = refold.peek(&account, self.query.strip_prefix('?')).is_some_and(|now| now == *shown);
        if same { Duration::ZERO } else { since }
    }
}
