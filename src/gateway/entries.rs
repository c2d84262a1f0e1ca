//! Cache entries for documents: made of a fetch's result or of a derived document, with their lifetime.

use std::time::Duration;

use crate::cache::{Class, Entry};
use crate::caller::{Caller, Credential};
use crate::clock::{Clock, Moment};
use crate::executions::{Document, Progress, Question};
use crate::upstream::{Fetched, FetchedContent};

/// Makes the entry of a fetch's result; `stale` is the entry that was to be renewed, if there is one.
pub(super) fn of_fetch(
    clock: &Clock,
    caller: &Caller,
    question: &Question,
    stale: Option<&Entry>,
    fetched: Fetched,
) -> Entry {
    let Fetched { request_time, no_store, content } = fetched;
    let entry = match content {
        FetchedContent::NotModified => {
            let stale = stale.expect("only a fetch with a stale entry is conditional");
            // The lifetime is computed anew: with time, an unchanged document can become closed.
            stale.renewed(lifetime(clock, caller, question, stale.progress), request_time, clock.now())
        }
        FetchedContent::Document { document, validator } => {
            let mut entry = of_document(clock, caller, question, &document, request_time);
            if let Some(stale) = stale {
                entry = entry.sharing(stale);
            }
            entry.validator = validator;
            entry
        }
    };
    if no_store { entry.not_stored() } else { entry }
}

/// Makes the entry of a document, with the lifetime that its tenant configures.
pub(super) fn of_document(
    clock: &Clock,
    caller: &Caller,
    question: &Question,
    document: &Document,
    request_time: Moment,
) -> Entry {
    let lifetime = lifetime(clock, caller, question, document.progress);
    let mut entry = Entry::new(document, lifetime, request_time, clock.now());
    let stale = &caller.tenant().config.stale;
    entry.stale_for = stale.while_revalidate.max(stale.if_error);
    entry
}

fn lifetime(clock: &Clock, caller: &Caller, question: &Question, progress: Progress) -> Duration {
    let class = match question {
        Question::List(query) => Class::of_page(progress, query.end(), clock.wall()),
        Question::Batches(..) => Class::of_page(progress, None, clock.wall()),
        Question::Document(_) => Class::of_document(progress),
    };
    let lifetime = class.lifetime(&caller.tenant().config.freshness);
    match caller.credential() {
        // Responses to a session token must not outlive it.
        Credential::SessionToken(token) => token.says_it_ends().map_or(lifetime, |end| {
            let left = end.saturating_sub(clock.wall().as_second());
            lifetime.min(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
        }),
        _ => lifetime,
    }
}
