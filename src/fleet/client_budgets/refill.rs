//! One call of the script that refills budgets: its questions and answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::sync::oneshot;

use super::budget::{Decision, LeasedBudget, Replica};
use super::lease::Refill;
use crate::clock::Moment;
use crate::fleet::commands::Commands;
use crate::fleet::phase::Phase;
use crate::fleet::reckoning::as_micros;
use crate::fleet::script::REFILL;

/// A budget that the server is asked about.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) budget: Arc<LeasedBudget>,
    /// The requests that wait for the decision, in the order of their arrival.
    pub(super) waiters: VecDeque<oneshot::Sender<Decision>>,
    pub(super) is_top_up: bool,
    /// The requests on loan when the server was asked.
    pub(super) owed: u32,
}

/// Asks the server about budgets, and hands out what it grants.
#[derive(Clone, Debug)]
pub(super) struct RefillCall {
    pub(super) replica: Arc<Replica>,
    pub(super) commands: Commands,
    /// The members, the epoch, the last return and the last gap between beats.
    pub(super) keys: [String; 4],
}

impl RefillCall {
    /// Asks about some budgets. Returns those of which requests still wait, since the server did not answer in time.
    pub(super) async fn run(self, mut batch: Vec<Pending>) -> Vec<Pending> {
        let status = &self.replica.status;
        if let Phase::Together { episode } = status.phase() {
            let sent = status.clock.now();
            status.metrics.client_refills.inc_by(batch.len() as u64);
            let arguments = self.arguments(&mut batch, episode);
            let result = self.commands.run(&REFILL, self.keys_of(&batch), arguments).await;
            let now = status.clock.now();
            // An answer that came later, or after the replica went on alone, is void: what it grants is lost.
            let is_in_time = now.since(sent) <= self.replica.delivery && status.phase() == Phase::Together { episode };
            let refills = result.ok().filter(|_| is_in_time).and_then(read);
            if let Some(refills) = refills.filter(|refills| refills.len() == batch.len()) {
                for (pending, refill) in batch.iter_mut().zip(refills) {
                    pending.answered(&refill, episode, now);
                }
            }
        }
        batch.iter_mut().for_each(Pending::end_top_up);
        batch.retain(|pending| !pending.waiters.is_empty());
        batch
    }

    fn keys_of<'a>(&'a self, batch: &'a [Pending]) -> Vec<&'a str> {
        let budgets = batch.iter().map(|pending| pending.budget.key());
        self.keys.iter().map(String::as_str).chain(budgets).collect()
    }

    fn arguments(&self, batch: &mut [Pending], episode: u32) -> Vec<String> {
        let status = &self.replica.status;
        let mut arguments = vec![
            self.replica.replicas.to_string(),
            status.members().known.to_string(),
            status.latest_fleet_micros(status.clock.now()).to_string(),
            as_micros(self.replica.delivery).to_string(),
        ];
        for pending in batch {
            let asked = pending.ask(episode);
            let split = pending.budget.lease().split();
            arguments.extend([split.server_interval().to_string(), split.common.to_string(), asked.to_string()]);
        }
        arguments
    }
}

impl Pending {
    /// The number of requests to ask for.
    fn ask(&mut self, episode: u32) -> u32 {
        let waiting = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        let lease = self.budget.lease();
        // Of several questions at the same time, one asks for the loans too: what another got for them would not fit into the lease.
        let (missing, owed) = if self.is_top_up { (lease.missing(episode), lease.owed()) } else { (0, 0) };
        self.owed = owed;
        waiting.saturating_add(missing).saturating_add(self.owed)
    }

    fn answered(&mut self, refill: &Refill, episode: u32, now: Moment) {
        let (budget, lease) = (&self.budget, self.budget.lease());
        lease.learn(refill, now);
        let mut granted = lease.pay(refill.granted, self.owed);
        for waiter in self.waiters.drain(..) {
            let decision = match granted {
                0 => budget.refused(refill.wait),
                _ => budget.granted(0, now),
            };
            // A caller that is gone needs none.
            if waiter.send(decision).is_ok() {
                granted = granted.saturating_sub(1);
            }
        }
        lease.add(episode, granted);
    }

    fn end_top_up(&mut self) {
        if std::mem::take(&mut self.is_top_up) {
            self.budget.end_top_up();
        }
    }
}

/// Reads the script's answer.
fn read(answer: Value) -> Option<Vec<Refill>> {
    let answers = Vec::<(u32, u32, u64)>::from_redis_value(answer).ok()?;
    let refill = |(granted, left, wait)| Refill { granted, left, wait: Duration::from_micros(wait) };
    Some(answers.into_iter().map(refill).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::budget::tests::budget;
    use super::super::lease::Taken;
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn one_of_several_questions_asks_for_the_requests_on_loan() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let (budget, _receiver) = budget(&clock);
        let lease = budget.lease();
        while lease.take_unanswered(1, clock.now()) == (Taken::Granted { left: 0 }) {}
        let asked = [true, false].map(|is_top_up| {
            let mut pending = Pending { budget: Arc::clone(&budget), waiters: VecDeque::new(), is_top_up, owed: 0 };
            (pending.ask(1), pending.owed)
        });
        assert_eq!(asked, [(lease.missing(1) + lease.owed(), lease.owed()), (0, 0)]);
        assert!(lease.owed() > 0);
    }

    #[test]
    fn a_grant_does_not_pay_for_what_was_lent_after_the_question() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let (budget, _receiver) = budget(&clock);
        let (reply, mut decision) = oneshot::channel();
        let waiters = VecDeque::from([reply]);
        let mut pending = Pending { budget: Arc::clone(&budget), waiters, is_top_up: true, owed: 0 };
        assert_eq!(pending.ask(1), 1);
        assert_eq!(budget.lease().take_unanswered(1, clock.now()), Taken::Granted { left: 0 }, "on loan");
        pending.answered(&Refill { granted: 1, left: 5, wait: Duration::ZERO }, 1, clock.now());
        assert_eq!(decision.try_recv().map(|decision| decision.refused), Ok(None));
        assert_eq!(budget.lease().owed(), 1);
    }
}
