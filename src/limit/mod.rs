//! Budgets: what each caller may ask, and what Postern may ask of Refold.

mod client_budget;
mod fair_queue;
mod upstream_budget;

pub use client_budget::{Admission, ClientBudget};
pub use upstream_budget::{BudgetStatus, Exhausted, FlowId, UpstreamBudget, Urgency, Waiting};
