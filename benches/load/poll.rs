//! The dashboards: they poll, keep the last page that they received, and record its age.

use std::io::ErrorKind;
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

use crate::{ACCOUNTS, BenchError, INTERVAL, MEASURED, POLLERS, QUERIES};

/// Additional dashboards of the greedy account 0. With them it sends a hundred times as many requests as another account with
/// its five dashboards, and each of them polls another page.
const GREEDY_POLLERS: usize = 100 * POLLERS / ACCOUNTS;

pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// One poll of a dashboard.
#[derive(Clone, Copy)]
pub(crate) struct PollSample {
    pub(crate) account: usize,
    /// Time since the measurement began.
    pub(crate) at: Duration,
    pub(crate) wait: Duration,
    pub(crate) status: StatusCode,
    /// True if `Cache-Status` says that the response is stale.
    pub(crate) stale: bool,
    /// Age of the displayed page, which came with this response or an earlier one; `None` without a page.
    pub(crate) age: Option<Duration>,
    /// Time since which the displayed page differs from Refold's; `None` without a page.
    pub(crate) outdated: Option<Duration>,
}

/// The server that dashboards poll, and their key for it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) client: HttpClient,
    pub(crate) base_url: String,
    pub(crate) key: &'static str,
}

/// A response, with the headers that the experiment evaluates.
pub(crate) struct TargetResponse {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<u64>,
    pub(crate) age: Duration,
    stale: bool,
    pub(crate) body: Bytes,
}

impl Target {
    /// Sends a GET for an account; `rest` is the part of the target after the collection's path.
    pub(crate) async fn get(&self, account: usize, rest: &str) -> Result<TargetResponse, BenchError> {
        let request = Request::get(format!("{}/api/v2/public/execution{rest}", self.base_url))
            .header("x-api-key", self.key)
            .header("linked_account_id", account_id(account))
            .body(Full::default())?;
        self.send(request).await
    }

    /// Sends a GET of the collection with a session token.
    pub(crate) async fn get_with_token(&self, token: &str) -> Result<TargetResponse, BenchError> {
        let request = Request::get(format!("{}/api/v2/public/execution", self.base_url))
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())?;
        self.send(request).await
    }

    /// Sends a GET, and once more if the server closed an idle connection as the request went out on it (RFC 9110, 9.2.2).
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<TargetResponse, BenchError> {
        let response = match self.client.request(request.clone()).await {
            Err(error) if is_closed_connection(&error) => self.client.request(request).await,
            response => response,
        };
        let (head, body) = response?.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(TargetResponse {
            status: head.status,
            retry_after: text("retry-after").parse().ok(),
            // In whole seconds, rounded down.
            age: Duration::from_secs(text("age").parse().unwrap_or(0)),
            stale: text("cache-status").contains("detail=stale"),
            body,
        })
    }
}

/// True if a connection was closed before a response came on it.
fn is_closed_connection(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
            || matches!(io, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
    })
}

pub(crate) fn account_id(account: usize) -> String {
    format!("account-{account}")
}

/// Runs all dashboards for the duration of the measurement.
pub(crate) async fn poll(
    target: &Target,
    simulator: &Simulator,
    with_greedy_account: bool,
) -> Result<Vec<PollSample>, BenchError> {
    let samples = Arc::new(Mutex::new(Vec::with_capacity(POLLERS * 40)));
    let begun = Instant::now();
    let additional = if with_greedy_account { GREEDY_POLLERS } else { 0 };
    let tasks: Vec<_> = (0..POLLERS + additional)
        .map(|number| {
            let (target, simulator, samples) = (target.clone(), simulator.clone(), Arc::clone(&samples));
            tokio::spawn(async move {
                tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
                let mut dashboard = Dashboard::new(number);
                while begun.elapsed() < MEASURED {
                    let next = tokio::time::Instant::now() + INTERVAL;
                    let sample = dashboard.refresh(&target, &simulator, begun).await?;
                    samples.lock().await.push(sample);
                    tokio::time::sleep_until(next).await;
                }
                Ok::<_, BenchError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(Arc::try_unwrap(samples).map_err(|_| "a dashboard is still running")?.into_inner())
}

struct Dashboard {
    account: usize,
    query: String,
    /// The displayed page, and when it was Refold's.
    displayed: Option<(Bytes, Instant)>,
}

impl Dashboard {
    fn new(number: usize) -> Self {
        let query = QUERIES[number / ACCOUNTS % QUERIES.len()];
        match number.checked_sub(POLLERS) {
            None => Self { account: number % ACCOUNTS, query: query.to_owned(), displayed: None },
            Some(greedy) => {
                let separator = if query.is_empty() { '?' } else { '&' };
                let page = greedy / QUERIES.len() + 1;
                Self { account: 0, query: format!("{query}{separator}page={page}"), displayed: None }
            }
        }
    }

    async fn refresh(
        &mut self,
        target: &Target,
        simulator: &Simulator,
        measurement: Instant,
    ) -> Result<PollSample, BenchError> {
        let begun = Instant::now();
        let response = target.get(self.account, &self.query).await?;
        if response.status == StatusCode::OK {
            // Refold itself sends no `Age`: its page counts from the request on.
            self.displayed = begun.checked_sub(response.age).map(|at| (response.body, at));
        }
        let age = self.displayed.as_ref().map(|(_, at)| at.elapsed());
        let outdated = self.displayed.as_ref().map(|(page, at)| self.outdated(page, at.elapsed(), simulator));
        Ok(PollSample {
            account: self.account,
            at: measurement.elapsed(),
            wait: begun.elapsed(),
            status: response.status,
            stale: response.stale,
            age,
            outdated,
        })
    }

    /// Returns for how long a displayed page has been outdated.
    fn outdated(&self, page: &Bytes, age: Duration, simulator: &Simulator) -> Duration {
        let account = account_id(self.account);
        let since = simulator.last_change(&account).map(|changed| Timestamp::now().duration_since(changed));
        let since = since.map_or(Duration::MAX, |since| Duration::try_from(since).unwrap_or_default());
        // The page is compared only if the account may have changed since: ages are in whole seconds.
        if since > age + Duration::from_secs(1) {
            return Duration::ZERO;
        }
        let is_current = simulator.peek(&account, self.query.strip_prefix('?')).is_some_and(|now| now == *page);
        if is_current { Duration::ZERO } else { since }
    }
}
