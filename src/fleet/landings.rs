//! Waiters for fetches of other replicas.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The outcome of another replica's fetch, as the log tells it.
pub type LandedOutcome = Arc<[u8]>;

/// The questions whose fetches by other replicas are waited for.
#[derive(Debug, Default)]
pub(super) struct Landings(Mutex<HashMap<Box<str>, watch::Sender<Option<LandedOutcome>>>>);

/// Waits for the end of another replica's fetch of one question.
#[derive(Debug)]
pub struct Landing(watch::Receiver<Option<LandedOutcome>>);

impl Landings {
    /// Begins to wait for a question. Call it before the server is asked, so that no end is missed.
    pub(super) fn expect(&self, question: &str) -> Landing {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, sender| !sender.is_closed());
        let sender = waiting.entry(question.into()).or_insert_with(|| watch::Sender::new(None));
        Landing(sender.subscribe())
    }

    /// Tells the waiters of a question how its fetch has ended.
    pub(super) fn landed(&self, question: &str, outcome: LandedOutcome) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(question);
        if let Some(sender) = waiting {
            sender.send_replace(Some(outcome));
        }
    }
}

impl Landing {
    /// Waits for the end of the fetch. Never returns if the server does not tell it.
    pub async fn outcome(&mut self) -> LandedOutcome {
        let Ok(Some(outcome)) = self.0.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) else {
            return std::future::pending().await;
        };
        outcome
    }
}
