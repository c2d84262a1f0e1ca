//! Refold: requests built from scratch, a pooled client per worker, bounded answers.

mod client;
mod request;

pub use client::{ClientSetupError, FetchError, UpstreamClient, UpstreamResponse};
pub use request::{act, ask};
