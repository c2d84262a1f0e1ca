//! Request budgets: one for each caller's requests to Postern, and one for Postern's requests to Refold per org key.
//!
//! A [`ClientBudget`] only counts and refuses. An [`UpstreamBudget`] also queues: requests that exceed it wait, and are served
//! fairly across linked accounts.

mod client_budget;
mod fair_queue;
mod flow;
mod upstream_budget;

pub use client_budget::{BudgetUse, ClientBudget};
pub use fair_queue::QueueDepth;
pub use flow::{FlowId, Urgency};
pub use upstream_budget::{BudgetStatus, Exhausted, UpstreamBudget};
