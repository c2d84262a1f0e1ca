//! The freshness lifetime of an entry, derived from its content.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::Freshness;
use crate::executions::Progress;

/// Margin for time zones: one day after a date has ended in UTC, it has ended in every time zone.
const TIME_ZONES: SignedDuration = SignedDuration::from_hours(24);

/// The class of a response by how soon its content can change; each class has a lifetime in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessClass {
    /// At least one execution in it still runs.
    Live,
    /// Neither live nor closed.
    Recent,
    /// Its content is final.
    Closed,
}

impl FreshnessClass {
    /// The class of a page of executions; after `closing_time` none enters the list of which it is a page.
    #[must_use]
    pub fn of_page(progress: Progress, closing_time: Option<Timestamp>, now: Timestamp) -> Self {
        let is_over = |end: Timestamp| now.duration_since(end) > TIME_ZONES;
        match progress {
            Progress::Live => Self::Live,
            Progress::Settled if closing_time.is_some_and(is_over) => Self::Closed,
            Progress::Settled | Progress::Unknown => Self::Recent,
        }
    }

    /// The class of a single execution.
    #[must_use]
    pub fn of_execution(progress: Progress) -> Self {
        match progress {
            Progress::Live => Self::Live,
            Progress::Settled => Self::Closed,
            Progress::Unknown => Self::Recent,
        }
    }

    /// The lifetime of the class.
    #[must_use]
    pub fn lifetime(self, freshness: &Freshness) -> Duration {
        match self {
            Self::Live => freshness.live,
            Self::Recent => freshness.recent,
            Self::Closed => freshness.closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_page_is_closed_after_its_range_ended_everywhere() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a timestamp");
        let end = Some(at("2026-03-14T23:59:59.999Z"));
        let class = |progress, now| FreshnessClass::of_page(progress, end, at(now));
        assert_eq!(class(Progress::Settled, "2026-03-14T12:00:00Z"), FreshnessClass::Recent);
        assert_eq!(class(Progress::Settled, "2026-03-15T23:59:59.999Z"), FreshnessClass::Recent);
        assert_eq!(class(Progress::Settled, "2026-03-16T00:00:00Z"), FreshnessClass::Closed);
        assert_eq!(class(Progress::Live, "2026-03-20T00:00:00Z"), FreshnessClass::Live);
        assert_eq!(class(Progress::Unknown, "2026-03-20T00:00:00Z"), FreshnessClass::Recent);
        let without_end = FreshnessClass::of_page(Progress::Settled, None, at("2026-03-20T00:00:00Z"));
        assert_eq!(without_end, FreshnessClass::Recent);
    }
}
