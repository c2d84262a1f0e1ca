//! Client budgets that the replicas of a fleet share: the leases, the script, and gateways on a real server.

mod bound;
mod gateways;
mod model;
mod script;
mod simulation;
