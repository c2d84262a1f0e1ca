//! Length of a linked account's list of executions, and whether to fetch the list whole. If the whole list fits on one page
//! of [`WHOLE_PAGE`] executions, responses to other queries can be derived from that page instead of fetched.
//!
//! All of this is a hint: a derived response is proven from the pages themselves, so a wrong hint costs a fetch and never
//! makes a response wrong.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::executions::USUAL_LIMITS;

/// Page size at which a list is fetched whole: the largest in Refold's documentation.
pub const WHOLE_PAGE: u32 = 100;
/// Time for which no larger page is fetched in place of a smaller one after that has failed.
const FAILURE_PAUSE: Duration = Duration::from_mins(5);

/// The kind of list that a query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListView {
    /// The list of all executions.
    Unfiltered,
    /// The executions that match the query's filters.
    Filtered,
}

/// Observations about a linked account's list of executions. They stay when the account's cached entries are dropped.
#[derive(Debug)]
pub struct ListSize {
    /// The length of the list when it was fetched last; `u64::MAX` if it is unknown.
    total: AtomicU64,
    /// One bit for each of the usual page sizes with which lists were fetched, and one for all others.
    page_sizes: AtomicU8,
    /// Set once a query for a filtered view was made while the list was short.
    has_filtered_queries: AtomicBool,
    /// Set once a response could not be derived from the whole list.
    is_refuted: AtomicBool,
    /// Time until which only the pages that queries ask for are fetched, in nanoseconds on the clock.
    substitutes_paused_until: AtomicU64,
}

impl Default for ListSize {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(u64::MAX),
            page_sizes: AtomicU8::default(),
            has_filtered_queries: AtomicBool::default(),
            is_refuted: AtomicBool::default(),
            substitutes_paused_until: AtomicU64::default(),
        }
    }
}

impl ListSize {
    /// Records the length of the unfiltered list.
    pub fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// The length of the unfiltered list when it was fetched last; `u64::MAX` if it is unknown.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Records that a page of this size was fetched, of the list or of a filtered view.
    pub fn add_page_size(&self, limit: u32) {
        let bit = bit(limit);
        if self.page_sizes.load(Ordering::Relaxed) & bit == 0 {
            self.page_sizes.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Returns whether the cache can have a page of this size, so that it is worth looking for one.
    #[must_use]
    pub fn has_pages_of(&self, limit: u32) -> bool {
        self.page_sizes.load(Ordering::Relaxed) & bit(limit) != 0
    }

    /// Returns whether the whole list fits on so many pages of this size.
    #[must_use]
    pub fn fits(&self, pages: u64, limit: u32) -> bool {
        self.total.load(Ordering::Relaxed) <= pages.saturating_mul(u64::from(limit))
    }

    /// Records that a response could not be derived from the whole list, for example because Refold's executions do not show
    /// the field that they are filtered by. The list is not fetched whole again.
    pub fn refute(&self) {
        self.is_refuted.store(true, Ordering::Relaxed);
    }

    /// Records that the fetch of a page from which a response was to be derived has failed. Refold may fail for large pages
    /// only, so for some minutes the requested pages are fetched themselves.
    pub fn pause_substitutes(&self, now: Moment) {
        self.substitutes_paused_until.store((now + FAILURE_PAUSE).as_nanos(), Ordering::Relaxed);
    }

    /// Records that after such a failure the requested page could not be fetched either, so that the failure was not that of
    /// the other page.
    pub fn resume_substitutes(&self) {
        self.substitutes_paused_until.store(0, Ordering::Relaxed);
    }

    /// Returns whether another page may be fetched from which the response can be derived.
    #[must_use]
    pub fn allows_substitutes(&self, now: Moment) -> bool {
        now.as_nanos() >= self.substitutes_paused_until.load(Ordering::Relaxed)
    }

    /// Returns whether to fetch the list whole instead of the page that a query for `view` asks for.
    #[must_use]
    pub fn is_worth_fetching_whole(&self, view: ListView) -> bool {
        let is_short = self.total.load(Ordering::Relaxed) <= u64::from(WHOLE_PAGE);
        if is_short && view == ListView::Filtered {
            self.has_filtered_queries.store(true, Ordering::Relaxed);
        }
        // A page that is larger than necessary pays off only if it answers more than one query.
        is_short && self.has_filtered_queries.load(Ordering::Relaxed) && !self.is_refuted.load(Ordering::Relaxed)
    }
}

fn bit(limit: u32) -> u8 {
    1 << USUAL_LIMITS.iter().position(|usual| *usual == limit).unwrap_or(USUAL_LIMITS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_list_with_filtered_queries_is_fetched_whole_until_refuted() {
        let (filtered, unfiltered) = (ListView::Filtered, ListView::Unfiltered);
        let size = ListSize::default();
        assert!(!size.is_worth_fetching_whole(filtered), "the length is unknown");
        size.set_total(60);
        assert!(!size.is_worth_fetching_whole(unfiltered), "no other query is made");
        assert!(size.is_worth_fetching_whole(filtered) && size.is_worth_fetching_whole(unfiltered));
        size.set_total(101);
        assert!(!size.is_worth_fetching_whole(filtered));
        size.set_total(100);
        assert!(size.is_worth_fetching_whole(filtered));
        size.refute();
        assert!(!size.is_worth_fetching_whole(filtered) && !size.is_worth_fetching_whole(unfiltered));
    }

    #[test]
    fn a_failed_substitute_pauses_others_for_minutes() {
        let (size, failed) = (ListSize::default(), Moment::from_nanos(7));
        assert!(size.allows_substitutes(failed));
        size.pause_substitutes(failed);
        assert!(!size.allows_substitutes(failed) && !size.allows_substitutes(failed + Duration::from_secs(299)));
        assert!(size.allows_substitutes(failed + FAILURE_PAUSE));
        size.resume_substitutes();
        assert!(size.allows_substitutes(failed));
    }
}
