//! The results as tables.

use std::ops::Range;
use std::time::Duration;

use http::StatusCode;

use crate::MEASURED;
use crate::poll::PollSample;
use crate::trouble::TroubleReport;
use crate::trust::Earned;

/// The results of one variant.
pub(crate) struct VariantReport {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<PollSample>,
    pub(crate) seconds: f64,
    /// Requests that reached Refold.
    pub(crate) upstream_requests: u64,
    /// Requests that Refold refused with 429; `upstream_requests` includes them.
    pub(crate) upstream_rate_limited: u64,
    pub(crate) age_bound: Option<Duration>,
    pub(crate) age_minimum: Option<Duration>,
    pub(crate) cold_start: ColdStart,
    /// Time from the warm-up until the trust in derived answers was earned.
    pub(crate) trust_earned: Earned,
    /// Period in which Refold was unreachable.
    pub(crate) outage: Option<Range<Duration>>,
    pub(crate) trouble: Option<TroubleReport>,
}

/// The results of the warm-up, which sends every query once.
#[derive(Default)]
pub(crate) struct ColdStart {
    pub(crate) waits: Vec<Duration>,
    /// `Retry-After` of the refused requests, in seconds.
    pub(crate) refused: Vec<u64>,
    /// Time until every query was answered.
    pub(crate) until_all: Duration,
}

pub(crate) fn print(reports: &[VariantReport]) {
    println!(
        "1,000 dashboards of 200 linked accounts poll every 2 s for a minute, after every query was answered once"
    );
    println!(
        "{:14} {:>9} {:>7} {:>7} {:>8} {:>5} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>8} {:>7} {:>9} {:>9}",
        "",
        "responses",
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
        "minimum",
        "wrong p50",
        "wrong p99"
    );
    reports.iter().for_each(VariantReport::print_line);
    println!(
        "Account 0, which is the greedy one, is left out. age: of the displayed page; late: in the second half minute."
    );
    println!("bound: lowest age if all queries are fetched whose responses do not follow from others, at 20/s.");
    println!(
        "minimum: lowest age with one request per linked account, at 20/s, for a gateway that fetches whole lists."
    );
    println!("wrong: time for which the displayed page has been outdated.\n");
    println!("cold start: every query once, all at the same time; a refused request is repeated after its Retry-After");
    println!(
        "trust in: time from then until the ways to derive answers are proven, before the minute that is measured"
    );
    println!(
        "{:14} {:>9} {:>9} {:>9} {:>9} {:>13} {:>10} {:>10}",
        "", "answered", "wait p50", "wait p99", "refused", "Retry-After", "all after", "trust in"
    );
    reports.iter().for_each(VariantReport::print_cold_start);
    reports.iter().for_each(VariantReport::print_outage);
    reports.iter().for_each(VariantReport::print_trouble);
}

impl VariantReport {
    fn print_line(&self) {
        let others: Vec<&PollSample> = self.samples.iter().filter(|sample| sample.account != 0).collect();
        let served = others.iter().filter(|sample| sample.status == StatusCode::OK).count();
        let stale = others.iter().filter(|sample| sample.stale).count();
        let waits = sorted(others.iter().map(|sample| sample.wait));
        let ages = sorted(others.iter().filter_map(|sample| sample.age));
        let late = sorted(others.iter().filter(|sample| sample.at > MEASURED / 2).filter_map(|sample| sample.age));
        let outdated = sorted(others.iter().filter_map(|sample| sample.outdated));
        let age = percentile(&ages, 99);
        let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
        let or_none = |duration: Option<Duration>| duration.map_or("-".to_owned(), seconds);
        let ratio = self.age_bound.map(|bound| format!("{:.2}", age.as_secs_f64() / bound.as_secs_f64()));
        println!(
            "{:14} {:>9} {:>6.2}% {:>6.1}% {:>8.2} {:>5} {:>6.1} ms {:>6.1} ms {:>7} {:>7} {:>7} {:>6} {:>8} {:>7} {:>9} {:>9}",
            self.name,
            others.len(),
            share(served, others.len()),
            share(stale, others.len()),
            to_f64(self.upstream_requests) / self.seconds,
            self.upstream_rate_limited,
            percentile(&waits, 50).as_secs_f64() * 1e3,
            percentile(&waits, 99).as_secs_f64() * 1e3,
            seconds(percentile(&ages, 50)),
            seconds(age),
            or_none(self.age_bound),
            ratio.as_deref().unwrap_or("-"),
            seconds(percentile(&late, 99)),
            or_none(self.age_minimum),
            seconds(percentile(&outdated, 50)),
            seconds(percentile(&outdated, 99)),
        );
    }

    fn print_cold_start(&self) {
        let waits = sorted(self.cold_start.waits.iter().copied());
        let shortest = self.cold_start.refused.iter().min().copied().unwrap_or(0);
        let longest = self.cold_start.refused.iter().max().copied().unwrap_or(0);
        println!(
            "{:14} {:>9} {:>7.1} s {:>7.1} s {:>9} {:>6} to {longest} s {:>8.1} s {:>10}",
            self.name,
            waits.len(),
            percentile(&waits, 50).as_secs_f64(),
            percentile(&waits, 99).as_secs_f64(),
            self.cold_start.refused.len(),
            shortest,
            self.cold_start.until_all.as_secs_f64(),
            self.trust_earned.text(),
        );
    }

    fn print_outage(&self) {
        let Some(outage) = &self.outage else { return };
        let (from, to) = (outage.start.as_secs(), outage.end.as_secs());
        println!("\n{}: Refold was unreachable from second {from} to second {to}", self.name);
        let phases = [
            ("before", Duration::ZERO..outage.start),
            ("during", outage.clone()),
            ("after", outage.end..Duration::MAX),
        ];
        for (name, phase) in phases {
            let within: Vec<_> = self.samples.iter().filter(|sample| phase.contains(&sample.at)).collect();
            let count = |test: &dyn Fn(&PollSample) -> bool| within.iter().filter(|sample| test(sample)).count();
            println!(
                "{name:8} {:>6} responses, served {:.2}%, marked stale {:.1}%, 5xx {}, 429 {}",
                within.len(),
                share(count(&|sample| sample.status == StatusCode::OK), within.len()),
                share(count(&|sample| sample.stale), within.len()),
                count(&|sample| sample.status.is_server_error()),
                count(&|sample| sample.status == StatusCode::TOO_MANY_REQUESTS),
            );
        }
    }

    fn print_trouble(&self) {
        if let Some(trouble) = &self.trouble {
            trouble.print(self.name, self.upstream_requests, self.upstream_rate_limited);
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
    100.0 * to_f64(part as u64) / to_f64(all.max(1) as u64)
}

#[expect(clippy::cast_precision_loss, reason = "counts of one minute are far below 2^52")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
