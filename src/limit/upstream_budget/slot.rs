//! One granted request, which goes back to the budget unless it is spent: its caller may disconnect, or find that there is no place
//! for the request, before it is sent.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Inner;
use crate::limit::flow::Flow;
use crate::window_counter::{SECOND, unit};

/// A request that the budget grants. Dropped before it is spent, it goes back to the budget.
#[derive(Debug)]
#[must_use]
pub struct BudgetSlot {
    budget: Arc<Inner>,
    /// The flow of a request that waited in the queue.
    queued: Option<Flow>,
    is_spent: bool,
}

/// A request in the queue. If it is dropped when it has been granted and its task has not noticed, the slot goes back.
#[derive(Debug)]
pub(super) struct QueuedSlot<'a> {
    budget: &'a Arc<Inner>,
    flow: Flow,
    permit: oneshot::Receiver<()>,
}

impl BudgetSlot {
    pub(super) fn new(budget: &Arc<Inner>, queued: Option<Flow>) -> Self {
        Self { budget: Arc::clone(budget), queued, is_spent: false }
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
            self.budget.give_back(self.queued);
        }
    }
}

impl<'a> QueuedSlot<'a> {
    pub(super) fn new(budget: &'a Arc<Inner>, flow: Flow, permit: oneshot::Receiver<()>) -> Self {
        Self { budget, flow, permit }
    }

    /// Waits until the request is granted.
    ///
    /// # Errors
    /// If it is refused.
    pub(super) async fn granted(mut self) -> Result<BudgetSlot, oneshot::error::RecvError> {
        (&mut self.permit).await?;
        Ok(BudgetSlot::new(self.budget, Some(self.flow)))
    }
}

impl Drop for QueuedSlot<'_> {
    fn drop(&mut self) {
        // Closed first, so that a permit either is here or is not sent any more.
        self.permit.close();
        if self.permit.try_recv().is_ok() {
            self.budget.give_back(Some(self.flow));
        }
    }
}
