//! The time until a gateway has earned the trust in derived answers.

use std::time::{Duration, Instant};

use postern::server::Server;

use crate::poll::Target;
use crate::{ACCOUNTS, BenchError, INTERVAL, QUERIES};

/// The kinds of derivation that the dashboards' queries need.
pub(crate) const KINDS: [&str; 3] = ["slice", "status", "execution_source"];
/// Time after trust is earned until the measurement, in which pages that were fetched one by one are renewed.
const SETTLED_AFTER: Duration = Duration::from_mins(1);
/// The longest time that is waited for trust.
const LONGEST: Duration = Duration::from_mins(5);

/// The time until all kinds were in use.
#[derive(Clone, Copy)]
pub(crate) enum Earned {
    /// All kinds are in use after this time.
    After(Duration),
    /// So many kinds are in use after [`LONGEST`].
    Kinds(usize),
    /// Trust need not be earned: answers are never derived, or there is no gateway.
    NotNeeded,
}

impl Earned {
    pub(crate) fn text(self) -> String {
        match self {
            Self::After(time) => format!("{:.1} s", time.as_secs_f64()),
            Self::Kinds(kinds) => format!("{kinds} of {} kinds after {} s", KINDS.len(), LONGEST.as_secs()),
            Self::NotNeeded => "-".to_owned(),
        }
    }
}

/// The state of a kind of derivation of the only tenant; `None` if trust need not be earned.
pub(crate) fn state(server: &Server, kind: &str) -> Option<&'static str> {
    let trust = server.gateway().status().tenants.first()?.derivation.clone()?;
    trust.kinds.iter().find(|state| state.kind == kind).map(|state| state.state)
}

/// Polls every query as the dashboards do, until all kinds are in use and the pages from before that have been renewed.
pub(crate) async fn earn(target: &Target, server: &Server) -> Result<Earned, BenchError> {
    let begun = Instant::now();
    let in_use = || KINDS.iter().filter(|kind| state(server, kind) == Some("in_use")).count();
    let mut polls = tokio::task::JoinSet::new();
    for number in 0..ACCOUNTS * QUERIES.len() {
        let target = target.clone();
        polls.spawn(async move {
            tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
            loop {
                let next = tokio::time::Instant::now() + INTERVAL;
                target.get(number % ACCOUNTS, QUERIES[number / ACCOUNTS]).await?;
                tokio::time::sleep_until(next).await;
            }
            #[expect(unreachable_code, reason = "gives the errors of the loop their type")]
            Ok::<(), BenchError>(())
        });
    }
    let is_needed = state(server, KINDS[0]).is_some();
    let (mut earned, mut settled) = (Earned::NotNeeded, begun + SETTLED_AFTER);
    while Instant::now() < settled {
        if is_needed && matches!(earned, Earned::NotNeeded) {
            if in_use() == KINDS.len() {
                earned = Earned::After(begun.elapsed());
            } else if begun.elapsed() > LONGEST {
                // The end of the set stops the polls.
                return Ok(Earned::Kinds(in_use()));
            }
            settled = Instant::now() + SETTLED_AFTER;
        }
        tokio::select! {
            Some(failed) = polls.join_next() => failed??,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    Ok(earned)
}
