//! The last events of the process, for the status page: reloads, circuits that open, refused org keys, purges, the fleet. Memory is
//! bounded.
//!
//! An event has the name of its log event (`log_events`), so that it can be found in the log.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

use crate::config::AccountNaming;
use crate::log_events;

/// Number of events that are kept.
const EVENTS_KEPT: usize = 50;
/// Longest details of an event, in bytes.
const MAX_DETAILS: usize = 2000;

/// An event of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The time of the event.
    pub at: Timestamp,
    /// The name of its log event.
    pub event: &'static str,
    /// The tenant that it concerns; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The changes of a reload, the error of a refused one, the linked account of a purge, the reason of a fleet's event.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Keeps the last events.
#[derive(Debug, Default)]
pub(super) struct EventList(Mutex<VecDeque<Event>>);

impl EventList {
    /// Adds an event; too long details are cut.
    pub(super) fn add(&self, mut event: Event) {
        if event.details.len() > MAX_DETAILS {
            event.details.truncate(event.details.floor_char_boundary(MAX_DETAILS));
            event.details.push('…');
        }
        // No code that holds the lock can leave the list inconsistent, even if it panics.
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.truncate(EVENTS_KEPT - 1);
        events.push_front(event);
    }

    /// The kept events, newest first, with linked accounts named like this.
    pub(super) fn all(&self, naming: AccountNaming) -> Vec<Event> {
        let mut events: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        // Its details are an account, if it has any.
        for purged in events.iter_mut().filter(|event| event.event == log_events::PURGED && !event.details.is_empty()) {
            purged.details = naming.name(&purged.details).unwrap_or_default().into_owned();
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_newest_first() {
        let list = EventList::default();
        for number in 0..60 {
            let details = if number == 59 { "ü".repeat(MAX_DETAILS) } else { number.to_string() };
            list.add(Event { at: Timestamp::UNIX_EPOCH, event: "purged", tenant: None, details });
        }
        let all = list.all(AccountNaming::Plain);
        assert_eq!(all.len(), EVENTS_KEPT);
        assert_eq!(all[0].details, format!("{}…", "ü".repeat(MAX_DETAILS / 2)));
        assert_eq!((all[1].details.as_str(), all[49].details.as_str()), ("58", "10"));
    }
}
