//! Entries made from documents, with the lifetime that their tenant's settings give them.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Entry, FreshnessClass};
use crate::caller::{Caller, Credential};
use crate::clock::{Clock, Moment};
use crate::executions::{Progress, Question, ValidatedBody};
use crate::offload;
use crate::upstream::{Fetched, FetchedContent};

/// Makes entries.
#[derive(Debug)]
pub(super) struct Entries {
    clock: Clock,
}

/// The times of an entry, known before the entry is made.
#[derive(Clone, Copy, Debug)]
struct EntryTimes {
    request_time: Moment,
    response_time: Moment,
    lifetime: Duration,
    stale_for: Duration,
}

impl EntryTimes {
    fn entry(self, document: &ValidatedBody) -> Entry {
        let mut entry = Entry::new(document, self.lifetime, self.request_time, self.response_time);
        entry.stale_for = self.stale_for;
        entry
    }

    /// The entry of a document, which shares the body of an older entry if it is the same. A large body is copied, hashed and
    /// compared off the worker's thread.
    async fn entry_sharing(self, document: ValidatedBody, older: Option<Arc<Entry>>) -> Entry {
        let size = document.body.len();
        let make = move || {
            let entry = self.entry(&document);
            if let Some(older) = older { entry.sharing(&older) } else { entry }
        };
        offload::run_sized(size, make).await
    }
}

impl Entries {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// The entry of a fetch's result; `stale` is the entry that was revalidated, if there is one.
    pub(super) async fn of_fetch(
        &self,
        caller: &Caller,
        question: &Question,
        stale: Option<&Arc<Entry>>,
        fetched: Fetched,
    ) -> Entry {
        let Fetched { request_time, no_store, content } = fetched;
        let entry = match content {
            FetchedContent::NotModified => {
                let stale = stale.expect("only a fetch with a stale entry is conditional");
                // The lifetime is computed anew: with time, an unchanged page can become closed.
                let lifetime = self.lifetime(caller, question, stale.progress);
                stale.renewed(lifetime, request_time, self.clock.now())
            }
            FetchedContent::Document { document, validator } => {
                let times = self.times(caller, question, document.progress, request_time);
                let mut entry = times.entry_sharing(document, stale.cloned()).await;
                entry.validator = validator;
                entry
            }
        };
        if no_store { entry.not_stored() } else { entry }
    }

    /// The entry of a document that was requested at `request_time`.
    pub(super) fn of(
        &self,
        caller: &Caller,
        question: &Question,
        document: &ValidatedBody,
        request_time: Moment,
    ) -> Entry {
        self.times(caller, question, document.progress, request_time).entry(document)
    }

    fn times(&self, caller: &Caller, question: &Question, progress: Progress, request_time: Moment) -> EntryTimes {
        let stale = &caller.tenant().config.stale;
        EntryTimes {
            request_time,
            response_time: self.clock.now(),
            lifetime: self.lifetime(caller, question, progress),
            stale_for: stale.while_revalidate.max(stale.if_error),
        }
    }

    /// The freshness lifetime of an answer (RFC 9111, 4.2.1), by its content and its tenant's settings.
    fn lifetime(&self, caller: &Caller, question: &Question, progress: Progress) -> Duration {
        let class = match question {
            Question::List(query) => FreshnessClass::of_page(progress, query.closing_time(), self.clock.wall()),
            Question::Batches(..) => FreshnessClass::of_page(progress, None, self.clock.wall()),
            Question::Execution(..) => FreshnessClass::of_execution(progress),
        };
        let lifetime = class.lifetime(&caller.tenant().config.freshness);
        match caller.credential() {
            // An answer to a session token must not outlive the token.
            Credential::SessionToken(token) => token.unverified_expiry().map_or(lifetime, |end| {
                let left = end.saturating_sub(self.clock.wall().as_second());
                lifetime.min(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
            }),
            _ => lifetime,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::offload::testing::offloads;

    #[test]
    fn an_entry_with_a_large_body_is_made_off_the_thread() {
        let times = EntryTimes {
            request_time: Moment::from_nanos(1),
            response_time: Moment::from_nanos(2),
            lifetime: Duration::from_secs(5),
            stale_for: Duration::from_secs(7),
        };
        let document = |size, total| ValidatedBody {
            body: Bytes::from(vec![b' '; size]),
            progress: Progress::Settled,
            total: Some(total),
        };
        for (size, expected) in [(2, false), (64 << 10, false), ((64 << 10) + 1, true), (3 << 20, true)] {
            let (offloaded, older) = offloads(times.entry_sharing(document(size, 1), None));
            assert_eq!(offloaded, expected, "{size} bytes");
            let older = Arc::new(older);
            let (offloaded, newer) = offloads(times.entry_sharing(document(size, 2), Some(Arc::clone(&older))));
            assert_eq!(offloaded, expected, "{size} bytes, compared with an older entry");
            assert_eq!((newer.body.as_ptr(), newer.total), (older.body.as_ptr(), Some(2)));
            assert_eq!((newer.lifetime, newer.stale_for), (times.lifetime, times.stale_for));
        }
    }
}
