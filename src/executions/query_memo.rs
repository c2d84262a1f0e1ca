//! The questions that a thread has read lately. Dashboards ask the same few again and again, so most queries need not be
//! taken apart: to be seen twice is enough to be remembered. Part of the hit path.
//!
//! What a query means depends on its text and the policy alone, so nothing here is anybody's.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{ListQuery, QueryError, QueryPolicy, Question};

/// Each query has one place, which others may have too.
const PLACES: usize = 256;
/// Longest query that is remembered, in bytes.
const LONGEST: usize = 512;

/// A question as it was read.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// Its canonical form, if that was written out before.
    pub canonical: Option<Arc<str>>,
}

impl From<Question> for Asked {
    fn from(question: Question) -> Self {
        Self { question, canonical: None }
    }
}

impl Asked {
    /// Reads the query of a request for a list, without its `?`.
    ///
    /// # Errors
    /// As [`ListQuery::parse`].
    pub fn list(raw: Option<&str>, policy: &QueryPolicy) -> Result<Self, QueryError> {
        thread_local! {
            static RECENT: RefCell<Recent> = RefCell::new(Recent::with_places(PLACES));
        }
        RECENT.with_borrow_mut(|recent| recent.list(raw.unwrap_or_default(), policy))
    }
}

struct Recent {
    /// How all of them were read.
    policy: Option<QueryPolicy>,
    hasher: RandomState,
    places: Box<[Place]>,
}

#[derive(Clone, Default)]
struct Place {
    /// The hash of the last query that belongs here.
    seen: u64,
    kept: Option<Kept>,
}

#[derive(Clone)]
struct Kept {
    raw: Box<str>,
    asked: Asked,
}

impl Recent {
    fn with_places(number: usize) -> Self {
        Self { policy: None, hasher: RandomState::default(), places: vec![Place::default(); number].into() }
    }

    fn list(&mut self, raw: &str, policy: &QueryPolicy) -> Result<Asked, QueryError> {
        if self.policy.as_ref() != Some(policy) {
            self.policy = Some(policy.clone());
            self.places.fill(Place::default());
        }
        let hash = self.hasher.hash_one(raw);
        let index = usize::try_from(hash % self.places.len() as u64).unwrap_or_default();
        let place = &mut self.places[index];
        if let Some(kept) = place.kept.as_ref().filter(|kept| *kept.raw == *raw) {
            // Another in this place that comes as often does not push it out.
            place.seen = hash;
            return Ok(kept.asked.clone());
        }
        let mut asked = Asked::from(Question::List(ListQuery::parse(Some(raw), policy)?));
        // A query that nobody repeats takes nobody's place.
        if place.seen == hash && raw.len() <= LONGEST {
            asked.canonical = Some(asked.question.to_string().into());
            place.kept = Some(Kept { raw: raw.into(), asked: asked.clone() });
        }
        place.seen = hash;
        Ok(asked)
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

    #[test]
    fn a_query_is_remembered_when_it_comes_again_and_one_that_does_not_takes_no_place() {
        let (mut recent, policy) = (Recent::with_places(8), policy(UnknownParameters::Reject));
        let mut known = |raw: &str| recent.list(raw, &policy).expect("a good query").canonical;
        let canonical = "/api/v2/public/execution?page=2&limit=10";
        assert_eq!(
            [known("page=2"), known("page=2")].map(|known| known.as_deref().map(str::to_owned)),
            [None, Some(canonical.to_owned())]
        );
        for page in 10..10_000 {
            assert_eq!(known(&format!("page={page}")), None);
        }
        assert_eq!(known("page=2").as_deref(), Some(canonical));
        let long = format!("page=2&workflow_name={}", "x".repeat(LONGEST));
        assert_eq!([known(&long), known(&long), known(&long)], [None, None, None]);
    }

    #[test]
    fn of_two_in_one_place_the_one_that_is_kept_stays_while_they_take_turns_and_goes_when_it_is_asked_no_more() {
        let (mut recent, policy) = (Recent::with_places(1), policy(UnknownParameters::Reject));
        let mut is_kept = |raw: &str| recent.list(raw, &policy).expect("a good query").canonical.is_some();
        assert_eq!([is_kept("page=2"), is_kept("page=2")], [false, true]);
        for _ in 0..3 {
            assert_eq!([is_kept("page=3"), is_kept("page=2")], [false, true]);
        }
        assert_eq!([is_kept("page=3"), is_kept("page=3"), is_kept("page=2")], [false, true, false]);
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_is_read(
            asked in proptest::collection::vec("[a-c_]{0,1}(page|limit|status|slug)=[0-9aA%+]{0,2}", 1..100)
        ) {
            let mut recent = Recent::with_places(4);
            for unknown in [UnknownParameters::Reject, UnknownParameters::Forward, UnknownParameters::Drop] {
                let policy = policy(unknown);
                for raw in asked.iter().flat_map(|raw| [raw, raw, raw]) {
                    match (recent.list(raw, &policy), ListQuery::parse(Some(raw), &policy).map(Question::List)) {
                        (Ok(asked), Ok(question)) => {
                            prop_assert!(asked.canonical.is_none_or(|text| *text == question.to_string()));
                            prop_assert_eq!(asked.question, question);
                        }
                        (Err(error), Err(expected)) => prop_assert_eq!(error.to_string(), expected.to_string()),
                        (read, expected) => prop_assert!(false, "{read:?} is not {expected:?}"),
                    }
                }
            }
        }
    }
}
