//! Postern: an authenticating, caching gateway in front of the Refold executions API.
//!
//! The modules are listed in the order in which a request meets them. Read [`gateway`] first.

pub mod server;

pub mod generation;

pub mod gateway;

pub mod request;

pub mod caller;

pub mod tenant;

pub mod admit;

pub mod executions;

pub mod limit;

pub mod fleet;

pub mod cache;

pub mod fetch;

pub mod upstream;

pub mod http_client;

pub mod respond;

pub mod webhook;

pub mod observe;

pub mod admin;

pub mod cli;

pub mod config;

pub mod simulator;

pub mod clock;
pub mod digest;
pub mod error;
pub mod jwks;
pub mod lifecycle;
pub mod log_events;
pub mod named_file;
pub mod offload;
pub mod series;
pub mod suggest;
mod sync;
pub mod tls;
pub mod window_counter;
