//! The load experiment: 1,000 dashboards poll through a rate limit of 20 requests per second.
//!
//! It measures the share of successful responses, the waiting time, and the age of the displayed pages. Other variants repeat
//! that with parts of the gateway switched off, and without a gateway.
//!
//! `cargo bench --bench load -- table` runs all variants, each with a simulated Refold, a gateway and pollers of its own, and
//! prints tables; further arguments name the variants to run. As many run at the same time as the limit of open files allows:
//! with 35,000 all of them, for about nine minutes. Without an argument
//! (as `cargo test` and a plain `cargo bench` run it) the program ends at once.

#![expect(clippy::print_stdout, reason = "prints the results")]
#![expect(clippy::disallowed_methods, reason = "measures in real time")]

mod contrary;
mod poll;
mod report;
mod trouble;
mod trust;
mod upstream;
mod variant;

use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::report::VariantReport;
use crate::variant::VARIANTS;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// Number of dashboards.
const POLLERS: usize = 1000;
/// Number of linked accounts that the dashboards show.
const ACCOUNTS: usize = 200;
/// Interval between two requests of a dashboard.
const INTERVAL: Duration = Duration::from_secs(2);
/// Duration of the measurement, which follows a warm-up in which every query is answered once.
const MEASURED: Duration = Duration::from_mins(1);
/// Queries of the dashboards: the first page, or one of three filters of it.
const QUERIES: [&str; 4] = ["", "?status=ERRORED", "?status=RUNNING", "?execution_source=Event"];
/// Open files of a variant: both ends of each dashboard's connection, and others.
const OPEN_FILES: usize = 5 * POLLERS / 2;
/// Rate limit that Refold publishes, in requests per second.
const PER_SECOND: usize = 20;

fn main() -> Result<(), BenchError> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(("table", names)) = arguments.split_first().map(|(first, names)| (first.as_str(), names)) else {
        return Ok(());
    };
    let is_chosen = |name: &str| names.is_empty() || names.iter().any(|chosen| chosen == name);
    let chosen: Vec<_> = VARIANTS.into_iter().filter(|variant| is_chosen(variant.name)).collect();
    let contrary = is_chosen(contrary::NAME).then(|| spawn(contrary::run));
    let mut reports: Vec<VariantReport> = Vec::new();
    for at_once in chosen.chunks(variants_at_once()) {
        let threads: Vec<_> = at_once.iter().copied().map(|variant| spawn(move || variant.run())).collect();
        for thread in threads {
            reports.push(join(thread)?);
        }
    }
    report::print(&reports);
    if let Some(thread) = contrary {
        contrary::print(&join(thread)?);
    }
    Ok(())
}

/// The number of variants whose connections fit into the limit of open files, beside those of `contrary`.
fn variants_at_once() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (usize::try_from(limit).unwrap_or(usize::MAX) / OPEN_FILES).saturating_sub(1).max(1)
}

/// Runs a variant in a thread and a runtime of its own.
fn spawn<R, F>(run: impl FnOnce() -> F + Send + 'static) -> JoinHandle<Result<R, BenchError>>
where
    R: Send + 'static,
    F: Future<Output = Result<R, BenchError>>,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run())
    })
}

fn join<R>(thread: JoinHandle<Result<R, BenchError>>) -> Result<R, BenchError> {
    thread.join().map_err(|_| BenchError::from("the thread of a variant panicked"))?
}
