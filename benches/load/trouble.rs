//! Trouble during the measurement: an upstream that fails over or is slow, and strangers with made-up credentials and ids.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use postern::server::Server;
use postern::simulator::{Disruption, Fault, Habit, Simulator};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep_until};

use crate::poll::{Target, TargetResponse};
use crate::{ACCOUNTS, BenchError, MEASURED};

/// Time from one new question to the next.
const NEW_QUESTION: Duration = Duration::from_millis(250);
/// Response time of Refold in the row `failover`, so that several connections are in use.
const USUAL_LATENCY: Duration = Duration::from_millis(300);
/// Response time of a slow Refold.
const SLOW_LATENCY: Duration = Duration::from_secs(3);
/// Time from one made-up session token to the next.
const STRANGER: Duration = Duration::from_millis(20);
/// Time from one bad id to the next.
const BAD_ID: Duration = Duration::from_secs(1);

/// The kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Three times, nothing comes back any more on any open connection to Refold; new connections are fine.
    Failover,
    /// From the tenth second on Refold takes 3 s for each response.
    Slow,
    /// 50 made-up session tokens per second, to which Refold says 500 or 429, and one caller with ever new bad ids, to which it
    /// says 500.
    Strangers,
}

/// One additional request.
struct Additional {
    status: StatusCode,
    wait: Duration,
    /// The body of an error; otherwise empty.
    error: Bytes,
}

/// The effects of a trouble.
pub(crate) struct TroubleReport {
    kind: Trouble,
    /// The additional requests: new questions, or those of strangers.
    additional: Vec<Additional>,
    circuits_opened: u64,
    /// Requests that the gateway meant to send, retries included.
    attempts: u64,
}

impl Trouble {
    /// Causes the trouble for the duration of the measurement.
    pub(crate) async fn cause(
        self,
        target: &Target,
        simulator: &Simulator,
        server: &Server,
    ) -> Result<TroubleReport, BenchError> {
        let before = Counts::of(server);
        let begun = tokio::time::Instant::now();
        let events = async {
            match self {
                Self::Failover => {
                    simulator.set_fault(Some(Fault::Latency(USUAL_LATENCY)));
                    for quarter in 1..=3 {
                        sleep_until(begun + MEASURED / 4 * quarter).await;
                        simulator.disrupt_connections(Disruption::BlackHole);
                    }
                }
                Self::Slow => {
                    sleep_until(begun + MEASURED / 6).await;
                    simulator.set_fault(Some(Fault::Latency(SLOW_LATENCY)));
                }
                Self::Strangers => {
                    simulator.set_habit(Habit::BadIds(StatusCode::INTERNAL_SERVER_ERROR));
                    let statuses = vec![StatusCode::INTERNAL_SERVER_ERROR, StatusCode::TOO_MANY_REQUESTS];
                    simulator.set_habit(Habit::UnknownTokens(statuses));
                }
            }
        };
        let (additional, ()) = tokio::join!(self.send(target), events);
        // Refold stays as slow as it is until its requests are counted: with a shorter latency, requests that it has had for a while
        // would be counted at the same time as new ones, and exceed its limit.
        let after = Counts::of(server);
        Ok(TroubleReport {
            kind: self,
            additional: additional?,
            circuits_opened: after.circuits_opened - before.circuits_opened,
            attempts: after.attempts - before.attempts,
        })
    }

    /// Sends the additional requests, each in a task of its own.
    async fn send(self, target: &Target) -> Result<Vec<Additional>, BenchError> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        let mut ticks = interval(if self == Self::Strangers { STRANGER } else { NEW_QUESTION });
        for number in 0.. {
            ticks.tick().await;
            if begun.elapsed() >= MEASURED {
                break;
            }
            let target = target.clone();
            if self != Self::Strangers {
                tasks.spawn(async move {
                    timed(target.get(1 + number % (ACCOUNTS - 1), &format!("?workflow_name=new-{number}"))).await
                });
                continue;
            }
            let bad_ids = usize::try_from(BAD_ID.as_millis() / STRANGER.as_millis())?;
            if number % bad_ids == 0 {
                let target = target.clone();
                tasks.spawn(async move { timed(target.get(0, &format!("/bad-{number}"))).await });
            }
            tasks.spawn(async move { timed(target.get_with_token(&format!("made-up-{number}"))).await });
        }
        let results = tasks.join_all().await;
        results.into_iter().collect()
    }
}

async fn timed(request: impl Future<Output = Result<TargetResponse, BenchError>>) -> Result<Additional, BenchError> {
    let begun = Instant::now();
    let response = request.await?;
    let error = if response.status.is_success() { Bytes::new() } else { response.body };
    Ok(Additional { status: response.status, wait: begun.elapsed(), error })
}

/// Counts of the gateway's own metrics.
struct Counts {
    circuits_opened: u64,
    attempts: u64,
}

impl Counts {
    fn of(server: &Server) -> Self {
        let metrics = server.gateway().metrics(&server.lifecycle().reloads(), &[]);
        let sum = |name: &str| -> u64 {
            let lines =
                metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Self {
            circuits_opened: sum("postern_upstream_circuit_opened_total"),
            attempts: sum("postern_upstream_request_duration_seconds_count") + sum("postern_upstream_in_flight"),
        }
    }
}

impl TroubleReport {
    /// Prints the effects. `refold` is the number of requests that reached Refold, and `refused` of them were answered 429.
    pub(crate) fn print(&self, name: &str, refold: u64, refused: u64) {
        let mut waits: Vec<_> = self.additional.iter().map(|request| request.wait.as_secs_f64()).collect();
        waits.sort_unstable_by(f64::total_cmp);
        let count =
            |test: fn(&StatusCode) -> bool| self.additional.iter().filter(|request| test(&request.status)).count();
        let at = |part: usize| waits.get(waits.len() * part / 100).or(waits.last()).copied().unwrap_or_default();
        let description = match self.kind {
            Trouble::Failover => {
                "all connections to Refold went silent at seconds 15, 30 and 45; 4 new questions per second"
            }
            Trouble::Slow => "Refold took 3 s for each response from second 10 on; 4 new questions per second",
            Trouble::Strangers => "50 made-up tokens and one bad id per second, which Refold answers with 500 or 429",
        };
        println!("\n{name}: {description}");
        println!(
            "{:>6} additional requests: 200 {}, 401 {}, 429 {}, 5xx {}; wait p50 {:.1} s, p99 {:.1} s, longest {:.1} s",
            self.additional.len(),
            count(|status| *status == StatusCode::OK),
            count(|status| *status == StatusCode::UNAUTHORIZED),
            count(|status| *status == StatusCode::TOO_MANY_REQUESTS),
            count(StatusCode::is_server_error),
            at(50),
            at(99),
            at(100),
        );
        let ratio = f64::from(u32::try_from(refold).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(self.attempts).unwrap_or(u32::MAX));
        println!(
            "{:>6} requests reached Refold, {ratio:.3} times those of a patient client; 429s {refused}; circuits opened {}",
            refold, self.circuits_opened
        );
        let errors =
            self.additional.iter().filter(|request| !request.error.is_empty() && self.kind != Trouble::Strangers);
        for request in errors {
            println!("        after {:.1} s: {}", request.wait.as_secs_f64(), String::from_utf8_lossy(&request.error));
        }
    }
}
