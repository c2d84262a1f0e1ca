//! Postern: an authenticating, caching gateway in front of the Refold executions API.
//!
//! The modules stand in the order in which a request meets them; [`gateway`] is the one to read first.

pub mod server;

pub mod admit;
pub mod cache;
pub mod caller;
pub mod cors;
pub mod executions;
pub mod gateway;
pub mod limit;
pub mod origin;
pub mod respond;
pub mod route;
pub mod translate;
pub mod upstream;
pub mod webhook;

pub mod body;
pub mod client;
pub mod clock;
pub mod config;
pub mod digest;
pub mod error;
pub mod fields;
mod header_value;
pub mod keyset;
pub mod lifecycle;
pub mod live;
pub mod nearest;
pub mod observe;
pub mod resilience;
pub mod tally;
pub mod tenant;
pub mod tls;

pub mod admin;
pub mod cli;
pub mod simulator;
