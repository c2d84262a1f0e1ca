//! The checks of a kind of derivation that is in use: which of its responses are compared with a fetched one.
//!
//! A check is due once in so many responses, and once a minute. Dashboards ask the same questions in the same order, so that the
//! response at which a check falls due can be that of the same question each time. So a question that was checked lately lets
//! others go first, for a few responses.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// A check is due once in so many responses ...
const RESPONSES_PER_CHECK: u32 = 50;
/// ... and after this time ...
const CHECK_AFTER: Duration = Duration::from_secs(45);
/// ... and made at the first response after this time, whatever its question.
const CHECK_WITHIN: Duration = Duration::from_mins(1);
/// Responses that a check waits for a question that was not checked lately. Less than from one check to the next.
const MOST_PASSED_OVER: u32 = 48;
/// Questions that were checked lately.
const LATELY: usize = 64;

/// A number that stands for a question of one partition.
pub type QuestionId = u64;

/// The checks of one kind.
#[derive(Debug)]
pub(super) struct Checks {
    /// Responses since a check fell due, or was made although none was due.
    responses: u32,
    last: Moment,
    /// Responses that were passed over since a check has been due; `None` if none is due.
    passed_over: Option<u32>,
    lately: VecDeque<QuestionId>,
}

impl Checks {
    pub(super) fn new(now: Moment) -> Self {
        Self { responses: 0, last: now, passed_over: None, lately: VecDeque::new() }
    }

    /// Counts a response; true if it is to be checked. The check stays due until [`Checks::note`].
    pub(super) fn count(&mut self, question: QuestionId, now: Moment) -> bool {
        self.responses += 1;
        if self.responses >= RESPONSES_PER_CHECK {
            self.responses = 0;
            self.passed_over.get_or_insert(0);
        }
        if now >= self.last + CHECK_AFTER {
            self.passed_over.get_or_insert(0);
        }
        let Some(passed_over) = &mut self.passed_over else { return false };
        let is_chosen =
            !self.lately.contains(&question) || *passed_over >= MOST_PASSED_OVER || now >= self.last + CHECK_WITHIN;
        *passed_over = passed_over.saturating_add(u32::from(!is_chosen));
        is_chosen
    }

    /// Notes that a question is checked now, for this kind or for another one of its response.
    pub(super) fn note(&mut self, question: QuestionId, now: Moment) {
        if self.passed_over.take().is_none() {
            self.responses = 0;
        }
        self.last = now;
        self.lately.retain(|other| *other != question);
        self.lately.push_back(question);
        if self.lately.len() > LATELY {
            self.lately.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_nanos(0);

    /// Asks questions in turn; returns those that are checked.
    fn checked(checks: &mut Checks, questions: impl Iterator<Item = QuestionId>, at: Moment) -> Vec<QuestionId> {
        let is_checked = |question: &QuestionId| {
            let is_checked = checks.count(*question, at);
            if is_checked {
                checks.note(*question, at);
            }
            is_checked
        };
        questions.filter(is_checked).collect()
    }

    #[test]
    fn one_response_in_fifty_and_one_a_minute_is_checked() {
        let mut checks = Checks::new(START);
        assert_eq!(checked(&mut checks, 0..500, START).len(), 10);
        assert_eq!(checked(&mut checks, 500..549, START + CHECK_WITHIN), [500]);
        // One question alone has its turn all the same.
        let mut checks = Checks::new(START);
        assert_eq!(checked(&mut checks, std::iter::repeat_n(7, 5048), START).len(), 100);
        assert_eq!(checked(&mut checks, std::iter::repeat_n(7, 1), START + CHECK_WITHIN), [7]);
    }

    #[test]
    fn a_check_for_another_kind_puts_the_next_one_off() {
        let mut checks = Checks::new(START);
        assert!(checked(&mut checks, 0..40, START).is_empty());
        checks.note(40, START);
        assert!(checked(&mut checks, 41..90, START).is_empty());
        assert_eq!(checked(&mut checks, 90..91, START), [90]);
    }

    #[test]
    fn questions_in_the_same_order_are_checked_in_turn() {
        // Fifty is a multiple of five, so the same question would be the fiftieth each time.
        for questions in [2, 5, 10, 25] {
            let mut checks = Checks::new(START);
            let asked = (0..60 * questions).map(|number| number % questions);
            let found: std::collections::HashSet<_> = checked(&mut checks, asked, START).into_iter().collect();
            let possible = usize::try_from((60 * questions / 50).min(questions)).expect("a small number");
            assert!(found.len() >= possible, "{questions} questions: {found:?}");
        }
    }

    #[test]
    fn the_check_of_a_minute_falls_to_each_question_in_turn() {
        let (mut checks, mut found) = (Checks::new(START), Vec::new());
        for minute in 1..=4 {
            found.extend(checked(&mut checks, 0..4, START + CHECK_AFTER * minute));
        }
        assert_eq!(found, [0, 1, 2, 3]);
    }
}
