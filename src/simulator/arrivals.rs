//! When the latest requests arrived at the simulated Refold.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Mutex;

use super::lock::lock;
use crate::clock::Moment;

/// Number of requests that are remembered.
const REMEMBERED: usize = 65_536;

/// One request for executions with a valid credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrived.
    pub at: Moment,
    /// Its linked account.
    pub linked_account: String,
    /// True if it was refused because of the rate limit.
    pub is_limited: bool,
}

/// The latest requests, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<VecDeque<Arrival>>);

impl Arrivals {
    pub(super) fn add(&self, arrival: Arrival) {
        let mut arrivals = lock(&self.0);
        if arrivals.len() == REMEMBERED {
            arrivals.pop_front();
        }
        arrivals.push_back(arrival);
    }

    pub(super) fn all(&self) -> Vec<Arrival> {
        lock(&self.0).iter().cloned().collect()
    }

    /// Returns a line for each request: microseconds on the monotonic clock, 200 or 429, and the linked account. The first line has
    /// the present time.
    pub(super) fn to_text(&self, now: Moment) -> String {
        let mut text = format!("{} now\n", now.as_nanos() / 1000);
        for Arrival { at, linked_account, is_limited } in lock(&self.0).iter() {
            let status = if *is_limited { 429 } else { 200 };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {status} {linked_account}", at.as_nanos() / 1000);
        }
        text
    }
}
