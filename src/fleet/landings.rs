//! Waiters for fetches of other replicas.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The outcome of another replica's fetch, as the log tells it.
pub type LandedOutcome = Arc<[u8]>;

/// The questions whose fetches by other replicas are waited for. Each operation takes the same time however many there are.
#[derive(Debug, Default)]
pub(super) struct Landings(Mutex<Expected>);

#[derive(Debug, Default)]
struct Expected {
    waiting: HashMap<Box<str>, Waiting>,
    last: u64,
}

/// The waiters for the next end of one question's fetch.
#[derive(Debug)]
struct Waiting {
    /// Distinguishes them from those who wait for a later end.
    number: u64,
    sender: watch::Sender<Option<LandedOutcome>>,
}

/// Waits for the end of another replica's fetch of one question.
#[derive(Debug)]
pub struct Landing {
    receiver: watch::Receiver<Option<LandedOutcome>>,
    question: Box<str>,
    number: u64,
    landings: Arc<Landings>,
}

impl Landings {
    /// Begins to wait for a question. Call it before the server is asked, so that no end is missed.
    pub(super) fn expect(self: &Arc<Self>, question: Box<str>) -> Landing {
        let mut expected = self.lock();
        let Expected { waiting, last } = &mut *expected;
        let Waiting { number, sender } = waiting.entry(question.clone()).or_insert_with(|| {
            *last += 1;
            Waiting { number: *last, sender: watch::Sender::new(None) }
        });
        Landing { receiver: sender.subscribe(), question, number: *number, landings: Arc::clone(self) }
    }

    /// Tells the waiters of a question how its fetch has ended.
    pub(super) fn landed(&self, question: &str, outcome: LandedOutcome) {
        let ended = self.lock().waiting.remove(question);
        if let Some(Waiting { sender, .. }) = ended {
            sender.send_replace(Some(outcome));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Expected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Landing {
    /// Waits for the end of the fetch. Never returns if the server does not tell it.
    pub async fn outcome(&mut self) -> LandedOutcome {
        let Ok(Some(outcome)) = self.receiver.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) else {
            return std::future::pending().await;
        };
        outcome
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut expected = self.landings.lock();
        let waiting = expected.waiting.get(&self.question);
        // The last of the waiters; its own receiver still counts.
        if waiting.is_some_and(|waiting| waiting.number == self.number && waiting.sender.receiver_count() == 1) {
            expected.waiting.remove(&self.question);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(landings: &Landings) -> usize {
        landings.lock().waiting.len()
    }

    #[tokio::test]
    async fn all_waiters_of_a_question_are_told_its_end() {
        let landings = Arc::<Landings>::default();
        let mut waiters = [(); 2].map(|()| landings.expect("one".into()));
        let _other = landings.expect("other".into());
        landings.landed("one", Arc::from(*b"end"));
        for waiter in &mut waiters {
            assert_eq!(*waiter.outcome().await, *b"end");
        }
        assert_eq!(count(&landings), 1);
    }

    #[test]
    fn the_last_waiter_that_leaves_leaves_nothing_behind() {
        let landings = Arc::<Landings>::default();
        let (first, second) = (landings.expect("one".into()), landings.expect("one".into()));
        drop(first);
        assert_eq!(count(&landings), 1);
        drop(second);
        assert_eq!(count(&landings), 0);
    }

    #[test]
    fn a_waiter_for_an_earlier_end_does_not_take_a_later_ones_place() {
        let landings = Arc::<Landings>::default();
        let earlier = landings.expect("one".into());
        landings.landed("one", Arc::from(*b"end"));
        let later = landings.expect("one".into());
        drop(earlier);
        assert_eq!(count(&landings), 1);
        drop(later);
        assert_eq!(count(&landings), 0);
    }
}
