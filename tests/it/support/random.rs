//! Seeded randomness.

use std::sync::{Arc, Mutex};

/// A generator that tasks share.
#[derive(Clone)]
pub(crate) struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seeded(seed))))
    }

    pub(crate) fn byte(&self) -> u8 {
        self.0.lock().expect("no panic").u8(..)
    }
}

/// A generator with a constant seed. The seed is printed, so a failing test shows it.
#[expect(clippy::print_stdout, reason = "the test harness shows it only if the test fails")]
pub(crate) fn seeded(seed: u64) -> fastrand::Rng {
    println!("seed {seed:#x}");
    fastrand::Rng::with_seed(seed)
}
