//! Pages of executions, and the responses that are derived from them. The first byte is the limit, the rest is the body.

#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use postern::executions::{Dialect, ListQuery, UnknownParameters, ValidatedBody};
use serde_json::value::RawValue;

const WANTED: [&str; 8] = [
    "limit=1",
    "limit=2&page=2",
    "limit=10",
    "status=RUNNING&limit=10",
    "status=COMPLETED&limit=1",
    "execution_source=API Call&limit=5",
    "execution_type=SYNC&limit=10",
    "execution_type=ASYNC&status=ERRORED&execution_source=Event&limit=3&page=2",
];

fuzz_target!(|data: &[u8]| {
    let Some((limit, body)) = data.split_first() else { return };
    let limit = u32::from(limit % 100) + 1;
    let body = Bytes::copy_from_slice(body);
    let _ = ValidatedBody::single(body.clone());
    let Ok(page) = ValidatedBody::page(body.clone(), 1, limit) else { return };
    // A page with texts that are not Unicode passes through as it is.
    let Some(docs) = docs(&body) else { return };
    assert_eq!(self::docs(&page.body).as_ref(), Some(&docs), "the executions pass through unchanged");
    check_page(&page, 1, limit);
    let source = query(&format!("limit={limit}"));
    for text in WANTED {
        let wanted = query(text);
        for dialect in [Dialect::Documented, Dialect::V3] {
            let Some(derived) = wanted.derive(&[(&source, &page.body)], dialect) else { continue };
            let derived = derived.page;
            let mut rest = docs.iter();
            for execution in self::docs(&derived.body).expect("a derived page") {
                assert!(rest.any(|other| *other == execution), "an execution of the source, in its order");
            }
            check_page(&derived, wanted.page(), wanted.limit());
        }
    }
});

fn query(text: &str) -> ListQuery {
    let text = text.replace(' ', "%20");
    ListQuery::parse(Some(&text), &postern_fuzz::policy(UnknownParameters::Reject)).expect("a valid query")
}

/// A valid page is complete, so validating it again changes nothing.
fn check_page(page: &ValidatedBody, number: u64, limit: u32) {
    let again = ValidatedBody::page(page.body.clone(), number, limit).expect("a valid page is valid");
    assert_eq!((&again.body, again.progress, again.total), (&page.body, page.progress, page.total));
}

/// The texts of the executions of a page.
fn docs(body: &Bytes) -> Option<Vec<String>> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
    let docs: Vec<Box<RawValue>> = serde_json::from_str(members.get("docs")?.get()).ok()?;
    Some(docs.iter().map(|execution| execution.get().to_owned()).collect())
}
