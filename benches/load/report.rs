//! What came out, as tables.

use std::time::Duration;

use http::StatusCode;

use crate::MEASURED;
use crate::poll::Sample;

/// What one variant came to.
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Sample>,
    pub(crate) seconds: f64,
    /// Requests that reached Refold, and those of them that it refused with 429.
    pub(crate) asked: u64,
    pub(crate) refused: u64,
    pub(crate) bound: Option<Duration>,
    pub(crate) least: Option<Duration>,
    pub(crate) cold: Cold,
    /// From which second to which Refold was gone.
    pub(crate) outage: Option<(u64, u64)>,
}

/// How the first answers were had.
#[derive(Default)]
pub(crate) struct Cold {
    pub(crate) waits: Vec<Duration>,
    /// `Retry-After` of those that were refused.
    pub(crate) refused: Vec<u64>,
    pub(crate) until_all: Duration,
}

pub(crate) fn print(reports: &[Report]) {
    println!("1,000 dashboards of 200 linked accounts, every 2 s for a minute, after every question was answered once");
    println!(
        "{:14} {:>7} {:>7} {:>7} {:>8} {:>5} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>8} {:>7} {:>8} {:>8}",
        "",
        "answers",
        "served",
        "stale",
        "Refold/s",
        "429s",
        "wait p50",
        "wait p99",
        "age p50",
        "age p99",
        "bound",
        "ratio",
        "late p99",
        "least",
        "wrong50",
        "wrong99"
    );
    reports.iter().for_each(Report::line);
    println!(
        "All but of account 0, which is the greedy one. age: of what the dashboard shows; late: in the second half minute."
    );
    println!("bound: distinct questions whose answers do not follow from others' as they are asked, at 20/s.");
    println!(
        "least: one request for each linked account, at 20/s: what a gateway can come to that asks for lists as a whole."
    );
    println!("wrong: for how long what the dashboard shows has not been true any more.\n");
    println!("cold start: all ask at once what nobody has asked before; who is refused comes again when told to");
    println!(
        "{:14} {:>9} {:>9} {:>9} {:>9} {:>13} {:>10}",
        "", "answered", "wait p50", "wait p99", "refused", "Retry-After", "all after"
    );
    reports.iter().for_each(Report::cold_line);
    reports.iter().for_each(Report::outage_lines);
}

impl Report {
    fn line(&self) {
        let others: Vec<&Sample> = self.samples.iter().filter(|sample| sample.account != 0).collect();
        let served = others.iter().filter(|sample| sample.status == StatusCode::OK).count();
        let stale = others.iter().filter(|sample| sample.stale).count();
        let waits = sorted(others.iter().map(|sample| sample.wait));
        let ages = sorted(others.iter().filter_map(|sample| sample.age));
        let late = sorted(others.iter().filter(|sample| sample.at > MEASURED / 2).filter_map(|sample| sample.age));
        let outdated = sorted(others.iter().filter_map(|sample| sample.outdated));
        let age = percentile(&ages, 99);
        let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
        let or_none = |duration: Option<Duration>| duration.map_or("-".to_owned(), seconds);
        let ratio = self.bound.map(|bound| format!("{:.2}", age.as_secs_f64() / bound.as_secs_f64()));
        println!(
            "{:14} {:>7} {:>6.2}% {:>6.1}% {:>8.2} {:>5} {:>6.1} ms {:>6.1} ms {:>7} {:>7} {:>7} {:>6} {:>8} {:>7} {:>8} {:>8}",
            self.name,
            others.len(),
            share(served, others.len()),
            share(stale, others.len()),
            exact(self.asked) / self.seconds,
            self.refused,
            percentile(&waits, 50).as_secs_f64() * 1e3,
            percentile(&waits, 99).as_secs_f64() * 1e3,
            seconds(percentile(&ages, 50)),
            seconds(age),
            or_none(self.bound),
            ratio.as_deref().unwrap_or("-"),
            seconds(percentile(&late, 99)),
            or_none(self.least),
            seconds(percentile(&outdated, 50)),
            seconds(percentile(&outdated, 99)),
        );
    }

    fn cold_line(&self) {
        let waits = sorted(self.cold.waits.iter().copied());
        let least = self.cold.refused.iter().min().copied().unwrap_or(0);
        let most = self.cold.refused.iter().max().copied().unwrap_or(0);
        println!(
            "{:14} {:>9} {:>7.1} s {:>7.1} s {:>9} {:>6} to {most} s {:>8.1} s",
            self.name,
            waits.len(),
            percentile(&waits, 50).as_secs_f64(),
            percentile(&waits, 99).as_secs_f64(),
            self.cold.refused.len(),
            least,
            self.cold.until_all.as_secs_f64(),
        );
    }

    fn outage_lines(&self) {
        let Some((from, to)) = self.outage else { return };
        println!("\n{}: Refold was gone from second {from} to second {to}", self.name);
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        let end = Duration::MAX;
        for (name, from, to) in [("before", Duration::ZERO, from), ("while", from, to), ("after", to, end)] {
            let within: Vec<_> = self.samples.iter().filter(|sample| (from..to).contains(&sample.at)).collect();
            let count = |test: &dyn Fn(&Sample) -> bool| within.iter().filter(|sample| test(sample)).count();
            println!(
                "{name:8} {:>6} answers, served {:.2}%, marked stale {:.1}%, 5xx {}, 429 {}",
                within.len(),
                share(count(&|sample| sample.status == StatusCode::OK), within.len()),
                share(count(&|sample| sample.stale), within.len()),
                count(&|sample| sample.status.is_server_error()),
                count(&|sample| sample.status == StatusCode::TOO_MANY_REQUESTS),
            );
        }
    }
}

fn sorted(durations: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut durations: Vec<_> = durations.collect();
    durations.sort_unstable();
    durations
}

fn percentile(sorted: &[Duration], part: usize) -> Duration {
    sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn share(part: usize, all: usize) -> f64 {
    100.0 * exact(part as u64) / exact(all.max(1) as u64)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
fn exact(count: u64) -> f64 {
    count as f64
}
