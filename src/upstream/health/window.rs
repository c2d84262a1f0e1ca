//! The fetches of the last seconds, and whether they show that the upstream fails.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Moment;
use crate::limit::FlowId;

/// Time for which a fetch counts.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Number of fetches that are kept, however many end within the window; more if the setting `failures` needs more.
const MAX_FETCHES: usize = 1024;

/// The fetches that ended in the last ten seconds and count.
#[derive(Debug, Default)]
pub(super) struct FailureWindow(VecDeque<EndedFetch>);

#[derive(Debug)]
struct EndedFetch {
    at: Moment,
    account: FlowId,
    has_failed: bool,
}

impl FailureWindow {
    /// Counts a fetch of a linked account, and returns whether the upstream fails: at least `failures` fetches and half of all
    /// have failed, over at least two linked accounts or the only one that has fetches. A success never shows it.
    pub(super) fn record(&mut self, account: FlowId, has_failed: bool, now: Moment, failures: NonZeroU32) -> bool {
        let Self(fetches) = self;
        while fetches.front().is_some_and(|oldest| now.since(oldest.at) >= WINDOW) {
            fetches.pop_front();
        }
        let failures = usize::try_from(failures.get()).unwrap_or(usize::MAX);
        if fetches.len() >= MAX_FETCHES.max(failures.saturating_mul(2)) {
            fetches.pop_front();
        }
        fetches.push_back(EndedFetch { at: now, account, has_failed });
        has_failed && self.shows_failure(failures)
    }

    /// Forgets all fetches.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn shows_failure(&self, failures: usize) -> bool {
        let failed = || self.0.iter().filter(|fetch| fetch.has_failed);
        let count = failed().count();
        if count < failures || count * 2 < self.0.len() {
            return false;
        }
        // A single account is no evidence about the upstream while others are served.
        has_several_accounts(failed()) || !has_several_accounts(self.0.iter())
    }
}

fn has_several_accounts<'a>(mut fetches: impl Iterator<Item = &'a EndedFetch>) -> bool {
    let first = fetches.next().map(|fetch| fetch.account);
    fetches.any(|fetch| Some(fetch.account) != first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES: NonZeroU32 = NonZeroU32::new(4).expect("not zero");

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    /// Records fetches, written as an account's letter, upper case if it failed; returns whether the last one shows a failure.
    fn shows(fetches: &str) -> bool {
        let mut window = FailureWindow::default();
        let record = |letter: char| {
            let account = FlowId::from(u32::from(letter.to_ascii_lowercase()));
            window.record(account, letter.is_ascii_uppercase(), at(0), FAILURES)
        };
        fetches.chars().map(record).last().expect("a fetch")
    }

    #[test]
    fn failures_of_two_accounts_or_of_the_only_one_show_it() {
        for failing in ["AAAA", "AABB", "ABBB", "abABAB", "aaAAAA", "aaaAAAA", "cdeABBBA"] {
            assert!(shows(failing), "{failing}");
        }
        for serving in ["AAA", "AABb", "bAAAA", "cbAAAAAAAA", "aaaaaABAB", "AAAAa", "bbbbbAABB"] {
            assert!(!shows(serving), "{serving}");
        }
    }

    #[test]
    fn only_the_last_ten_seconds_count() {
        for (last, shows) in [(9_999, true), (10_000, false), (15_000, false)] {
            let mut window = FailureWindow::default();
            for account in 0..3 {
                assert!(!window.record(account, true, at(0), FAILURES));
            }
            assert_eq!(window.record(3, true, at(last), FAILURES), shows, "{last} ms");
        }
    }

    #[test]
    fn its_size_is_bounded_and_large_settings_still_work() {
        let mut window = FailureWindow::default();
        let failures = NonZeroU32::new(3000).expect("not zero");
        let shown = (0..3000).filter(|account| window.record(*account, true, at(0), failures)).count();
        assert_eq!(shown, 1);
        for account in 0..20_000 {
            window.record(account, false, at(1), failures);
        }
        assert_eq!(window.0.len(), 6000);
    }
}
