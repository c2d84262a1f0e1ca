//! How long an answer holds, read off what is in it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::Freshness;
use crate::executions::Progress;

/// Callers and upstream may sit in other time zones, so a day is over for all of them only a day later.
const TIME_ZONES: SignedDuration = SignedDuration::from_hours(24);

/// Of which kind an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Some execution in it still runs.
    Live,
    /// Neither live nor closed.
    Recent,
    /// Nothing in it can change any more, and nothing can be added.
    Closed,
}

impl Class {
    /// The class of a page of executions; `end` is the end of the time range that was asked for.
    #[must_use]
    pub fn of_page(progress: Progress, end: Option<Timestamp>, now: Timestamp) -> Self {
        match progress {
            Progress::Live => Self::Live,
            Progress::Settled if end.is_some_and(|end| now.duration_since(end) > TIME_ZONES) => Self::Closed,
            Progress::Settled | Progress::Unknown => Self::Recent,
        }
    }

    /// The class of a single execution.
    #[must_use]
    pub fn of_document(progress: Progress) -> Self {
        match progress {
            Progress::Live => Self::Live,
            Progress::Settled => Self::Closed,
            Progress::Unknown => Self::Recent,
        }
    }

    /// How long it stays fresh.
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
    fn a_page_is_closed_when_its_last_day_is_over_everywhere_and_all_is_settled() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a timestamp");
        let end = Some(at("2026-03-14T23:59:59.999Z"));
        let class = |progress, now| Class::of_page(progress, end, at(now));
        assert_eq!(class(Progress::Settled, "2026-03-14T12:00:00Z"), Class::Recent);
        assert_eq!(class(Progress::Settled, "2026-03-15T23:59:59.999Z"), Class::Recent);
        assert_eq!(class(Progress::Settled, "2026-03-16T00:00:00Z"), Class::Closed);
        assert_eq!(class(Progress::Live, "2026-03-20T00:00:00Z"), Class::Live);
        assert_eq!(class(Progress::Unknown, "2026-03-20T00:00:00Z"), Class::Recent);
        assert_eq!(Class::of_page(Progress::Settled, None, at("2026-03-20T00:00:00Z")), Class::Recent);
    }
}
