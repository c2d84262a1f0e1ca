//! Entries made from documents, with the lifetime that their tenant's settings give them.

use std::time::Duration;

use crate::cache::{Entry, FreshnessClass};
use crate::caller::{Caller, Credential};
use crate::clock::{Clock, Moment};
use crate::executions::{Progress, Question, ValidatedBody};
use crate::upstream::{Fetched, FetchedContent};

/// Makes entries.
#[derive(Debug)]
pub(super) struct Entries {
    clock: Clock,
}

impl Entries {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// The entry of a fetch's result; `stale` is the entry that was revalidated, if there is one.
    pub(super) fn of_fetch(
        &self,
        caller: &Caller,
        question: &Question,
        stale: Option<&Entry>,
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
                let mut entry = self.of(caller, question, &document, request_time);
                if let Some(stale) = stale {
                    entry = entry.sharing(stale);
                }
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
        let lifetime = self.lifetime(caller, question, document.progress);
        let mut entry = Entry::new(document, lifetime, request_time, self.clock.now());
        let stale = &caller.tenant().config.stale;
        entry.stale_for = stale.while_revalidate.max(stale.if_error);
        entry
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
