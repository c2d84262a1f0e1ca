//! How long a linked account's list of executions was when it was last seen, and whether it is worth fetching whole: one page
//! of a hundred from which the answers to all questions follow that would be fetched one by one otherwise. A hint and nothing
//! more: what is derived is proven from the pages themselves, whatever this says.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::executions::USUAL_LIMITS;

/// Executions on a page that holds a list whole; the largest page that Refold's documentation speaks of.
pub const WHOLE_PAGE: u32 = 100;

/// What is known of a linked account's list. Outlives the drop of its entries.
#[derive(Debug)]
pub struct ListSize {
    total: AtomicU64,
    /// A bit for each of the usual page sizes that lists were fetched with, and one for all others.
    sizes: AtomicU8,
    /// Questions beside that for the list itself are asked.
    filtered: AtomicBool,
    /// It was fetched whole once, and an answer did not follow from it.
    refuted: AtomicBool,
}

impl Default for ListSize {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(u64::MAX),
            sizes: AtomicU8::default(),
            filtered: AtomicBool::default(),
            refuted: AtomicBool::default(),
        }
    }
}

impl ListSize {
    /// The list had this many executions.
    pub fn seen(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// A page of this size was fetched, of this list or a filtered view of it.
    pub fn seen_page_of(&self, limit: u32) {
        let bit = bit(limit);
        if self.sizes.load(Ordering::Relaxed) & bit == 0 {
            self.sizes.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether there can be a page of this size in the cache, so that it is worth looking for.
    #[must_use]
    pub fn has_pages_of(&self, limit: u32) -> bool {
        self.sizes.load(Ordering::Relaxed) & bit(limit) != 0
    }

    /// Whether so many pages of this size can be the whole list.
    #[must_use]
    pub fn fits(&self, pages: u64, limit: u32) -> bool {
        self.total.load(Ordering::Relaxed) <= pages.saturating_mul(u64::from(limit))
    }

    /// Fetched whole, it did not answer what it should have: perhaps Refold's executions do not show what they are filtered
    /// by.
    pub fn refute(&self) {
        self.refuted.store(true, Ordering::Relaxed);
    }

    /// Whether to fetch the list whole for a question, which is for a filtered view of the list or for the list itself.
    #[must_use]
    pub fn is_worth_fetching_whole(&self, is_filtered: bool) -> bool {
        let small = self.total.load(Ordering::Relaxed) <= u64::from(WHOLE_PAGE);
        if small && is_filtered {
            self.filtered.store(true, Ordering::Relaxed);
        }
        // A larger page than is asked for is worth its bytes only if it answers more than one question.
        small && self.filtered.load(Ordering::Relaxed) && !self.refuted.load(Ordering::Relaxed)
    }
}

fn bit(limit: u32) -> u8 {
    1 << USUAL_LIMITS.iter().position(|usual| *usual == limit).unwrap_or(USUAL_LIMITS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_list_of_which_views_are_asked_for_is_fetched_whole_until_that_proves_wrong() {
        let size = ListSize::default();
        assert!(!size.is_worth_fetching_whole(true), "who knows how long it is");
        size.seen(60);
        assert!(!size.is_worth_fetching_whole(false), "nobody asks for anything else");
        assert!(size.is_worth_fetching_whole(true) && size.is_worth_fetching_whole(false));
        size.seen(101);
        assert!(!size.is_worth_fetching_whole(true));
        size.seen(100);
        assert!(size.is_worth_fetching_whole(true));
        size.refute();
        assert!(!size.is_worth_fetching_whole(true) && !size.is_worth_fetching_whole(false));
    }
}
