//! Budgets: what each caller may ask, and what Postern may ask of Refold.

mod client_budget;
mod upstream_budget;

pub use client_budget::{ClientBudget, Spent};
pub use upstream_budget::{BudgetStatus, Exhausted, Line, UpstreamBudget, Urgency, Waiting};
