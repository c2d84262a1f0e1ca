//! Refold: requests built from scratch, a pool of connections per worker, bounded answers.

mod client;
mod pool;
mod request;

pub use client::{ClientSetupError, FetchError, UpstreamClient, UpstreamResponse};
pub use request::{act, ask};
