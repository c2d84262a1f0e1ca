//! The row `contrary`: a Refold whose lists begin to contradict each other when derived answers are trusted.
//!
//! Each answer is compared with Refold's own as of its `Age`. After the first confirmed contradiction of a kind of derivation no
//! answer of that kind may differ.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use postern::clock::Clock;
use postern::server::Server;
use postern::simulator::{ContrarySet, Fault, Simulator};

use crate::poll::{Target, TargetResponse, account_id};
use crate::trust::{Earned, KINDS, earn, state};
use crate::upstream::SimulatedUpstream;
use crate::variant::{VARIANTS, warm_up};
use crate::{ACCOUNTS, BenchError, INTERVAL, MEASURED, POLLERS, QUERIES};

/// The name of the row.
pub(crate) const NAME: &str = "contrary";
/// The kind of derivation by which the answer to each of the queries follows.
const KIND_OF_QUERY: [&str; QUERIES.len()] = [KINDS[0], KINDS[1], KINDS[1], KINDS[2]];
/// The distance of the moments at which an answer is compared with Refold's own.
const STEP: Duration = Duration::from_millis(20);

pub(crate) struct ContraryReport {
    earned: Earned,
    kinds: Vec<(&'static str, KindReport)>,
}

/// The answers of one kind.
#[derive(Clone, Copy, Default)]
struct KindReport {
    /// Time from the first contradictory answer of Refold until the gateway had confirmed the contradiction.
    contradicted_after: Option<Duration>,
    before: Count,
    after: Count,
}

#[derive(Clone, Copy, Default)]
struct Count {
    answers: usize,
    differ: usize,
}

/// The dashboards' shared view of the experiment.
struct Experiment {
    target: Target,
    simulator: Simulator,
    contrary: ContrarySet,
    switched: (Instant, Timestamp),
    reports: Mutex<HashMap<&'static str, KindReport>>,
}

pub(crate) async fn run() -> Result<ContraryReport, BenchError> {
    let clock = Clock::system();
    let upstream = SimulatedUpstream::start(&clock)?;
    let server = VARIANTS[0].start_gateway(&upstream, clock)?;
    let target = VARIANTS[0].target(&server, &upstream)?;
    warm_up(&target).await?;
    let earned = earn(&target, &server).await?;
    let contrary = "all".parse().map_err(|()| "the simulated Refold knows no contrary lists")?;
    upstream.simulator.set_fault(Some(Fault::Contrary(contrary)));
    let experiment = Arc::new(Experiment {
        target,
        simulator: upstream.simulator.clone(),
        contrary,
        switched: (Instant::now(), Timestamp::now()),
        reports: Mutex::new(KINDS.map(|kind| (kind, KindReport::default())).into()),
    });
    let dashboards: Vec<_> = (0..POLLERS).map(|number| tokio::spawn(Arc::clone(&experiment).poll(number))).collect();
    let watching = experiment.watch(&server);
    let polling = async {
        for dashboard in dashboards {
            dashboard.await??;
        }
        Ok::<_, BenchError>(())
    };
    tokio::select! {
        polled = polling => polled?,
        () = watching => {}
    }
    let reports = experiment.reports.lock().map_err(|_| "a dashboard panicked")?;
    Ok(ContraryReport { earned, kinds: KINDS.map(|kind| (kind, reports[kind])).to_vec() })
}

impl Experiment {
    /// Notes when each kind is put out of use. Never ends.
    async fn watch(&self, server: &Server) {
        loop {
            for kind in KINDS {
                if state(server, kind) == Some("out_of_use")
                    && let Ok(mut reports) = self.reports.lock()
                    && let Some(report) = reports.get_mut(kind)
                {
                    report.contradicted_after.get_or_insert_with(|| self.switched.0.elapsed());
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn poll(self: Arc<Self>, number: usize) -> Result<(), BenchError> {
        let (account, query) = (number % ACCOUNTS, number / ACCOUNTS % QUERIES.len());
        tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
        while self.switched.0.elapsed() < MEASURED {
            let next = tokio::time::Instant::now() + INTERVAL;
            let (sent, sent_at) = (self.switched.0.elapsed(), Timestamp::now());
            let response = self.target.get(account, QUERIES[query]).await?;
            if response.status == StatusCode::OK {
                let differs = !self.is_refolds_own(&account_id(account), QUERIES[query], sent_at, &response);
                self.count(KIND_OF_QUERY[query], sent, differs)?;
            }
            tokio::time::sleep_until(next).await;
        }
        Ok(())
    }

    fn count(&self, kind: &'static str, sent: Duration, differs: bool) -> Result<(), BenchError> {
        let mut reports = self.reports.lock().map_err(|_| "a dashboard panicked")?;
        let report = reports.get_mut(kind).ok_or("an unknown kind")?;
        let is_after = report.contradicted_after.is_some_and(|contradicted| sent > contradicted);
        let count = if is_after { &mut report.after } else { &mut report.before };
        count.answers += 1;
        count.differ += usize::from(differs);
        Ok(())
    }

    /// True if Refold would have sent this response at one of the moments that its `Age`, in whole seconds, can mean.
    fn is_refolds_own(&self, account: &str, query: &str, sent: Timestamp, response: &TargetResponse) -> bool {
        let query = query.strip_prefix('?');
        let (mut at, first) = (Timestamp::now() - response.age, sent - response.age - Duration::from_secs(1) - STEP);
        while at >= first {
            let own = |contrary| self.simulator.peek_at(account, query, at, contrary);
            let was_switched = at + STEP >= self.switched.1;
            let is_own = was_switched && own(self.contrary).is_some_and(|own| own == response.body)
                || at <= self.switched.1 && own(ContrarySet::default()).is_some_and(|own| own == response.body);
            if is_own {
                return true;
            }
            at -= STEP;
        }
        false
    }
}

pub(crate) fn print(report: &ContraryReport) {
    println!(
        "\n{NAME}: trust was earned after {}; then the lists of Refold contradict each other",
        report.earned.text()
    );
    println!("{:17} {:>20} {:>24} {:>24}", "", "contradiction found", "differ before, of", "differ after, of");
    for (kind, KindReport { contradicted_after, before, after }) in &report.kinds {
        let found = contradicted_after.map_or("-".to_owned(), |found| format!("{:.1} s", found.as_secs_f64()));
        let count = |count: &Count| format!("{} of {}", count.differ, count.answers);
        println!("{kind:17} {found:>20} {:>24} {:>24}", count(before), count(after));
    }
}
