//! Runs concurrent code of Postern under a scheduler that decides which thread goes on at each operation of a lock, an atomic or a
//! wait: <https://docs.rs/shuttle>. A model states a property, and fails with the first schedule that breaks it.
//!
//! The files of `../src` are compiled here as they are, with another `crate::sync`. What else they name and the models do not check
//! (an error, a partition's fields) has a stand-in. Operations of tokio's channels and of papaya's map are single steps here: their
//! authors check them. Schedules are sequentially consistent, so the models do not find an ordering of atomics that is too weak.
//!
//!     cargo run [MODEL ...]     INTERLEAVINGS (2000) is the number of schedules by each of two schedulers

mod cache;
#[path = "../../src/clock.rs"]
#[allow(dead_code, reason = "the models need a part of it")]
mod clock;
mod observe;
mod stand_ins;
mod sync;
mod tenant;

use std::time::Instant;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use stand_ins::{caller, error};

/// A model: its name, which states the property, and one run of it.
type Model = (&'static str, fn());

/// Most changes of the running thread against its priority in a schedule of the second scheduler.
const PREEMPTIONS: usize = 3;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let schedules: usize = std::env::var("INTERLEAVINGS").map_or(2000, |number| number.parse().expect("a number"));
    let models = [cache::MODELS, tenant::MODELS, observe::MODELS].concat();
    assert!(chosen.iter().all(|name| models.iter().any(|(model, _)| model == name)), "no such model: {chosen:?}");
    for (name, run) in models.into_iter().filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|it| it == name)) {
        println!("{name} ...");
        let schedules = if name == observe::LARGE { schedules.div_ceil(50) } else { schedules };
        let begun = Instant::now();
        check(RandomScheduler::new(schedules), run);
        check(PctScheduler::new(PREEMPTIONS, schedules), run);
        println!("{name}: {} schedules, {:.1} s", 2 * schedules, begun.elapsed().as_secs_f64());
    }
}

fn check(scheduler: impl Scheduler + 'static, run: fn()) {
    let mut config = Config::new();
    // A thread that waits in vain takes no more than this, and a schedule of that length is not worth printing.
    config.max_steps = MaxSteps::FailAfter(100_000);
    config.failure_persistence = FailurePersistence::None;
    Runner::new(scheduler, config).run(run);
}
