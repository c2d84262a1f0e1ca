//! A thousand dashboards inside twenty requests a second: what they get, how long they wait, and how old it is; beside it the
//! same load with parts of the gateway switched off, and with no gateway at all.
//!
//! `cargo bench --bench load -- table` runs all variants side by side, each with a simulated Refold, a gateway and pollers of
//! its own, and prints tables after two minutes; names of variants after it pick some. Without an argument (as `cargo test` and
//! a plain `cargo bench` run it) it ends at once.

#![expect(clippy::print_stdout, reason = "figures for people, printed")]
#![expect(clippy::disallowed_methods, reason = "measures in real time")]

mod poll;
mod refold;
mod report;
mod variant;

use std::time::Duration;

use crate::report::Report;
use crate::variant::VARIANTS;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Dashboards, and the linked accounts that they show.
const POLLERS: usize = 1000;
const ACCOUNTS: usize = 200;
/// How often each of them asks.
const INTERVAL: Duration = Duration::from_secs(2);
/// What is measured, after a warm-up in which every question was answered once.
const MEASURED: Duration = Duration::from_mins(1);
/// What they ask for: the first page, or one of three filters of it.
const QUESTIONS: [&str; 4] = ["", "?status=ERRORED", "?status=RUNNING", "?execution_source=Event"];
/// What Refold publishes.
const PER_SECOND: usize = 20;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let Some(("table", names)) = arguments.split_first().map(|(first, names)| (first.as_str(), names)) else {
        return Ok(());
    };
    let picked =
        VARIANTS.into_iter().filter(|variant| names.is_empty() || names.iter().any(|name| name == variant.name));
    let running: Vec<_> = picked
        .map(|variant| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(variant.run())
            })
        })
        .collect();
    let reports: Vec<Report> = running
        .into_iter()
        .map(|thread| thread.join().map_err(|_| Failure::from("a variant has died"))?)
        .collect::<Result<_, _>>()?;
    report::print(&reports);
    Ok(())
}
