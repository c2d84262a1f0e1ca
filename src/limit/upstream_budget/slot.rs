//! A granted request, and one that waits for it: dropped before it is spent, it goes back to where it came from.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::inner::Inner;
use crate::limit::flow::Flow;
use crate::limit::grant::Grant;
use crate::window_counter::{SECOND, unit};

/// A request that the budget grants. Dropped before it is spent, it goes back to the budget.
#[derive(Debug)]
#[must_use]
pub struct BudgetSlot {
    budget: Arc<Inner>,
    grant: Grant,
    /// The flow of a request that waited in the queue.
    queued: Option<Flow>,
    is_spent: bool,
}

/// A request in the queue. If it is dropped when it has been granted and its task has not noticed, the slot goes back.
#[derive(Debug)]
pub(super) struct QueuedSlot<'a> {
    budget: &'a Arc<Inner>,
    flow: Flow,
    permit: oneshot::Receiver<Grant>,
}

impl BudgetSlot {
    /// A request that the replica's own budget grants at once.
    pub(super) fn at_once(budget: &Arc<Inner>) -> Self {
        Self { budget: Arc::clone(budget), grant: Grant::Local, queued: None, is_spent: false }
    }

    /// Spends the slot, since the request is sent now.
    pub fn spend(mut self) {
        self.is_spent = true;
        self.budget.granted.add(unit(self.budget.clock.now(), SECOND));
    }
}

impl Drop for BudgetSlot {
    fn drop(&mut self) {
        if !self.is_spent {
            self.budget.give_back(self.grant, self.queued);
        }
    }
}

impl<'a> QueuedSlot<'a> {
    pub(super) fn new(budget: &'a Arc<Inner>, flow: Flow, permit: oneshot::Receiver<Grant>) -> Self {
        Self { budget, flow, permit }
    }

    /// Waits until the request is granted.
    ///
    /// # Errors
    /// If it is refused.
    pub(super) async fn granted(mut self) -> Result<BudgetSlot, oneshot::error::RecvError> {
        let grant = (&mut self.permit).await?;
        Ok(BudgetSlot { budget: Arc::clone(self.budget), grant, queued: Some(self.flow), is_spent: false })
    }
}

impl Drop for QueuedSlot<'_> {
    fn drop(&mut self) {
        // Closed first, so that a permit either is here or is not sent any more.
        self.permit.close();
        if let Ok(grant) = self.permit.try_recv() {
            self.budget.give_back(grant, Some(self.flow));
        } else if self.budget.fleet().is_some() {
            // The flow may have a place in the fleet's queue that it no longer needs.
            self.budget.changed.notify_one();
        }
    }
}
