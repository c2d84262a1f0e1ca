//! Pages that could not be fetched in place of an answer that follows from them.

use super::Fetcher;
use crate::caller::Caller;
use crate::error::{ClientError, Reason};

/// Reasons that apply to every other question at present too, so that the fetch of another page is of no use.
const REFOLD_UNAVAILABLE: [Reason; 3] =
    [Reason::UpstreamBudgetExceeded, Reason::UpstreamCircuitOpen, Reason::UpstreamUnreachable];

impl Fetcher {
    /// Notes that a page from which an answer was to be derived could not be fetched.
    pub(super) fn note_failed_source(&self, caller: &Caller, error: &ClientError) {
        if !says_nothing_of_the_page(error) {
            caller.partition().list_size.pause_substitutes(self.clock.now());
        }
    }
}

/// True if Refold can't be asked for any page at present.
pub(super) fn is_refold_unavailable(error: &ClientError) -> bool {
    REFOLD_UNAVAILABLE.iter().any(|reason| error.is(*reason))
}

/// True if the error does not show that Refold can't serve the page.
pub(super) fn says_nothing_of_the_page(error: &ClientError) -> bool {
    error.is(Reason::Overloaded) || is_refold_unavailable(error)
}
