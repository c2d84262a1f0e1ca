//! Postern: an authenticating, caching gateway in front of the Refold executions API.
//!
//! The modules stand in the order in which a request meets them; `gateway` is the one to read first.

pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod executions;
pub mod nearest;
pub mod simulator;
