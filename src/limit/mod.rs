//! Request budgets: one for each caller's requests to Postern, and one for Postern's requests to Refold per org key.
//!
//! A [`ClientBudget`] only counts and refuses. An [`UpstreamBudget`] also queues: requests that exceed it wait, and are served
//! fairly across credentials and their linked accounts. [`Places`] bound the requests in flight, fairly across tenants. In a fleet
//! both kinds of budget are shared by all replicas.

mod client_budget;
mod credential_queue;
mod fair_queue;
mod flow;
mod grant;
mod places;
mod policy;
mod rounds;
mod upstream_budget;

pub use client_budget::{BudgetQuestion, BudgetUse, ClientBudget, Spending};
pub use fair_queue::QueueDepth;
pub use flow::{Flow, FlowId, Urgency};
pub use places::{Place, PlaceHolder, Places};
pub use policy::{BudgetState, Policy, policy_list};
pub use upstream_budget::{BudgetSlot, BudgetStatus, Exhausted, UpstreamBudget, delete_idle_orgs};
