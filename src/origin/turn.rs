//! When a request may go to Refold: within what Refold grants to the org key, within what unknown session tokens may spend,
//! and while not too many are under way.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Unfetched;
use crate::cache::{Entry, Interest};
use crate::caller::Caller;
use crate::client::FetchError;
use crate::clock::Clock;
use crate::config;
use crate::error::{ClientError, Reason};
use crate::limit::{Exhausted, Urgency};
use crate::observe::Trip;
use crate::tenant::{OnProbation, Standing};
use crate::translate;

/// Who asks for turns, and until when.
#[derive(Debug)]
pub(super) struct Turns {
    clock: Clock,
    /// Requests that may be under way at once.
    places: Semaphore,
    patience: Duration,
}

/// The right to send a request now; held until its answer is there.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _place: SemaphorePermit<'a>,
    _until_the_verdict: Option<OnProbation<'a>>,
}

/// For whom an answer is.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Whether somebody waits from the beginning.
    pub urgency: Urgency,
    /// Whether somebody waits now.
    pub interest: &'a mut Interest,
    /// The answer that is to be renewed, if there is one.
    pub stale: Option<&'a Entry>,
}

impl Turns {
    pub(super) fn new(upstream: &config::Upstream, clock: Clock) -> Self {
        Self { clock, places: Semaphore::new(upstream.max_concurrent), patience: upstream.total_timeout }
    }

    /// Waits for a turn for as long as somebody is interested in it.
    pub(super) async fn turn<'a>(
        &'a self,
        caller: &'a Caller,
        wanted: &mut Wanted<'_>,
        trip: &Trip,
    ) -> Result<Turn<'a>, Unfetched> {
        let until_the_verdict = self.vouched_for(caller).await?;
        self.slot(caller, wanted, trip).await?;
        let place = if let Ok(place) = self.places.try_acquire() {
            place
        } else {
            let place = self.place(wanted).await?;
            // The slot was for the moment at which it was granted: many that have waited must not go at once.
            self.slot(caller, wanted, trip).await?;
            place
        };
        Ok(Turn { _place: place, _until_the_verdict: until_the_verdict })
    }

    /// One more request of somebody who has a turn already.
    pub(super) async fn again(&self, caller: &Caller, trip: &Trip) -> Result<(), ClientError> {
        let wait = trip.waits();
        let (line, now) = (caller.partition().line(), self.clock.now());
        let granted = caller.tenant().upstream_budget.acquire(line, Urgency::Foreground, now).await;
        wait.ended(Urgency::Foreground, &granted);
        granted.map_err(spent)
    }

    /// A slot of what Refold grants. A renewal that somebody begins to wait for goes before those that nobody waits for, and
    /// what nobody waits for any longer is not asked.
    async fn slot(&self, caller: &Caller, wanted: &mut Wanted<'_>, trip: &Trip) -> Result<(), Unfetched> {
        let wait = trip.waits();
        let line = caller.partition().line();
        let mut urgency = wanted.urgency;
        let granted = loop {
            let renews = wanted.stale.map_or(self.clock.now(), |entry| entry.stored_at);
            let granted = caller.tenant().upstream_budget.acquire(line, urgency, renews);
            urgency = match (urgency, wanted.urgency) {
                (Urgency::Background, _) => tokio::select! {
                    biased;
                    granted = granted => break granted,
                    () = wanted.interest.gained() => Urgency::Foreground,
                },
                (Urgency::Foreground, first) => tokio::select! {
                    biased;
                    granted = granted => break granted,
                    () = wanted.interest.lost() => match first {
                        Urgency::Foreground => {
                            wait.given_up();
                            return Err(Unfetched::NobodyWaits);
                        }
                        Urgency::Background => Urgency::Background,
                    },
                },
            };
        };
        wait.ended(urgency, &granted);
        granted.map_err(|exhausted| spent(exhausted).into())
    }

    async fn place(&self, wanted: &mut Wanted<'_>) -> Result<SemaphorePermit<'_>, Unfetched> {
        let lost = async {
            match wanted.urgency {
                Urgency::Foreground => wanted.interest.lost().await,
                Urgency::Background => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(place) = self.places.acquire() => Ok(place),
            () = lost => Err(Unfetched::NobodyWaits),
            () = self.clock.sleep_until(self.clock.now() + self.patience) => {
                let message = "too many requests to Refold are under way; try again";
                Err(ClientError::new(Reason::Overloaded, message).retry_after(Duration::from_secs(1)).into())
            }
        }
    }

    /// A token that nobody vouches for yet has a small share of its own first. Of its requests one goes first, and the others
    /// wait to hear what it was told.
    async fn vouched_for<'a>(&self, caller: &'a Caller) -> Result<Option<OnProbation<'a>>, ClientError> {
        let partition = caller.partition();
        if partition.standing(self.clock.now()) == Standing::Known {
            return Ok(None);
        }
        let first = tokio::time::timeout(self.patience, partition.go_first()).await;
        let on_probation = first.map_err(|_| translate::failure(FetchError::Timeout))?;
        let now = self.clock.now();
        match partition.standing(now) {
            Standing::Known => Ok(None),
            Standing::Refused => Err(ClientError::invalid_credentials()),
            Standing::Unproven => match caller.tenant().probation.spend(now).refused {
                None => Ok(Some(on_probation)),
                Some(wait) => {
                    let message = "too many session tokens that Refold has not seen yet; try again later";
                    Err(ClientError::new(Reason::RateLimitExceeded, message).retry_after(wait))
                }
            },
        }
    }
}

fn spent(exhausted: Exhausted) -> ClientError {
    let message = "the requests that Refold grants are spent; try again later";
    ClientError::new(Reason::UpstreamBudgetExceeded, message).retry_after(exhausted.retry_after)
}
