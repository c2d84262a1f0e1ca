//! A memo of recently parsed queries. Dashboards repeat the same few queries, so most need not be parsed: a query is
//! remembered when it is seen a second time. Part of the hit path.
//!
//! The result of parsing depends on the query's text and the policy alone, so callers of all tenants share a memo.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};

use foldhash::fast::RandomState;

use super::query::{ListQuery, QueryError, QueryPolicy};
use super::question::Question;

/// Number of slots; the hash of a query's text selects one.
const SLOTS: usize = 256;
/// Length of the longest query that is remembered, in bytes.
const MAX_LENGTH: usize = 512;

/// The result of parsing a query.
#[derive(Clone, Debug)]
pub struct ParsedQuestion {
    /// The question.
    pub question: Question,
    /// Its canonical form, if it has been written out before.
    pub canonical: Option<Arc<str>>,
}

impl From<Question> for ParsedQuestion {
    fn from(question: Question) -> Self {
        Self { question, canonical: None }
    }
}

/// Parses list queries and remembers those that repeat. One per worker.
///
/// The lock makes the memo shareable between a worker's connections, whose tasks have to be `Send`. It is not contended, since a
/// worker has one thread. If it were, the query would be parsed without the memo: a request never waits for the lock.
#[derive(Debug)]
pub struct QueryMemo(Mutex<SlotTable>);

impl Default for QueryMemo {
    fn default() -> Self {
        Self::with_slots(SLOTS)
    }
}

impl QueryMemo {
    fn with_slots(number: usize) -> Self {
        let slots = vec![Slot::default(); number].into();
        Self(Mutex::new(SlotTable { policy: None, hasher: RandomState::default(), slots }))
    }

    /// Parses the query of a request for a list, without its `?`.
    ///
    /// # Errors
    /// The errors of [`ListQuery::parse`].
    pub fn parse_list(&self, raw: Option<&str>, policy: &QueryPolicy) -> Result<ParsedQuestion, QueryError> {
        match self.0.try_lock() {
            Ok(mut table) => table.parse_list(raw.unwrap_or_default(), policy),
            Err(_) => Ok(Question::List(ListQuery::parse(raw, policy)?).into()),
        }
    }
}

#[derive(Debug)]
struct SlotTable {
    /// The policy that all remembered queries were parsed with.
    policy: Option<QueryPolicy>,
    hasher: RandomState,
    slots: Box<[Slot]>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// The hash of the last query that selected this slot.
    last_hash: u64,
    remembered: Option<RememberedQuery>,
}

#[derive(Clone, Debug)]
struct RememberedQuery {
    raw: Box<str>,
    parsed: ParsedQuestion,
}

impl SlotTable {
    fn parse_list(&mut self, raw: &str, policy: &QueryPolicy) -> Result<ParsedQuestion, QueryError> {
        if self.policy.as_ref() != Some(policy) {
            self.policy = Some(policy.clone());
            self.slots.fill(Slot::default());
        }
        let hash = self.hasher.hash_one(raw);
        let index = usize::try_from(hash % self.slots.len() as u64).unwrap_or_default();
        let slot = &mut self.slots[index];
        if let Some(remembered) = slot.remembered.as_ref().filter(|remembered| *remembered.raw == *raw) {
            // If another query alternates with this one in the slot, it is never the last one twice in a row, so it does
            // not replace this one.
            slot.last_hash = hash;
            return Ok(remembered.parsed.clone());
        }
        let mut parsed = ParsedQuestion::from(Question::List(ListQuery::parse(Some(raw), policy)?));
        // A query that is seen only once replaces no remembered query.
        if slot.last_hash == hash && raw.len() <= MAX_LENGTH {
            parsed.canonical = Some(parsed.question.to_string().into());
            slot.remembered = Some(RememberedQuery { raw: raw.into(), parsed: parsed.clone() });
        }
        slot.last_hash = hash;
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::UnknownParameters;
    use super::*;

    fn policy(unknown: UnknownParameters) -> QueryPolicy {
        QueryPolicy { max_limit: 100, unknown, ignored: vec!["_".to_owned()] }
    }

    fn canonical(memo: &QueryMemo, raw: &str) -> Option<Arc<str>> {
        memo.parse_list(Some(raw), &policy(UnknownParameters::Reject)).expect("a valid query").canonical
    }

    #[test]
    fn a_repeated_query_is_remembered_and_single_ones_do_not_replace_it() {
        let memo = QueryMemo::with_slots(8);
        let known = |raw: &str| canonical(&memo, raw);
        let text = "/api/v2/public/execution?page=2&limit=10";
        assert_eq!(
            [known("page=2"), known("page=2")].map(|known| known.as_deref().map(str::to_owned)),
            [None, Some(text.to_owned())]
        );
        for page in 10..10_000 {
            assert_eq!(known(&format!("page={page}")), None);
        }
        assert_eq!(known("page=2").as_deref(), Some(text));
        let long = format!("page=2&workflow_name={}", "x".repeat(MAX_LENGTH));
        assert_eq!([known(&long), known(&long), known(&long)], [None, None, None]);
    }

    #[test]
    fn a_remembered_query_keeps_its_slot_until_it_stops_coming() {
        let memo = QueryMemo::with_slots(1);
        let is_remembered = |raw: &str| canonical(&memo, raw).is_some();
        assert_eq!([is_remembered("page=2"), is_remembered("page=2")], [false, true]);
        for _ in 0..3 {
            assert_eq!([is_remembered("page=3"), is_remembered("page=2")], [false, true]);
        }
        assert_eq!(["page=3", "page=3", "page=2"].map(is_remembered), [false, true, false]);
    }

    #[test]
    fn a_query_is_parsed_while_the_memo_is_locked() {
        let memo = QueryMemo::default();
        let _locked = memo.0.lock().expect("no panic");
        assert_eq!([canonical(&memo, "page=2"), canonical(&memo, "page=2")], [None, None]);
    }

    proptest! {
        #[test]
        fn a_memo_returns_what_parsing_returns(
            queries in proptest::collection::vec("[a-c_]{0,1}(page|limit|status|slug)=[0-9aA%+]{0,2}", 1..100)
        ) {
            let memo = QueryMemo::with_slots(4);
            for unknown in [UnknownParameters::Reject, UnknownParameters::Forward, UnknownParameters::Drop] {
                let policy = policy(unknown);
                for raw in queries.iter().flat_map(|raw| [raw, raw, raw]) {
                    let expected = ListQuery::parse(Some(raw), &policy).map(Question::List);
                    match (memo.parse_list(Some(raw), &policy), expected) {
                        (Ok(parsed), Ok(question)) => {
                            prop_assert!(parsed.canonical.is_none_or(|text| *text == question.to_string()));
                            prop_assert_eq!(parsed.question, question);
                        }
                        (Err(error), Err(expected)) => prop_assert_eq!(error.to_string(), expected.to_string()),
                        (parsed, expected) => prop_assert!(false, "{parsed:?} is not {expected:?}"),
                    }
                }
            }
        }
    }
}
